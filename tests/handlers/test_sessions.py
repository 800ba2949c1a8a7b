"""Conversations over HTTP."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Callable

import httpx
from sqlalchemy.orm import Session

from models.tenancy import Region, Stack
from tests.servers import Server

SESSIONS = "/api/v1/chat/sessions"


def begin(client: httpx.Client, **fields: object) -> dict[str, object]:
    """A new session."""
    response = client.post(SESSIONS, json=fields)
    assert response.status_code == 201, response.text
    made: dict[str, object] = response.json()
    return made


def ask(client: httpx.Client, id: object, content: str) -> dict[str, object]:
    """The whole reply to a question."""
    response = client.post(f"{SESSIONS}/{id}/messages", json={"content": content})
    assert response.status_code == 201, response.text
    reply: dict[str, object] = response.json()
    return reply


class TestCreate:
    def test_without_a_persona_the_stacks_default_one_answers(
        self, client: httpx.Client, server: Server
    ) -> None:
        made = begin(client)
        persona = client.get(f"/api/v1/chat/personas/{made['persona_id']}").json()
        assert persona["is_default"] is True
        assert made["stack_id"] == server.tenant["stack_id"]
        assert (made["title"], made["status"], made["message_count"]) == (None, "active", 0)

    def test_a_persona_of_another_stack_is_refused(self, client: httpx.Client, server: Server) -> None:
        persona_id = begin(client)["persona_id"]
        with server.database() as db:
            stack = db.get_one(Stack, server.tenant["stack_id"])
            other = Stack(
                tenant_id=stack.tenant_id, name="Other", product_id=stack.product_id, region_id=_region(db)
            )
            db.add(other)
            db.flush()
            other_id = other.id
        try:
            body = {"persona_id": persona_id, "stack_id": other_id}
            response = client.post(SESSIONS, json=body)
            assert response.status_code == 422
            assert response.json()["errors"][0]["pointer"] == "/persona_id"
            several = client.post(SESSIONS, json={})
            assert several.status_code == 422, "with two stacks one has to be named"
        finally:
            with server.database() as db:
                db.delete(db.get_one(Stack, other_id))

    def test_a_strangers_persona_is_told_like_one_that_never_was(
        self, client: httpx.Client, other: httpx.Client
    ) -> None:
        mine = f"{SESSIONS}/{begin(client)['id']}"
        for persona in (begin(other)["persona_id"], str(uuid.uuid4())):
            body = {"title": "Mine", "persona_id": persona}
            for method, url in (("POST", SESSIONS), ("PUT", mine), ("PATCH", mine)):
                response = client.request(method, url, json=body)
                assert response.status_code == 404
                assert response.json()["errors"][0]["pointer"] == "/persona_id"

    def test_an_id_in_capitals_is_the_same(self, client: httpx.Client) -> None:
        made = begin(client)
        named = {name: made[name] for name in ("persona_id", "stack_id")}
        again = begin(client, **{name: str(id).upper() for name, id in named.items()})
        assert named.items() <= again.items()

    def test_metadata_and_model_are_kept(self, client: httpx.Client) -> None:
        made = begin(client, title="Q3", model="some-model", metadata={"ticket": "FIN-7"})
        read = client.get(f"{SESSIONS}/{made['id']}").json()
        assert (read["title"], read["model"], read["metadata"]) == ("Q3", "some-model", {"ticket": "FIN-7"})


def _region(db: Session) -> str:
    region = Region(name="Elsewhere", slug="elsewhere-for-a-test")
    db.add(region)
    db.flush()
    return region.id


class TestList:
    def test_a_member_sees_its_own_and_an_owner_all_on_demand(
        self, client: httpx.Client, client_with: Callable[..., httpx.Client]
    ) -> None:
        member = client_with(role="member")
        hers = begin(member, title="Hers alone")
        mine = begin(client, title="Mine alone")
        assert [row["id"] for row in member.get(SESSIONS).json()["results"]] == [hers["id"]]
        assert member.get(SESSIONS, params={"show_all": "true"}).json()["count"] == 1
        assert hers["id"] not in [row["id"] for row in client.get(SESSIONS).json()["results"]]
        everybodys = client.get(SESSIONS, params={"show_all": "true", "page_size": 100}).json()["results"]
        assert {hers["id"], mine["id"]} <= {row["id"] for row in everybodys}
        assert member.get(f"{SESSIONS}/{mine['id']}").status_code == 404
        assert client.get(f"{SESSIONS}/{hers['id']}").status_code == 200

    def test_search_finds_titles_and_what_was_said(self, client: httpx.Client) -> None:
        titled = begin(client, title="Zirconium margins")
        said = begin(client)
        ask(client, said["id"], "Is there any praseodymium_% in it?")
        for word, found in (("zirconium", titled), ("praseodymium_%", said)):
            rows = client.get(SESSIONS, params={"search": word}).json()["results"]
            assert [row["id"] for row in rows] == [found["id"]], word

    def test_filters_and_pages(self, client: httpx.Client) -> None:
        archived = begin(client, title="Old one")
        client.patch(f"{SESSIONS}/{archived['id']}", json={"status": "archived"})
        rows = client.get(SESSIONS, params={"status": "archived"}).json()["results"]
        assert archived["id"] in [row["id"] for row in rows]
        page = client.get(SESSIONS, params={"page_size": 1}).json()
        assert page["next"].endswith("page_size=1&page=2")
        assert page["previous"] is None
        following = client.get(page["next"]).json()
        assert following["results"][0]["id"] != page["results"][0]["id"]


class TestChange:
    def test_an_archived_session_takes_no_question_until_it_is_revived(self, client: httpx.Client) -> None:
        id = begin(client)["id"]
        client.patch(f"{SESSIONS}/{id}", json={"status": "archived"})
        refused = client.post(f"{SESSIONS}/{id}/messages", json={"content": "Hello?"})
        assert refused.status_code == 422
        client.patch(f"{SESSIONS}/{id}", json={"status": "active"})
        ask(client, id, "Hello?")

    def test_the_first_question_gives_the_title_until_it_is_set(self, client: httpx.Client) -> None:
        id = begin(client)["id"]
        ask(client, id, "  What  was\nrevenue in 2025?  ")
        assert client.get(f"{SESSIONS}/{id}").json()["title"] == "What was revenue in 2025?"
        client.patch(f"{SESSIONS}/{id}", json={"title": "Revenue"})
        ask(client, id, "And the year before?")
        assert client.get(f"{SESSIONS}/{id}").json()["title"] == "Revenue"

    def test_replacing_takes_defaults(self, client: httpx.Client) -> None:
        made = begin(client, title="T", model="m", metadata={"a": 1})
        read = client.put(f"{SESSIONS}/{made['id']}", json={}).json()
        assert (read["title"], read["model"], read["metadata"], read["status"]) == (None, None, {}, "active")

    def test_a_stale_etag_changes_nothing(self, client: httpx.Client) -> None:
        made = client.post(SESSIONS, json={"title": "First"})
        url, etag = f"{SESSIONS}/{made.json()['id']}", made.headers["etag"]
        ok = client.patch(url, json={"title": "Second"}, headers={"If-Match": etag})
        assert ok.status_code == 200
        refused = client.patch(url, json={"title": "Third"}, headers={"If-Match": etag})
        assert refused.status_code == 412
        assert client.get(url).json()["title"] == "Second"


class TestDelete:
    def test_it_is_gone_with_its_messages(self, client: httpx.Client) -> None:
        id = begin(client)["id"]
        ask(client, id, "Hello?")
        assert client.delete(f"{SESSIONS}/{id}").status_code == 204
        assert client.get(f"{SESSIONS}/{id}/messages").status_code == 404


class TestHistory:
    def test_json_csv_and_markdown_tell_the_same(self, client: httpx.Client) -> None:
        id = begin(client, title="T")["id"]
        reply = ask(client, id, "=1+1 is what?")
        told = client.get(f"{SESSIONS}/{id}/history").json()
        assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
        assert told["messages"][1]["content"] == reply["content"]
        rows = list(csv.DictReader(io.StringIO(client.get(f"{SESSIONS}/{id}/history.csv").text)))
        assert rows[0]["content"] == "'=1+1 is what?", "no cell may be taken for a formula"
        assert rows[1]["content"] == reply["content"]
        markdown = client.get(f"{SESSIONS}/{id}/history", headers={"Accept": "text/markdown"})
        assert markdown.headers["content-type"].startswith("text/markdown")
        assert markdown.text.startswith("# T\n")
        assert str(reply["content"]) in markdown.text

"""Files of sessions over HTTP: only their owner's, read like documents, found by no other search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from handlers.documents import LIMIT
from tests.handlers import knowledge
from tests.handlers.knowledge import BASE, FILES, UNKNOWN, make, pointers, report, settled
from tests.handlers.test_indices import assign
from tests.servers import Server

SESSIONS = "/api/v1/chat/sessions"


def begin(client: httpx.Client, **body: Any) -> str:
    answer = client.post(SESSIONS, json=body)
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


@pytest.fixture
def session(client: httpx.Client) -> str:
    return begin(client)


def send(
    client: httpx.Client, session_id: str, content: bytes | None = None, name: str = "lamps.pdf"
) -> httpx.Response:
    """A file for a session."""
    return client.post(
        FILES,
        files={"file": (name, report() if content is None else content)},
        data={"session_id": session_id},
    )


def added(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["success"], body["error"]) == (True, None)
    file: dict[str, Any] = body["data"]
    return file


class TestOwn:
    def test_added_read_and_listed(self, client: httpx.Client, session: str) -> None:
        content = report()
        answer = send(client, session, content)
        file = added(answer)
        item = f"{FILES}/{file['id']}"
        assert answer.headers["location"] == item
        assert (file["session_id"], file["name"], file["status"]) == (session, "lamps.pdf", "pending")
        found = settled(client, item)
        assert (found["status"], found["progress"], found["page_count"]) == ("ready", 1, 3)
        assert found["chunk_count"] > 0
        second = added(send(client, session, b"Lamps.", "notes.txt"))
        listed = client.get(FILES, params={"session_id": session}).json()
        assert [entry["id"] for entry in listed["data"]] == [file["id"], second["id"]]
        assert listed["meta"] == {"count": 2}
        assert client.get(f"{BASE}/documents/{file['id']}/content").content == content

    def test_the_same_content_once(self, client: httpx.Client, session: str) -> None:
        content = report()
        assert added(send(client, session, content))["id"] == added(send(client, session, content))["id"]
        assert added(send(client, begin(client), content))["session_id"] != session

    def test_is_no_document_of_the_tenant_s(self, client: httpx.Client, session: str) -> None:
        file = added(send(client, session))
        settled(client, f"{FILES}/{file['id']}")
        assert client.get(f"{BASE}/documents/{file['id']}").status_code == 404
        assert file["id"] not in client.get(f"{BASE}/documents", params={"page_size": 100}).text
        hits = client.post(f"{BASE}/search", json={"query": "lamp inventories", "score_threshold": 0}).json()[
            "results"
        ]
        assert file["id"] not in [hit["document_id"] for hit in hits]
        narrowed = client.post(f"{BASE}/search", json={"query": "lamps", "document_ids": [file["id"]]})
        assert narrowed.status_code == 404

    def test_a_document_is_no_file(self, client: httpx.Client) -> None:
        document = knowledge.upload(client, make(client, "indices")["id"]).json()
        assert client.get(f"{FILES}/{document['id']}").status_code == 404
        assert client.delete(f"{FILES}/{document['id']}").status_code == 404

    def test_deleted_with_all_that_was_made_of_it(self, client: httpx.Client, session: str) -> None:
        file = added(send(client, session))
        item = f"{FILES}/{file['id']}"
        chunks = settled(client, item)["chunk_count"]
        gone = client.delete(item)
        assert gone.status_code == 200
        assert gone.json()["data"] == {"vectors_removed": chunks, "chunks_removed": chunks}
        assert client.get(item).status_code == 404
        assert client.get(f"{BASE}/documents/{file['id']}/content").status_code == 404
        assert client.get(FILES, params={"session_id": session}).json()["data"] == []

    def test_goes_with_its_session(self, client: httpx.Client, session: str) -> None:
        file = added(send(client, session))
        settled(client, f"{FILES}/{file['id']}")
        assert client.delete(f"{SESSIONS}/{session}").status_code == 204
        assert client.get(f"{FILES}/{file['id']}").status_code == 404

    def test_tried_again_when_it_failed(self, client: httpx.Client, session: str) -> None:
        item = f"{FILES}/{added(send(client, session, b'no', 'bad.pdf'))['id']}"
        assert settled(client, item)["error_code"] == "invalid_file"
        again = client.post(f"{item}/retry")
        assert again.status_code == 202
        assert again.json()["data"]["status"] == "pending"
        assert settled(client, item)["error_code"] == "invalid_file"
        good = f"{FILES}/{added(send(client, session))['id']}"
        settled(client, good)
        assert client.post(f"{good}/retry").status_code == 409

    def test_a_kind_that_cannot_be_read(self, client: httpx.Client, session: str) -> None:
        answer = send(client, session, b"x", "lamps.exe")
        assert answer.status_code == 422
        assert pointers(answer) == ["/file"]

    def test_more_than_the_limit(self, client: httpx.Client, session: str) -> None:
        assert send(client, session, b"x" * (LIMIT + 1), "long.txt").status_code == 413

    def test_a_key_replays_the_first_answer(self, client: httpx.Client, session: str) -> None:
        form: dict[str, Any] = {"data": {"session_id": session}, "headers": {"Idempotency-Key": session}}
        content = report()
        first, second = (client.post(FILES, files={"file": ("a.pdf", content)}, **form) for _ in range(2))
        assert (first.status_code, second.status_code) == (202, 202)
        assert second.json() == first.json()
        assert second.headers["idempotent-replayed"] == "true"

    def test_a_list_needs_its_session(self, client: httpx.Client) -> None:
        missing = client.get(FILES)
        assert missing.status_code == 400
        assert pointers(missing) == ["session_id"]
        assert client.get(FILES, params={"session_id": UNKNOWN}).status_code == 404
        assert send(client, UNKNOWN).status_code == 404


class TestRules:
    def test_a_persona_may_take_no_files(self, client: httpx.Client, server: Server) -> None:
        persona = knowledge.persona(client, server, allow_file_uploads=False)
        session = begin(client, persona_id=persona["id"])
        answer = send(client, session)
        assert answer.status_code == 403
        assert answer.json()["error"] == "feature-disabled"
        client.patch(f"/api/v1/chat/personas/{persona['id']}", json={"allow_file_uploads": True})
        assert send(client, session).status_code == 202

    def test_an_archived_session_takes_none(self, client: httpx.Client, session: str) -> None:
        assert client.patch(f"{SESSIONS}/{session}", json={"status": "archived"}).status_code == 200
        assert send(client, session).status_code == 422

    def test_a_viewer_adds_none(self, client_with: Callable[..., httpx.Client], session: str) -> None:
        assert send(client_with(role="viewer"), session).status_code == 403


class TestSomebodyElses:
    def test_member(
        self, client: httpx.Client, server: Server, client_with: Callable[..., httpx.Client]
    ) -> None:
        persona = knowledge.persona(client, server)
        one, another = client_with(role="member"), client_with(role="member")
        assign(server, persona["id"])
        session = begin(one, persona_id=persona["id"])
        file = added(send(one, session))
        item = f"{FILES}/{file['id']}"
        assert one.get(item).status_code == 200
        assert one.get(f"{BASE}/documents/{file['id']}/content").status_code == 200
        assert another.get(FILES, params={"session_id": session}).status_code == 404
        assert send(another, session).status_code == 404
        for answer in (
            another.get(item),
            another.delete(item),
            another.post(f"{item}/retry"),
            another.get(f"{BASE}/documents/{file['id']}/content"),
        ):
            assert answer.status_code == 404
        assert client.get(item).status_code == 200

    def test_another_tenant(self, client: httpx.Client, other: httpx.Client, session: str) -> None:
        item = f"{FILES}/{added(send(client, session))['id']}"
        never = other.get(f"{FILES}/{UNKNOWN}").json()["detail"]
        for answer in (
            other.get(item),
            other.delete(item),
            other.post(f"{item}/retry"),
            other.get(FILES, params={"session_id": session}),
            send(other, session),
        ):
            assert answer.status_code == 404
            assert answer.json()["detail"] == never

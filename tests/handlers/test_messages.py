"""Questions and replies over HTTP, with a real provider behind the server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.conftest import MakesClient
from tests.events import Event, events, text_of
from tests.fakes.provider import FakeProvider
from tests.handlers import knowledge
from tests.servers import Server

SESSIONS = "/api/v1/chat/sessions"


@pytest.fixture
def chat(server_with_provider: Server, connect: MakesClient, fake_provider: FakeProvider) -> httpx.Client:
    """The owner of a tenant whose server asks the fake provider."""
    fake_provider.forget()
    return connect(server_with_provider.api_key, server_with_provider)


@pytest.fixture
def session(chat: httpx.Client) -> str:
    """The path of a new session."""
    response = chat.post(SESSIONS, json={})
    assert response.status_code == 201, response.text
    return f"{SESSIONS}/{response.json()['id']}"


def streamed(
    client: httpx.Client, url: str, method: str = "POST", *, json: Any = None, headers: Any = None
) -> Iterator[Event]:
    """The events of a stream, read to its end."""
    with client.stream(method, url, json=json, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield from events(response.iter_lines())


class TestSend:
    def test_the_reply_is_whole_and_counted(self, chat: httpx.Client, session: str) -> None:
        reply = chat.post(f"{session}/messages", json={"content": "Tell [[tokens=5]]"}).json()
        assert reply["status"] == "complete"
        assert reply["content"] == "revenue rose by 12 per"
        assert reply["usage"]["source"] == "provider"
        assert reply["usage"]["completion_tokens"] == 5
        assert (reply["provider"], reply["persona_version"]) == ("openai", 1)
        assert reply["first_token_ms"] <= reply["latency_ms"]
        question, answer = chat.get(f"{session}/messages").json()["results"]
        assert (question["id"], question["role"]) == (reply["parent_id"], "user")
        assert answer == reply

    def test_usage_that_nobody_counts_is_estimated_and_said_so(
        self, chat: httpx.Client, session: str
    ) -> None:
        reply = chat.post(f"{session}/messages", json={"content": "Tell [[usage=0]]"}).json()
        assert reply["usage"]["source"] == "estimated"
        assert reply["usage"]["completion_tokens"] > 0

    def test_the_provider_is_told_prompt_history_and_question(
        self, chat: httpx.Client, session: str, fake_provider: FakeProvider
    ) -> None:
        chat.post(f"{session}/messages", json={"content": "First question"})
        chat.post(f"{session}/messages", json={"content": "Second question"})
        told = fake_provider.requests[-1]
        contents = [message["content"] for message in told.body["messages"]]
        assert contents[-3:] == ["First question", "revenue rose by 12 per cent as new", "Second question"]
        assert told.headers["authorization"] == "Bearer sk-test"

    def test_a_second_question_while_a_reply_runs_is_refused(self, chat: httpx.Client, session: str) -> None:
        slow = {"content": "Slowly [[tokens=100&gap=0.05]]"}
        with chat.stream("POST", f"{session}/messages/stream", json=slow) as response:
            next(events(response.iter_lines()))
            refused = chat.post(f"{session}/messages", json={"content": "And?"})
            assert refused.status_code == 409
            assert refused.json()["error"] == "reply-running"
            assert chat.delete(session).status_code == 409
            assert chat.post(f"{session}/stop").json()["stopped"] is True

    def test_questions_at_once_give_one_reply(self, chat: httpx.Client, session: str) -> None:
        slow = {"content": "Slowly [[tokens=10&gap=0.05]]"}
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: chat.post(f"{session}/messages", json=slow), range(8)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7

    def test_a_question_follows_a_reply_of_its_session(self, chat: httpx.Client, session: str) -> None:
        reply = chat.post(f"{session}/messages", json={"content": "One"}).json()
        chat.post(f"{session}/messages", json={"content": "Two"})
        branch = chat.post(f"{session}/messages", json={"content": "Two again", "parent_id": reply["id"]})
        assert branch.status_code == 201
        newest = [
            m["content"] for m in chat.get(f"{session}/messages").json()["results"] if m["role"] == "user"
        ]
        assert newest == ["One", "Two again"]
        question = reply["parent_id"]
        for wrong, status in ((question, 422), ("01934c5e-7d2a-7c3b-9a44-5f1d2b6c8e90", 404)):
            refused = chat.post(f"{session}/messages", json={"content": "No", "parent_id": wrong})
            assert refused.status_code == status
            assert refused.json()["errors"][0]["pointer"] == "/parent_id"

    def test_web_search_is_switched_off(self, chat: httpx.Client, session: str) -> None:
        refused = chat.post(f"{session}/messages", json={"content": "Look", "web_search": True})
        assert (refused.status_code, refused.json()["error"]) == (403, "feature-disabled")

    @pytest.mark.parametrize(
        ("marker", "status", "code"),
        [
            ("status=500", 502, "provider_unavailable"),
            ("status=401", 502, "provider_refused"),
            ("status=404", 502, "provider_rejected"),
            ("status=429&retry_after=30", 503, "provider_rate_limited"),
            ("answer=html", 502, "provider_malformed"),
            ("answer=empty", 502, "provider_malformed"),
            ("malformed=0", 502, "provider_malformed"),
            ("error=0", 502, "provider_unavailable"),
            ("cut=3", 502, "provider_interrupted"),
        ],
    )
    def test_a_providers_fault_is_a_problem_and_what_arrived_is_kept(
        self, chat: httpx.Client, session: str, marker: str, status: int, code: str
    ) -> None:
        response = chat.post(f"{session}/messages", json={"content": f"Fail [[{marker}]]"})
        problem = response.json()
        assert (response.status_code, problem["meta"]["provider_error"]) == (status, code), problem
        kept = chat.get(f"{session}/messages").json()["results"][-1]
        assert (kept["id"], kept["status"], kept["error"]["code"]) == (
            problem["meta"]["message_id"],
            "failed",
            code,
        )
        assert kept["content"] == ("revenue rose by" if marker == "cut=3" else "")
        if status == 503:
            assert response.headers["retry-after"] == "30"
        after = chat.post(f"{session}/messages", json={"content": "Go on"})
        assert after.status_code == 201, "a failed reply must not block the session"


class TestStream:
    def test_events_rise_and_make_the_stored_message(self, chat: httpx.Client, session: str) -> None:
        told = list(
            streamed(chat, f"{session}/messages/stream", json={"content": "Go [[tokens=12&gap=0.01]]"})
        )
        names = [event.name for event in told]
        assert names[:2] == ["message.created", "retrieval.completed"]
        assert set(names[2:-1]) == {"message.delta"}
        assert names[-1] == "message.completed"
        positions = [event.position for event in told]
        assert positions == sorted(set(positions))
        last = told[-1].data
        assert text_of(told) == last["content"]
        assert told[0].data["message_id"] == last["id"]
        assert told[0].data["question_id"] == last["parent_id"]
        assert chat.get(f"{session}/messages").json()["results"][-1] == last

    @pytest.mark.parametrize("at", [0, 1, 2, 5, -2, -1])
    def test_resumed_anywhere_the_text_and_the_last_event_are_the_same(
        self, chat: httpx.Client, session: str, at: int
    ) -> None:
        told = list(
            streamed(chat, f"{session}/messages/stream", json={"content": "Go [[tokens=12&gap=0.01]]"})
        )
        seen = told[: at + 1] if at >= 0 else told[: len(told) + at + 1]
        again = list(
            streamed(chat, f"{session}/messages/stream", "GET", headers={"Last-Event-ID": seen[-1].id})
        )
        assert text_of(seen) + text_of(again) == text_of(told)
        assert again[-1] == told[-1]
        assert [event.name for event in again].count("message.created") == 0

    def test_following_a_running_reply_from_a_second_place(self, chat: httpx.Client, session: str) -> None:
        body = {"content": "Go [[tokens=40&gap=0.02]]"}
        with chat.stream("POST", f"{session}/messages/stream", json=body) as response:
            first = events(response.iter_lines())
            begun = [next(first), next(first), next(first)]
            followed = list(streamed(chat, f"{session}/messages/stream", "GET"))
            rest = list(first)
        assert text_of(followed) == text_of(begun) + text_of(rest)
        assert followed[-1] == rest[-1]

    def test_without_any_reply_there_is_nothing_to_follow(self, chat: httpx.Client, session: str) -> None:
        assert chat.get(f"{session}/messages/stream").status_code == 404

    def test_a_call_refused_at_once_is_a_problem_not_a_stream(self, chat: httpx.Client, session: str) -> None:
        response = chat.post(f"{session}/messages/stream", json={"content": "Go [[status=401]]"})
        assert response.status_code == 502
        assert response.headers["content-type"] == "application/problem+json"

    def test_a_fault_half_way_is_an_event_and_what_arrived_is_kept(
        self, chat: httpx.Client, session: str
    ) -> None:
        told = list(
            streamed(chat, f"{session}/messages/stream", json={"content": "Go [[tokens=9&gap=0.01&cut=3]]"})
        )
        assert told[-1].name == "message.failed"
        assert told[-1].data["meta"]["provider_error"] == "provider_interrupted"
        kept = chat.get(f"{session}/messages").json()["results"][-1]
        assert (kept["content"], kept["status"]) == (text_of(told), "failed")

    def test_stop_ends_the_providers_call_and_keeps_the_part(
        self, chat: httpx.Client, session: str, fake_provider: FakeProvider
    ) -> None:
        body = {"content": "Go [[tokens=1000&gap=0.02]]"}
        with chat.stream("POST", f"{session}/messages/stream", json=body) as response:
            told = events(response.iter_lines())
            begun = [next(told) for _ in range(5)]
            stopped = chat.post(f"{session}/stop").json()
            rest = list(told)
        assert stopped["stopped"] is True
        assert stopped["message"]["status"] == "stopped"
        assert rest[-1].data == stopped["message"]
        assert text_of(begun) + text_of(rest) == stopped["message"]["content"]
        fake_provider.requests[-1].wait_disconnected()
        assert chat.post(f"{session}/stop").json() == {"stopped": False, "message": None}

    def test_a_replayed_stream_is_the_same_reply(
        self, chat: httpx.Client, session: str, fake_provider: FakeProvider
    ) -> None:
        body, headers = {"content": "Once [[tokens=5]]"}, {"Idempotency-Key": "stream-once"}
        first = list(streamed(chat, f"{session}/messages/stream", json=body, headers=headers))
        asked = len(fake_provider.requests)
        again = list(streamed(chat, f"{session}/messages/stream", json=body, headers=headers))
        assert text_of(again) == text_of(first)
        assert again[-1] == first[-1]
        assert len(fake_provider.requests) == asked
        other = chat.post(f"{session}/messages/stream", json={"content": "Other"}, headers=headers)
        assert (other.status_code, other.json()["error"]) == (422, "idempotency-key-reused")

    def test_the_same_key_while_the_first_is_answered_is_told_to_wait(
        self, chat: httpx.Client, session: str
    ) -> None:
        body, headers = {"content": "Slow [[tokens=50&gap=0.05]]"}, {"Idempotency-Key": "slow-once"}
        with chat.stream("POST", f"{session}/messages/stream", json=body, headers=headers) as response:
            next(events(response.iter_lines()))
            early = chat.post(f"{session}/messages/stream", json=body, headers=headers)
            assert (early.status_code, early.json()["error"]) == (409, "idempotency-in-progress")
            assert early.headers["retry-after"] == "1"
            chat.post(f"{session}/stop")


class TestList:
    def test_cursors_reach_every_message_once_while_some_are_added(
        self, chat: httpx.Client, session: str
    ) -> None:
        for number in range(3):
            chat.post(f"{session}/messages", json={"content": f"Number {number}"})
        page = chat.get(f"{session}/messages", params={"page_size": 4}).json()
        seen = [message["id"] for message in page["results"]]
        chat.post(f"{session}/messages", json={"content": "Number 3"})
        while page["next_cursor"]:
            params = {"page_size": 3, "cursor": page["next_cursor"]}
            page = chat.get(f"{session}/messages", params=params).json()
            seen += [message["id"] for message in page["results"]]
        everything = chat.get(f"{session}/messages", params={"page_size": 100}).json()["results"]
        assert seen == [message["id"] for message in everything]
        assert len(seen) == 8

    def test_a_cursor_that_is_none_of_ours_is_refused(self, chat: httpx.Client, session: str) -> None:
        for cursor in ("abcd", "1" * 48):
            response = chat.get(f"{session}/messages", params={"cursor": cursor})
            assert response.status_code == 400
            assert response.json()["errors"][0]["parameter"] == "cursor"

    def test_a_cursor_takes_the_place_of_a_page(self, chat: httpx.Client, session: str) -> None:
        chat.post(f"{session}/messages", json={"content": "One"})
        cursor = chat.get(f"{session}/messages", params={"page_size": 1}).json()["next_cursor"]
        for page in (1, 2):
            response = chat.get(f"{session}/messages", params={"cursor": cursor, "page": page})
            assert response.status_code == 400
            assert [fault["parameter"] for fault in response.json()["errors"]] == ["page"]

    def test_a_cursor_of_another_conversation_is_none_here(self, chat: httpx.Client, session: str) -> None:
        chat.post(f"{session}/messages", json={"content": "One"})
        cursor = chat.get(f"{session}/messages", params={"page_size": 1}).json()["next_cursor"]
        elsewhere = chat.post("/api/v1/chat/sessions", json={}).headers["location"]
        response = chat.get(f"{elsewhere}/messages", params={"cursor": cursor})
        assert response.status_code == 400
        assert response.json()["errors"][0]["parameter"] == "cursor"


class TestAnswersFromDocuments:
    @pytest.fixture
    def asked(self, chat: httpx.Client, server_with_provider: Server) -> str:
        """The path of a session whose persona reads a report."""
        index = knowledge.make(chat, "indices")["id"]
        knowledge.ready(chat, index)
        persona = knowledge.persona(chat, server_with_provider, indices=[index])
        made = chat.post(SESSIONS, json={"persona_id": persona["id"], "model": "any"}).json()
        return f"{SESSIONS}/{made['id']}"

    def test_every_figure_is_held_against_the_cited_pages(self, chat: httpx.Client, asked: str) -> None:
        said = "Inventories were 918 of 15,204 in all, or 6.0%25; not 9,999 %5B1, 2, 3%5D. See %5B77%5D."
        question = {"content": f"What were the lamp inventories and total assets? [[text={said}]]"}
        told = list(streamed(chat, f"{asked}/messages/stream", json=question))
        reply = told[-1].data
        checks = {check["text"]: check for check in reply["numeric_checks"]}
        assert {text: check["status"] for text, check in checks.items()} == {
            "918": "verified",
            "15,204": "verified",
            "6.0%": "derived",
            "9,999": "unverified",
        }
        by_number = {citation["number"]: citation for citation in reply["citations"]}
        assert by_number[checks["918"]["citation"]]["page"] == 2
        assert checks["6.0%"]["formula"] == "918 / 15204 * 100"
        assert [operand["text"] for operand in checks["6.0%"]["operands"]] == ["918", "15,204"]
        for check in checks.values():
            assert reply["content"][check["start"] : check["end"]] == check["text"]
        assert 77 not in by_number
        trace = chat.get(f"{asked}/messages/{reply['id']}/trace").json()
        assert 77 in trace["dropped_citations"]
        assert chat.get(f"{asked}/messages").json()["results"][-1] == reply

    def test_a_question_that_leans_on_the_last_one_is_searched_for_whole(
        self, chat: httpx.Client, asked: str
    ) -> None:
        chat.post(f"{asked}/messages", json={"content": "What was net revenue of the lamp segment in 2024?"})
        reply = chat.post(f"{asked}/messages", json={"content": "And the year before?"}).json()
        assert reply["answer_status"] == "answered"
        trace = chat.get(f"{asked}/messages/{reply['id']}/trace").json()
        assert trace["retrieval"]["asked"] == "And the year before?"
        assert trace["retrieval"]["question"] == "What was net revenue of the lamp segment in 2023?"
        filters = trace["retrieval"]["filters"]
        assert len(filters["index_ids"]) == 1
        assert filters["max_documents"] == trace["configuration"]["values"]["default_max_documents"]

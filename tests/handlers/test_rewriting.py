"""Questions that lean on the conversation, made to stand alone by the persona's provider over real HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.conftest import MakesClient
from tests.fakes.provider import FakeProvider
from tests.handlers import knowledge
from tests.servers import Server

SESSIONS = "/api/v1/chat/sessions"
PERSONAS = "/api/v1/chat/personas"
FIRST = "What was net revenue of the lamp segment in 2024?"
FOLLOWING = "And the year before?"
BY_RULE = "What was net revenue of the lamp segment in 2023?"
BY_PROVIDER = "How much net revenue did services of Harbour Lamps bring in 2022?"
TOLD_TO_REWRITE = "Last question: "

Ask = Callable[..., tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture
def chat(server_with_provider: Server, connect: MakesClient, fake_provider: FakeProvider) -> httpx.Client:
    """The owner of a tenant whose server asks the fake provider."""
    fake_provider.forget()
    return connect(server_with_provider.api_key, server_with_provider)


@pytest.fixture
def ask(chat: httpx.Client, server_with_provider: Server) -> Ask:
    """Asks twice of a persona that reads a report; the second reply and the retrieval of its trace."""
    index = knowledge.make(chat, "indices")["id"]
    knowledge.ready(chat, index)

    def asked(following: str = FOLLOWING, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        given = {"question_rewriting": "provider", "default_chat_model": "any", **fields}
        persona = knowledge.persona(chat, server_with_provider, indices=[index], **given)
        session = f"{SESSIONS}/{chat.post(SESSIONS, json={'persona_id': persona['id']}).json()['id']}"
        assert chat.post(f"{session}/messages", json={"content": FIRST}).status_code == 201
        reply = chat.post(f"{session}/messages", json={"content": following}).json()
        trace = chat.get(f"{session}/messages/{reply['id']}/trace").json()
        retrieval: dict[str, Any] = trace["retrieval"]
        return reply, retrieval

    return asked


def calls(fake: FakeProvider) -> list[bool]:
    """Of each call in order: whether it was to make a question stand alone."""
    return [TOLD_TO_REWRITE in request.body["messages"][-1]["content"] for request in fake.requests]


def test_the_providers_question_is_searched_for_and_its_tokens_are_the_turns(
    ask: Ask, chat: httpx.Client, fake_provider: FakeProvider
) -> None:
    fake_provider.when(TOLD_TO_REWRITE, text=BY_PROVIDER)
    spent = chat.get("/api/v1/tenants/current/usage").json()["tokens"]["used"]
    reply, retrieval = ask()
    assert calls(fake_provider) == [False, True, False], "a first question leans on nothing"
    assert (retrieval["asked"], retrieval["question"]) == (FOLLOWING, BY_PROVIDER)
    assert (retrieval["rewritten_by"], retrieval["rewriting"]["error"]) == ("provider", None)
    assert "services" in str(retrieval["query"])
    rewriting, answering = fake_provider.requests[1:]
    words = [sum(len(m["content"].split()) for m in call.body["messages"]) for call in (rewriting, answering)]
    assert (retrieval["rewriting"]["prompt_tokens"], reply["usage"]["prompt_tokens"]) == (
        words[0],
        sum(words),
    )
    assert reply["usage"]["completion_tokens"] == len(BY_PROVIDER.split()) + 8
    assert reply["usage"]["source"] == "provider"
    assert answering.body["messages"][-1]["content"].endswith(f"Question: {FOLLOWING}")
    asked = chat.get(f"{SESSIONS}/{reply['session_id']}/messages").json()["results"]
    total = sum(message["usage"]["total_tokens"] for message in asked if message["usage"])
    assert chat.get("/api/v1/tenants/current/usage").json()["tokens"]["used"] - spent == total


@pytest.mark.parametrize(
    ("fault", "code", "costs"),
    [
        ({"status": 500}, "provider_unavailable", False),
        ({"first": 30.0}, "provider_timeout", True),
        ({"text": "Of course!\n\nHere it is."}, "provider_malformed", True),
        ({"text": "What was net", "finish": "length"}, "provider_malformed", True),
        ({"cut": 3}, "provider_interrupted", True),
    ],
)
def test_where_the_provider_fails_or_is_slow_the_rule_does_it(
    ask: Ask, fake_provider: FakeProvider, fault: dict[str, Any], code: str, costs: bool
) -> None:
    fake_provider.when(TOLD_TO_REWRITE, **fault)
    reply, retrieval = ask()
    assert (reply["status"], reply["content"]) == ("complete", "revenue rose by 12 per cent as new")
    assert (retrieval["question"], retrieval["rewritten_by"]) == (BY_RULE, "rule")
    assert (retrieval["rewriting"]["question"], retrieval["rewriting"]["error"]) == (None, code)
    assert (retrieval["rewriting"]["prompt_tokens"] > 0) is costs
    assert retrieval["rewriting"]["ms"] < 6_000


def test_only_the_persona_that_asks_for_it_pays_for_it(ask: Ask, fake_provider: FakeProvider) -> None:
    _, retrieval = ask(question_rewriting="rule")
    assert calls(fake_provider) == [False, False]
    assert (retrieval["question"], retrieval["rewritten_by"]) == (BY_RULE, "rule")
    assert retrieval["rewriting"] is None
    _, retrieval = ask(llm_provider="extractive")
    assert (retrieval["rewritten_by"], retrieval["rewriting"]) == ("rule", None)


def test_a_question_that_comes_back_as_it_was_is_nobodys(ask: Ask, fake_provider: FakeProvider) -> None:
    fake_provider.when(TOLD_TO_REWRITE, text="What were total assets?")
    _, retrieval = ask("What were total assets?")
    assert (retrieval["question"], retrieval["rewritten_by"]) == (None, None)
    assert retrieval["rewriting"]["question"] == "What were total assets?"


def test_who_does_it_is_part_of_a_personas_versions_and_copies(
    chat: httpx.Client, server_with_provider: Server
) -> None:
    made = knowledge.persona(chat, server_with_provider)
    path = f"{PERSONAS}/{made['id']}"
    assert made["question_rewriting"] == "rule"
    assert chat.patch(path, json={"question_rewriting": "provider"}).json()["version"] == 2
    assert chat.post(f"{path}/duplicate").json()["question_rewriting"] == "provider"
    versions = chat.get(f"{path}/versions").json()["results"]
    assert [version["values"]["question_rewriting"] for version in versions] == ["provider", "rule"]
    assert chat.post(f"{path}/versions/1/restore").json()["question_rewriting"] == "rule"
    assert chat.patch(path, json={"question_rewriting": "nobody"}).status_code == 400

"""Prompts fit the model's context, by the count of the provider that is asked over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import documents
from tests.backends import Backend
from tests.conftest import MakesClient
from tests.fakes.provider import FakeProvider, prompt_tokens
from tests.handlers import knowledge
from tests.servers import Server, running

SESSIONS = "/api/v1/chat/sessions"
PROVIDERS = "/api/v1/chat/llm-providers"
WINDOW = 1500
WEIGHT = 1.9
PAGES = [
    f"Lamp sales in region {number}\n" + f"The lamp sales of harbour region {number} were {number},412. " * 12
    for number in range(1, 13)
]


@pytest.fixture(scope="module")
def inner_server(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets tenants reach the host's own network."""
    folder = tmp_path_factory.mktemp(f"context-{backend.name}")
    with running(folder, backend.name, {**backend.fresh(), "BOOGA_ALLOW_PRIVATE_ADDRESSES": "1"}) as made:
        yield made


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """A provider that counts nearly two tokens a word and refuses what is longer than its context."""
    with FakeProvider() as made:
        made.behaviour(weight=WEIGHT, context=WINDOW, text="word " * 60)
        yield made


@pytest.fixture
def chat(inner_server: Server, connect: MakesClient, fake: FakeProvider) -> Iterator[httpx.Client]:
    """The owner of a tenant with that provider."""
    client = connect(inner_server.api_key, inner_server)
    models = [{"name": "small", "context_window": WINDOW}, {"name": "any"}]
    body = {"name": "House", "kind": "openai", "base_url": fake.base_url, "models": models}
    made = client.post(PROVIDERS, json=body)
    assert made.status_code == 201, made.text
    assert [model["context_window"] for model in made.json()["models"]] == [WINDOW, None]
    yield client
    client.delete(made.headers["location"])


def session_of(chat: httpx.Client, server: Server, model: str, **fields: Any) -> str:
    index = knowledge.make(chat, "indices")["id"]
    knowledge.ready(chat, index, documents.pdf(PAGES))
    given: dict[str, Any] = {
        "default_chat_model": model,
        "default_max_documents": 12,
        "default_score_threshold": 0,
    }
    persona = knowledge.persona(chat, server, indices=[index], **given, **fields)
    return f"{SESSIONS}/{chat.post(SESSIONS, json={'persona_id': persona['id']}).json()['id']}"


def ask(chat: httpx.Client, session: str, question: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reply, and what its trace tells of the prompt."""
    reply = chat.post(f"{session}/messages", json={"content": question}).json()
    assert reply["status"] == "complete", reply
    return reply, chat.get(f"{session}/messages/{reply['id']}/trace").json()["prompt"]


def test_no_prompt_of_a_long_conversation_exceeds_a_small_context(
    chat: httpx.Client, inner_server: Server, fake: FakeProvider
) -> None:
    session = session_of(chat, inner_server, "small")
    told = []
    for number in range(1, 9):
        question = f"What were the lamp sales of harbour region {number}?"
        reply, prompt = ask(chat, session, question)
        body = fake.requests[-1].body
        assert prompt_tokens(body, WEIGHT) == reply["usage"]["prompt_tokens"] <= WINDOW
        assert body["messages"][-1]["content"].endswith(f"\n\nQuestion: {question}")
        assert prompt["context_window"] == WINDOW
        assert prompt["counted_by"] == "tokenizer"
        assert prompt["prompt_tokens"] + prompt["reserved_tokens"] <= WINDOW
        numbers = [citation["number"] for citation in reply["citations"]]
        left_out = [passage["number"] for passage in prompt["passages_left_out"]]
        assert numbers + left_out == list(range(1, 13))
        assert left_out
        assert "page" in prompt["passages_left_out"][0]["place"]
        assert all(f"[{number}] report.pdf" in body["messages"][-1]["content"] for number in numbers)
        told.append((prompt, reply["usage"]["prompt_tokens"]))
    assert told[0][0]["factor"] == 1.5, "safe, until the model has counted"
    measured, counted = told[-1][0]["prompt_tokens"], told[-1][1]
    assert counted <= measured <= counted * 1.25, "learnt from what the model counted"
    assert told[-1][0]["messages_left_out"] > 0


def test_a_larger_context_keeps_conversation_and_passages(
    chat: httpx.Client, inner_server: Server, fake: FakeProvider
) -> None:
    fake.behaviour(context=0)
    session = session_of(chat, inner_server, "any")
    ask(chat, session, "What were the lamp sales of harbour region 1?")
    reply, prompt = ask(chat, session, "And of region 2?")
    assert prompt["context_window"] == 8192
    assert (prompt["messages_left_out"], prompt["passages_left_out"]) == (0, [])
    assert len(reply["citations"]) == 12
    assert len(fake.requests[-1].body["messages"]) == 4


def test_a_question_that_does_not_fit_is_not_sent(
    chat: httpx.Client, inner_server: Server, fake: FakeProvider
) -> None:
    session = session_of(chat, inner_server, "small")
    refused = chat.post(f"{session}/messages", json={"content": "lamp " * 3000})
    assert (refused.status_code, refused.json()["meta"]["provider_error"]) == (502, "provider_rejected")
    assert "context of 1500" in refused.json()["detail"]
    assert fake.requests == []


def test_what_only_shows_passages_has_no_context_to_fit(chat: httpx.Client, inner_server: Server) -> None:
    session = session_of(chat, inner_server, "small", llm_provider="extractive")
    reply, prompt = ask(chat, session, "What were the lamp sales of harbour region 1?")
    assert (prompt["context_window"], prompt["passages_left_out"]) == (None, [])
    assert len(reply["citations"]) == 12

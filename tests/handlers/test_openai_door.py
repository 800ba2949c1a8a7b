"""The OpenAI-compatible door, through the official client."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from models.chat.conversations import ChatMessage, UsageRecord
from tests.fakes.provider import FakeProvider
from tests.servers import Server


@pytest.fixture
def door(server_with_provider: Server, fake_provider: FakeProvider) -> Iterator[openai.OpenAI]:
    """The official client, pointed at the server."""
    fake_provider.forget()
    url = f"{server_with_provider.url}/openai/v1"
    with openai.OpenAI(base_url=url, api_key=server_with_provider.api_key, max_retries=0) as client:
        yield client


def asked(content: str) -> list[openai.types.chat.ChatCompletionMessageParam]:
    """A conversation of one question."""
    return [{"role": "user", "content": content}]


class TestModels:
    def test_a_personas_slug_is_a_model(self, door: openai.OpenAI) -> None:
        assert "assistant" in [model.id for model in door.models.list()]


class TestComplete:
    def test_whole(self, door: openai.OpenAI) -> None:
        reply = door.chat.completions.create(model="assistant", messages=asked("Hi [[tokens=3]]"))
        assert reply.choices[0].message.content == "revenue rose by"
        assert reply.choices[0].finish_reason == "stop"
        assert reply.usage is not None
        assert reply.usage.completion_tokens == 3

    def test_streamed(self, door: openai.OpenAI) -> None:
        chunks = list(
            door.chat.completions.create(
                model="assistant",
                messages=asked("Hi [[tokens=6&gap=0.01]]"),
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "revenue rose by 12 per cent"
        assert sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].delta.content) > 1
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 6

    def test_the_clients_own_history_and_system_prompt_reach_the_provider(
        self, door: openai.OpenAI, fake_provider: FakeProvider
    ) -> None:
        door.chat.completions.create(
            model="assistant",
            messages=[
                {"role": "system", "content": "Be terse."},
                {"role": "user", "content": "One"},
                {"role": "assistant", "content": "1"},
                {"role": "user", "content": [{"type": "text", "text": "Two"}]},
            ],
            temperature=0.1,
            seed=4,
        )
        told = [
            (message["role"], message["content"]) for message in fake_provider.requests[-1].body["messages"]
        ]
        assert told == [("system", "Be terse."), ("user", "One"), ("assistant", "1"), ("user", "Two")]

    def test_nothing_is_stored_but_usage(self, door: openai.OpenAI, server_with_provider: Server) -> None:
        with server_with_provider.database() as db:
            before = db.query(ChatMessage).count(), db.query(UsageRecord).count()
        door.chat.completions.create(model="assistant", messages=asked("Hi [[tokens=3]]"))
        with server_with_provider.database() as db:
            after = db.query(ChatMessage).count(), db.query(UsageRecord).count()
        assert after == (before[0], before[1] + 1)

    def test_errors_have_openais_shape(self, door: openai.OpenAI, server_with_provider: Server) -> None:
        with pytest.raises(openai.NotFoundError) as unknown:
            door.chat.completions.create(model="no-such", messages=asked("Hi"))
        assert unknown.value.code == "not_found"
        with pytest.raises(openai.UnprocessableEntityError) as last:
            door.chat.completions.create(model="assistant", messages=[{"role": "assistant", "content": "Hi"}])
        assert str(last.value).count("The last message has to be") == 1
        with pytest.raises(openai.InternalServerError):
            door.chat.completions.create(model="assistant", messages=asked("Hi [[status=401]]"))
        url = f"{server_with_provider.url}/openai/v1"
        with (
            openai.OpenAI(base_url=url, api_key="bk_live_wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()

    def test_a_fault_half_way_reaches_the_client_as_an_error(self, door: openai.OpenAI) -> None:
        stream = door.chat.completions.create(
            model="assistant", messages=asked("Hi [[tokens=9&gap=0.01&cut=3]]"), stream=True
        )
        with pytest.raises(openai.APIError):
            for _ in stream:
                pass

"""A server's moderation, asked by the provider that writes the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from models.chat.moderation import Filtered, Guard
from models.chat.ports import Candidate, ProviderError
from storage.providers import OpenAIProvider, aclose_all
from tests.fakes.provider import FakeProvider


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider(key="sk-right") as running:
        yield running


def moderated(fake: FakeProvider, *texts: str, key: str = "sk-right", path: str = "") -> list[object]:
    """What is answered about each text, or the fault."""

    async def ask() -> list[object]:
        answers: list[object] = []
        provider = OpenAIProvider("house", fake.base_url + path, key)
        for text in texts:
            try:
                answers.append(await provider.moderate(text))
            except ProviderError as fault:
                answers.append(fault.code)
        await aclose_all()
        return answers

    return asyncio.run(ask())


def test_objections_are_told_by_name(fake: FakeProvider) -> None:
    assert moderated(fake, "This is flagged.", "This is fine.") == [["violence"], []]


def test_a_server_without_moderation_is_asked_once(fake: FakeProvider) -> None:
    assert moderated(fake, "One", "Two", path="/none") == [None, None]
    assert len(fake.requests) == 1


def test_a_refusal_is_a_fault(fake: FakeProvider) -> None:
    assert moderated(fake, "One", key="sk-wrong") == ["provider_refused"]


class Silent:
    """A provider whose moderation cannot be reached."""

    name = "silent"
    calls = 0

    async def moderate(self, text: str) -> list[str] | None:
        self.calls += 1
        raise ProviderError("provider_timeout", "The provider took too long.")

    def stream(self, prompt: object) -> object:
        raise NotImplementedError


def test_rules_stand_alone_where_it_cannot_be_asked() -> None:
    silent = Silent()
    guard = Guard("medium", [Candidate(silent)])  # type: ignore[arg-type]  # it writes no reply here

    async def look() -> str:
        await guard.check("How was the year?")
        shown = await guard.feed("It was good. ") + await guard.end()
        with pytest.raises(Filtered, match="insult"):
            await guard.check("you stupid idiot")
        return shown

    assert asyncio.run(look()) == "It was good. "
    assert (silent.calls, guard.facts["moderation_error"]) == (1, "provider_timeout")

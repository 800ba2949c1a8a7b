"""OpenAI-compatible providers over HTTP: what they say, how they fail, and that they hear us leave."""

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing
from email.utils import formatdate
from typing import Any, TypeVar

import httpx2
import pytest

from models.chat.extractive import INSUFFICIENT, ExtractiveProvider
from models.chat.ports import (
    Attempt,
    Candidate,
    Finished,
    Message,
    Prompt,
    ProviderError,
    ReplyPart,
    TextDelta,
    UsageReport,
    estimate_tokens,
    stream_with_fallback,
)
from storage.providers import OpenAIProvider, aclose_all
from storage.providers.faults import RETRIES, retry_after, wait_before_retry
from tests.fakes.provider import FakeProvider

KEY = "sk-test-4f1c9a"
LONG = 600.0  # seconds: who waits for this limit meets that of the test first

T = TypeVar("T")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeProvider]:
    with FakeProvider(key=KEY) as running:
        yield running


@pytest.fixture
def fake(server: FakeProvider) -> FakeProvider:
    server.forget()
    return server


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, with every connection of its loop closed behind it."""

    async def tidy() -> T:
        try:
            return await work
        finally:
            await aclose_all()

    return asyncio.run(tidy())


def provider_at(fake: FakeProvider, **settings: Any) -> OpenAIProvider:
    return OpenAIProvider("house", fake.base_url, settings.pop("api_key", KEY), **settings)


def ask(model: str = "any", question: str = "What were net sales?", **settings: Any) -> Prompt:
    return Prompt(model, (Message("system", "Be brief."), Message("user", question)), **settings)


async def read(stream: AsyncGenerator[ReplyPart, None]) -> tuple[list[ReplyPart], ProviderError | None]:
    """Every part that came, and the fault that ended it."""
    parts: list[ReplyPart] = []
    try:
        async for part in stream:
            parts.append(part)
    except ProviderError as fault:
        return parts, fault
    return parts, None


def reply(fake: FakeProvider, model: str = "any", **settings: Any) -> list[ReplyPart]:
    parts, fault = run(read(provider_at(fake, **settings).stream(ask(model))))
    assert fault is None
    return parts


def broken(fake: FakeProvider, model: str = "any", **settings: Any) -> tuple[str, ProviderError]:
    parts, fault = run(read(provider_at(fake, **settings).stream(ask(model))))
    assert fault is not None
    assert all(isinstance(part, TextDelta) for part in parts)
    return text_of(parts), fault


def text_of(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextDelta))


class TestReply:
    def test_text_then_usage_then_the_end(self, fake: FakeProvider) -> None:
        *texts, usage, end = reply(fake, "any?tokens=3&gap=0.01")
        assert [part.text for part in texts if isinstance(part, TextDelta)] == ["revenue", " rose", " by"]
        assert usage == UsageReport(6, 3, "provider")
        assert end == Finished("stop")

    def test_the_request_is_what_the_prompt_says(self, fake: FakeProvider) -> None:
        run(read(provider_at(fake).stream(ask("m", temperature=0.5, max_output_tokens=7))))
        request = fake.requests[0]
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.body == {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What were net sales?"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "max_tokens": 7,
        }

    def test_what_the_environment_holds_for_the_client_is_not_sent(
        self, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: hush\nAuthorization: Bearer other")
        monkeypatch.setenv("OPENAI_ORG_ID", "org-hush")
        monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin-hush")
        reply(fake)
        headers = fake.requests[0].headers
        assert headers["authorization"] == f"Bearer {KEY}"
        assert "hush" not in str(headers)

    def test_no_key_sends_no_credential(self) -> None:
        with FakeProvider() as open_to_all:
            reply(open_to_all, api_key="")
            assert "authorization" not in open_to_all.requests[0].headers

    def test_text_that_waits_together_is_one_delta(self, fake: FakeProvider) -> None:
        texts = [part for part in reply(fake, "any?tokens=50") if isinstance(part, TextDelta)]
        assert len(texts) < 5
        assert text_of([*texts]).count(" ") == 49

    @pytest.mark.parametrize("wire", ["split=1", "crlf=1", "comments=2", "reasoning=2", "done=0", "finish="])
    def test_every_dialect_gives_the_same_text(self, fake: FakeProvider, wire: str) -> None:
        fake.behaviour(text="zwölf Mio. € — 12 % [1]")
        assert text_of(reply(fake, f"any?{wire}")) == "zwölf Mio. € — 12 % [1]"

    def test_an_answer_that_is_not_streamed_is_read_too(self, fake: FakeProvider) -> None:
        parts = reply(fake, "any?answer=json&tokens=3")
        assert parts == [TextDelta("revenue rose by"), UsageReport(6, 3, "provider"), Finished("stop")]

    def test_usage_that_the_server_does_not_report_is_estimated(self, fake: FakeProvider) -> None:
        usage = reply(fake, "any?usage=0")[-2]
        assert isinstance(usage, UsageReport)
        assert usage.source == "estimated"
        assert usage.prompt_tokens > 0
        assert usage.completion_tokens > 0

    def test_the_reason_of_the_end_is_told(self, fake: FakeProvider) -> None:
        assert reply(fake, "any?finish=length")[-1] == Finished("length")

    def test_nul_characters_are_dropped(self, fake: FakeProvider) -> None:
        fake.behaviour(text="a\0b")
        assert text_of(reply(fake)) == "ab"

    @pytest.mark.parametrize("parameter", ["stream_options", "max_tokens"])
    def test_a_server_that_does_not_know_a_parameter_is_asked_without_it(
        self, fake: FakeProvider, parameter: str
    ) -> None:
        async def twice() -> list[tuple[list[ReplyPart], ProviderError | None]]:
            prompt = ask(f"any?refuse={parameter}", max_output_tokens=3)
            return [await read(provider_at(fake).stream(prompt)) for _ in range(2)]

        for parts, fault in run(twice()):
            assert fault is None
            assert text_of(parts) == "revenue rose by"
        sent = [parameter in request.body for request in fake.requests]
        assert sent == [True, False, False]

    def test_a_refused_limit_is_not_an_unknown_one(self, fake: FakeProvider) -> None:
        fake.behaviour(status=400, message="max_tokens must be below 4096")
        assert broken(fake)[1].code == "provider_rejected"
        assert len(fake.requests) == 1

    def test_the_connection_serves_the_next_call(self, fake: FakeProvider) -> None:
        async def thrice() -> None:
            for _ in range(3):
                await read(provider_at(fake).stream(ask()))

        before = fake.connections
        run(thrice())
        assert fake.connections - before == 1


class TestFaults:
    @pytest.mark.parametrize(
        ("behaviour", "text", "code"),
        [
            ("cut=2", "revenue rose", "provider_interrupted"),
            ("end=2", "revenue rose", "provider_interrupted"),
            ("malformed=2", "revenue rose", "provider_malformed"),
            ("error=2", "revenue rose", "provider_unavailable"),
            ("cut=0", "", "provider_unavailable"),
            ("end=0", "", "provider_unavailable"),
            ("error=0", "", "provider_unavailable"),
            ("malformed=0", "", "provider_malformed"),
            ("answer=html", "", "provider_malformed"),
            ("answer=empty", "", "provider_malformed"),
            ("answer=gzip", "", "provider_malformed"),
            ("answer=redirect", "", "provider_malformed"),
            ("tokens=0", "", "provider_malformed"),
            ("tokens=0&finish=content_filter", "", "provider_rejected"),
            ("tokens=0&finish=length", "", "provider_rejected"),
        ],
    )
    def test_each_has_its_code_and_keeps_the_text_before_it(
        self, fake: FakeProvider, behaviour: str, text: str, code: str
    ) -> None:
        found, fault = broken(fake, f"any?{behaviour}")
        assert (found, fault.code) == (text, code)

    @pytest.mark.parametrize(
        ("status", "code", "retryable"),
        [
            (400, "provider_rejected", False),
            (401, "provider_refused", False),
            (403, "provider_refused", False),
            (404, "provider_rejected", False),
            (422, "provider_rejected", False),
            (429, "provider_rate_limited", True),
            (500, "provider_unavailable", True),
            (503, "provider_unavailable", True),
            (504, "provider_timeout", True),
        ],
    )
    def test_statuses(self, fake: FakeProvider, status: int, code: str, retryable: bool) -> None:
        _, fault = broken(fake, f"any?status={status}&retry_after=3600")
        assert (fault.code, fault.status, fault.retryable) == (code, status, retryable)
        assert fault.retry_after == 3600

    def test_a_redirect_is_not_followed(self, fake: FakeProvider) -> None:
        with FakeProvider() as elsewhere:
            fake.behaviour(answer="redirect", location=f"{elsewhere.base_url}/chat/completions")
            broken(fake)
            assert elsewhere.requests == []

    def test_nobody_listens(self) -> None:
        with FakeProvider() as gone:
            url = gone.base_url
        _, fault = run(read(OpenAIProvider("house", url, KEY).stream(ask())))
        assert fault is not None
        assert fault.code == "provider_unavailable"

    @pytest.mark.parametrize(
        ("behaviour", "limits", "text"),
        [
            ("silent=1", {"first_byte_timeout": 0.2, "idle_timeout": LONG}, ""),
            ("hang=0", {"first_byte_timeout": LONG, "idle_timeout": 0.2}, ""),
            ("hang=2", {"first_byte_timeout": LONG, "idle_timeout": 0.2}, "revenue rose"),
            ("hang=2", {"first_byte_timeout": 1.0, "idle_timeout": 1.2}, "revenue rose"),
        ],
    )
    def test_waiting_has_an_end(
        self, fake: FakeProvider, behaviour: str, limits: dict[str, float], text: str
    ) -> None:
        found, fault = broken(fake, f"any?{behaviour}", **limits)
        assert (found, fault.code) == (text, "provider_timeout")
        assert len(fake.requests) == 1
        fake.requests[0].wait_disconnected()

    def test_a_slow_stream_within_the_limits_is_whole(self, fake: FakeProvider) -> None:
        # Twelve tokens take longer than either limit, no gap between two comes near it.
        parts = reply(fake, "any?tokens=12&gap=0.1", first_byte_timeout=0.9, idle_timeout=0.9)
        assert text_of(parts).endswith("and prices")

    def test_the_time_that_the_reader_takes_is_not_the_providers(self, fake: FakeProvider) -> None:
        async def slowly() -> str:
            text = ""
            async for part in provider_at(fake, idle_timeout=0.4).stream(ask("any?tokens=14&gap=0.1")):
                await asyncio.sleep(0.6)  # longer than the limit between tokens, which go on meanwhile
                text += part.text if isinstance(part, TextDelta) else ""
            return text

        assert run(slowly()).endswith("held so")

    def test_a_server_that_only_comments_is_not_answering(self, fake: FakeProvider) -> None:
        limits = {"first_byte_timeout": LONG, "idle_timeout": 0.2}
        assert broken(fake, "any?hang=1&chatter=1", **limits)[1].code == "provider_timeout"

    def test_neither_key_nor_prompt_is_told(
        self, fake: FakeProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        fake.behaviour("told", status=400, message=f"{KEY} asked: What were net sales?")
        faults = [
            broken(fake, "told")[1],
            broken(fake, "any", api_key="sk-wrong")[1],
            broken(fake, "any?cut=2")[1],
            broken(fake, "any?malformed=1")[1],
        ]
        shown = caplog.text + "".join("".join(traceback.format_exception(fault)) for fault in faults)
        shown += repr(provider_at(fake))
        for secret in (KEY, "sk-wrong", "net sales", "Be brief"):
            assert secret not in shown
        assert all(fault.__context__ is None and fault.__cause__ is None for fault in faults)


class TestRetries:
    @pytest.mark.parametrize("behaviour", ["status=500&failures=2", "status=429&failures=1&retry_after=0"])
    def test_a_fault_that_passes_is_not_seen(self, fake: FakeProvider, behaviour: str) -> None:
        assert text_of(reply(fake, f"any?{behaviour}&tokens=2")) == "revenue rose"

    @pytest.mark.parametrize("behaviour", ["status=500", "cut=0", "error=0"])
    def test_there_are_two_at_most(self, fake: FakeProvider, behaviour: str) -> None:
        broken(fake, f"any?{behaviour}")
        assert len(fake.requests) == 1 + RETRIES

    @pytest.mark.parametrize(
        "behaviour", ["cut=1", "error=1", "malformed=1", "end=1", "status=400", "status=401"]
    )
    def test_none_after_text_and_none_that_cannot_help(self, fake: FakeProvider, behaviour: str) -> None:
        broken(fake, f"any?{behaviour}")
        assert len(fake.requests) == 1

    def test_a_long_wait_is_left_to_the_caller(self, fake: FakeProvider) -> None:
        _, fault = broken(fake, "any?status=429&retry_after=120")
        assert fault.retry_after == 120
        assert len(fake.requests) == 1

    def test_a_connection_closed_while_idle_costs_no_reply(self, fake: FakeProvider) -> None:
        async def around_a_restart() -> str:
            provider = provider_at(fake)
            await read(provider.stream(ask()))
            await asyncio.to_thread(fake.drop_connections)
            return text_of((await read(provider.stream(ask("any?tokens=2"))))[0])

        assert run(around_a_restart()) == "revenue rose"

    def test_waits_grow_and_heed_the_server(self) -> None:
        fault = ProviderError("provider_unavailable", "x")
        first, second = wait_before_retry(fault, 0), wait_before_retry(fault, 1)
        assert first is not None
        assert second is not None
        assert 0 < first < second
        asked = wait_before_retry(ProviderError("provider_rate_limited", "x", retry_after=2.0), 0)
        assert asked is not None
        assert asked >= 1.6

    @pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("0", 0), ("1e9", 86_400)])
    def test_retry_after_is_seconds(self, value: str, seconds: float) -> None:
        assert retry_after(httpx2.Headers({"retry-after": value})) == seconds

    def test_retry_after_is_a_date(self) -> None:
        soon = formatdate(time.time() + 10_000, usegmt=True)
        found = retry_after(httpx2.Headers({"retry-after": soon}))
        assert found is not None
        assert 5_000 < found <= 10_001
        assert retry_after(httpx2.Headers({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"})) == 0

    @pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "Wed, 99 Foo 2000"])
    def test_nonsense_in_retry_after_says_nothing(self, value: str) -> None:
        assert retry_after(httpx2.Headers({"retry-after": value})) is None


class TestLeaving:
    def test_closing_the_stream_closes_the_connection(self, fake: FakeProvider) -> None:
        async def leave() -> float:
            stream = provider_at(fake).stream(ask("any?tokens=1000&gap=0.01"))
            async for _ in stream:
                break
            left = time.monotonic()
            await stream.aclose()
            return await asyncio.to_thread(fake.requests[0].wait_disconnected) - left

        run(leave())
        assert fake.requests[0].tokens_sent < 1000

    @pytest.mark.parametrize("behaviour", ["silent=1", "hang=0", "hang=1"])
    def test_cancelling_a_reader_that_waits_closes_the_connection(
        self, fake: FakeProvider, behaviour: str
    ) -> None:
        async def leave() -> None:
            reader = asyncio.create_task(read(provider_at(fake).stream(ask(f"any?{behaviour}"))))
            await asyncio.to_thread(fake.wait_requests, 1)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            await asyncio.to_thread(fake.requests[0].wait_disconnected)

        run(leave())

    def test_many_streams_at_once_are_all_whole(self, fake: FakeProvider) -> None:
        async def crowd() -> list[tuple[list[ReplyPart], ProviderError | None]]:
            provider = provider_at(fake)
            prompts = [ask(f"any?text=reply {n} is here&gap=0.005") for n in range(150)]
            return await asyncio.gather(*(read(provider.stream(prompt)) for prompt in prompts))

        texts = [text_of(parts) for parts, fault in run(crowd()) if fault is None]
        assert texts == [f"reply {n} is here" for n in range(150)]


class TestFallback:
    def tried(
        self, prompt: Prompt, *candidates: Candidate
    ) -> tuple[str, ProviderError | None, list[Attempt]]:
        attempts: list[Attempt] = []
        parts, fault = run(read(stream_with_fallback(candidates, prompt, attempts.append)))
        return text_of(parts), fault, attempts

    def test_the_next_is_asked_while_nothing_has_come(self, fake: FakeProvider) -> None:
        house = provider_at(fake)
        text, fault, attempts = self.tried(
            ask("any?status=400"), Candidate(house), Candidate(house, "other?tokens=2")
        )
        assert (text, fault) == ("revenue rose", None)
        assert [(one.chat_model, one.error, one.status, one.finished) for one in attempts] == [
            ("any?status=400", "provider_rejected", 400, False),
            ("other?tokens=2", None, None, True),
        ]
        assert attempts[0].first_text_ms is None
        assert attempts[1].first_text_ms is not None
        assert attempts[1].first_text_ms <= attempts[1].ms

    def test_no_reply_is_continued_by_another(self, fake: FakeProvider) -> None:
        text, fault, attempts = self.tried(
            ask("any?cut=2"), Candidate(provider_at(fake)), Candidate(ExtractiveProvider())
        )
        assert text == "revenue rose"
        assert fault is not None
        assert fault.code == "provider_interrupted"
        assert [one.provider for one in attempts] == ["house"]

    def test_the_embedded_provider_can_be_the_last(self, fake: FakeProvider) -> None:
        prompt = ask("any?answer=html", searched=True)
        text, fault, attempts = self.tried(
            prompt, Candidate(provider_at(fake)), Candidate(ExtractiveProvider())
        )
        assert (text, fault) == (INSUFFICIENT, None)
        assert [one.provider for one in attempts] == ["house", "extractive"]

    def test_when_all_fail_the_last_fault_is_raised(self, fake: FakeProvider) -> None:
        house = provider_at(fake)
        _, fault, attempts = self.tried(
            ask("any?status=400"), Candidate(house), Candidate(house, "b?status=401")
        )
        assert fault is not None
        assert fault.code == "provider_refused"
        assert len(attempts) == 2

    def test_no_candidate_is_a_fault_too(self) -> None:
        _, fault, attempts = self.tried(ask())
        assert fault is not None
        assert attempts == []

    def test_a_reader_that_leaves_is_recorded_and_heard(self, fake: FakeProvider) -> None:
        attempts: list[Attempt] = []

        async def leave() -> None:
            candidates = [Candidate(provider_at(fake))]
            async with aclosing(
                stream_with_fallback(candidates, ask("any?tokens=1000&gap=0.01"), attempts.append)
            ) as stream:
                async for _ in stream:
                    break
            await asyncio.to_thread(fake.requests[0].wait_disconnected)

        run(leave())
        assert [(one.error, one.finished) for one in attempts] == [(None, False)]


class TestEstimate:
    def test_grows_with_the_text_and_counts_figures_heavier(self) -> None:
        assert estimate_tokens("") == 0
        assert estimate_tokens("word") == 1
        assert estimate_tokens("1234") == 2
        assert estimate_tokens("word " * 100) == 125

    def test_takes_text_that_has_no_encoding(self) -> None:
        assert estimate_tokens("\ud800") > 0

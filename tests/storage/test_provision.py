"""Who answers a turn, in which order, at which price; and where a tenant's provider may be."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from models.chat.extractive import INSUFFICIENT, ExtractiveProvider
from models.chat.ports import Attempt, Candidate, Message, Price, Prompt, ProviderError, stream_with_fallback
from models.chat.providers import LlmProvider
from models.errors import RuleBroken, Unavailable
from storage import outbound, provision
from storage.database import reading, transaction
from storage.outbound import OutboundRefused
from storage.providers import OpenAIProvider, aclose_all
from storage.provision import Own, candidates, check_name, keep_key, try_out
from storage.settings import settings
from tests.backends import free_port
from tests.fakes.provider import FakeProvider
from tests.installed import Of, installation, new_tenant, of
from tests.storage.test_outbound import NOWHERE, OWN_NETWORK, PUBLIC

__all__ = ["installation", "of"]

KEY = "sk-of-the-tenant-9f31"
T = TypeVar("T")
Set = Callable[..., None]


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Set]:
    """Sets the environment's variables for one test."""

    def change(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "BOOGA_OPENAI_MODEL", "BOOGA_ALLOW_PRIVATE_ADDRESSES"):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield change
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def private(setting: Set) -> None:
    """The host lets tenants reach its own network."""
    setting(BOOGA_ALLOW_PRIVATE_ADDRESSES="1")


@pytest.fixture
def fakes() -> Iterator[tuple[FakeProvider, FakeProvider]]:
    """Two servers; the first knows one key only."""
    with FakeProvider(key=KEY) as first, FakeProvider() as second:
        yield first, second


def add(of: Of, name: str, *models: str, key: str | None = None, **fields: Any) -> None:
    """A provider in the tenant's table; a model may carry its prices: ``name@input,output``."""
    listed = []
    for text in models:
        model, _, prices = text.partition("@")
        low, high = (float(price) for price in prices.split(",")) if prices else (None, None)
        listed.append({"name": model, "input_price": low, "output_price": high})
    with transaction(of) as db:
        row = LlmProvider(name=name, models=listed, **{"kind": "openai", "is_active": True, **fields})
        keep_key(row, key)
        db.put(row)


def chosen(of: Of, llm_provider: str | None = None, chat_model: str | None = None) -> list[tuple[str, Any]]:
    """Names and models, in the order of fallback."""
    return [(c.provider.name, c.chat_model) for c in candidates(of, llm_provider, chat_model)]


def run(work: Coroutine[Any, Any, T]) -> T:
    async def tidy() -> T:
        try:
            return await work
        finally:
            await aclose_all()

    return asyncio.run(tidy())


def reply(order: list[Candidate], model: str = "m") -> tuple[str, ProviderError | None, list[Attempt]]:
    """The text, the fault that ended it, and who was asked."""
    attempts: list[Attempt] = []
    prompt = Prompt(model, (Message("user", "What were net sales?"),), searched=True)

    async def read() -> tuple[str, ProviderError | None]:
        text = ""
        try:
            async for part in stream_with_fallback(order, prompt, attempts.append):
                text += getattr(part, "text", "")
        except ProviderError as fault:
            return text, fault
        return text, None

    return *run(read()), attempts


def trial(of: Of, name: str) -> provision.Trial:
    with reading(of) as db:
        row = db.query(LlmProvider).filter_by(name=name).one()
        return run(try_out(Own.of(row)))


class TestOrder:
    def test_without_a_table_the_environment_decides(self, of: Of, setting: Set) -> None:
        assert chosen(of) == [("extractive", "extractive")]
        setting(OPENAI_BASE_URL="http://127.0.0.1:1/v1", BOOGA_OPENAI_MODEL="house-model")
        assert chosen(of) == [("openai", "house-model")]
        assert chosen(of, chat_model="m") == [("openai", "m")]

    def test_the_active_ones_that_list_the_model_by_order(self, of: Of, setting: Set) -> None:
        add(of, "last", "m", order=9)
        add(of, "off", "m", order=0, is_active=False)
        add(of, "first", "other", "m", order=1)
        add(of, "elsewhere", "other", order=2)
        add(of, "second of equals", "m", order=1)
        assert [name for name, _ in chosen(of, chat_model="m")] == ["first", "second of equals", "last"]

    def test_the_installations_model_where_none_is_named(self, of: Of, setting: Set) -> None:
        setting(BOOGA_OPENAI_MODEL="house-model")
        add(of, "one", "m")
        add(of, "two", "house-model")
        assert chosen(of) == [("two", "house-model")]

    def test_a_model_that_nobody_lists_goes_on_to_the_built_in_ones(self, of: Of, setting: Set) -> None:
        add(of, "one", "m")
        assert chosen(of, chat_model="x") == [("extractive", "extractive")]
        setting(OPENAI_API_KEY="sk-x")
        assert chosen(of, chat_model="x") == [("openai", "x")]

    def test_the_embedded_one_stands_where_it_is_put(self, of: Of, setting: Set) -> None:
        add(of, "last resort", "m@0,0", kind="extractive", order=9)
        add(of, "first", "m")
        order = candidates(of, None, "m")
        assert [c.provider.name for c in order] == ["first", "last resort"]
        assert isinstance(order[1].provider, ExtractiveProvider)
        assert (order[1].chat_model, order[1].price) == ("extractive", Price(0, 0))

    def test_another_tenants_are_never_asked(self, of: Of, setting: Set) -> None:
        add(new_tenant("B"), "theirs", "m")
        assert chosen(of, chat_model="m") == [("extractive", "extractive")]
        with pytest.raises(Unavailable):
            candidates(of, "theirs", "m")

    def test_a_change_holds_from_the_next_turn_on(self, of: Of, setting: Set) -> None:
        add(of, "one", "m")
        assert chosen(of, chat_model="m") == [("one", "m")]
        with transaction(of) as db:
            db.query(LlmProvider).one().is_active = False
        assert chosen(of, chat_model="m") == [("extractive", "extractive")]


class TestNamed:
    def test_it_alone_answers_whatever_it_lists(self, of: Of, setting: Set) -> None:
        add(of, "one", "m", order=1)
        add(of, "two", "m", "n", order=2)
        assert chosen(of, "two", "m") == [("two", "m")]
        assert chosen(of, "two", "unlisted") == [("two", "unlisted")]
        assert chosen(of, "two") == [("two", "m")]

    def test_a_name_of_the_table_goes_before_a_built_in_one(self, of: Of, setting: Set) -> None:
        setting(OPENAI_API_KEY="sk-x")
        add(of, "openai", "m", base_url="https://llm.example/v1")
        (found,) = candidates(of, "openai", None)
        assert isinstance(found.provider, OpenAIProvider)
        assert found.provider.base_url == "https://llm.example/v1"

    def test_what_cannot_answer_is_said(self, of: Of, setting: Set) -> None:
        add(of, "off", "m", is_active=False)
        add(of, "empty")
        for name in ("openai", "off", "gone"):
            with pytest.raises(Unavailable):
                candidates(of, name, "m")
        with pytest.raises(RuleBroken):
            candidates(of, "empty", None)

    def test_only_what_exists_may_be_named(self, of: Of, setting: Set) -> None:
        add(of, "mine", is_active=False)
        add(new_tenant("B"), "theirs")
        with reading(of) as db:
            for name in (None, "openai", "extractive", "mine"):
                check_name(db, name, "/llm_provider")
            for name in ("theirs", "Mine", "nobody"):
                with pytest.raises(RuleBroken) as refused:
                    check_name(db, name, "/llm_provider")
                assert refused.value.pointer == "/llm_provider"
                assert "mine, openai, extractive" in refused.value.detail


class TestKeys:
    def test_a_key_is_sent_to_its_server(
        self, of: Of, private: None, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        add(of, "one", "m", key=KEY, base_url=fakes[0].base_url)
        text, fault, _ = reply(candidates(of, None, "m"))
        assert (bool(text), fault) == (True, None)
        assert fakes[0].requests[0].headers["authorization"] == f"Bearer {KEY}"

    def test_none_is_sent_where_none_is_kept(
        self, of: Of, setting: Set, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        setting(BOOGA_ALLOW_PRIVATE_ADDRESSES="1", OPENAI_API_KEY="sk-of-the-host")
        add(of, "one", "m", base_url=fakes[1].base_url)
        assert reply(candidates(of, None, "m"))[1] is None
        assert "authorization" not in fakes[1].requests[0].headers

    def test_a_row_moved_behind_our_back_gets_no_key(self, of: Of, setting: Set) -> None:
        add(of, "one", "m", key=KEY, base_url="https://llm.example/v1")
        with transaction(of) as db:
            db.query(LlmProvider).one().base_url = "https://llm.example:444/v1"
        with pytest.raises(Unavailable):
            candidates(of, None, "m")

    def test_a_key_that_no_secret_opens_is_said(self, of: Of, setting: Set) -> None:
        add(of, "one", "m", key=KEY)
        with transaction(of) as db:
            db.query(LlmProvider).one().sealed_key = b"gAAAAA-of-another-installation"
        with pytest.raises(Unavailable) as said:
            candidates(of, None, "m")
        assert KEY not in str(said.value)
        assert trial(of, "one").error is not None

    def test_no_words_about_a_candidate_hold_its_key(self, of: Of, setting: Set) -> None:
        add(of, "one", "m", key=KEY)
        assert KEY not in repr(candidates(of, None, "m"))


class TestFallback:
    def both(self, of: Of, first_url: str, second_url: str, **fields: Any) -> list[Candidate]:
        add(of, "first", "m@1,2", base_url=first_url, order=1, key=KEY, **fields)
        add(of, "second", "m@10,20", base_url=second_url, order=2)
        return candidates(of, None, "m")

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"status": 500}, "provider_unavailable"),
            ({"status": 429}, "provider_rate_limited"),
            ({"status": 401}, "provider_refused"),
            ({"answer": "html"}, "provider_malformed"),
            ({"cut": 0}, "provider_unavailable"),
            ({"silent": True}, "provider_timeout"),
            ({"hang": 0}, "provider_timeout"),
        ],
    )
    def test_the_second_answers_what_the_first_fails(
        self,
        of: Of,
        private: None,
        fakes: tuple[FakeProvider, FakeProvider],
        monkeypatch: pytest.MonkeyPatch,
        changes: dict[str, Any],
        code: str,
    ) -> None:
        if code == "provider_timeout":
            monkeypatch.setattr(provision, "IMPATIENCE", 0.3)
        fakes[0].behaviour(**changes)
        text, fault, attempts = reply(self.both(of, fakes[0].base_url, fakes[1].base_url))
        assert (text, fault) == ("revenue rose by 12 per cent as new", None)
        assert [(a.provider, a.error) for a in attempts] == [("first", code), ("second", None)]
        assert attempts[1].price == Price(10, 20)

    def test_nobody_listens_at_the_first(
        self, of: Of, private: None, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        order = self.both(of, f"http://127.0.0.1:{free_port()}/v1", fakes[1].base_url)
        text, fault, attempts = reply(order)
        assert (bool(text), fault) == (True, None)
        assert attempts[0].error == "provider_unavailable"

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"cut": 2}, "provider_interrupted"),
            ({"error": 2}, "provider_unavailable"),
            ({"malformed": 2}, "provider_malformed"),
        ],
    )
    def test_nobody_goes_on_with_what_the_first_began(
        self,
        of: Of,
        private: None,
        fakes: tuple[FakeProvider, FakeProvider],
        changes: dict[str, Any],
        code: str,
    ) -> None:
        fakes[0].behaviour(**changes)
        text, fault, attempts = reply(self.both(of, fakes[0].base_url, fakes[1].base_url))
        assert text == "revenue rose"
        assert fault is not None
        assert fault.code == code
        assert [a.provider for a in attempts] == ["first"]
        assert fakes[1].requests == []

    def test_the_embedded_one_can_be_the_last(
        self, of: Of, private: None, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        fakes[0].behaviour(status=400)
        add(of, "first", "m", base_url=fakes[0].base_url, key=KEY)
        add(of, "last resort", "m", kind="extractive", order=9)
        text, fault, attempts = reply(candidates(of, None, "m"))
        assert (text, fault) == (INSUFFICIENT, None)
        assert attempts[-1].provider == "last resort"


class TestAddresses:
    """At calling; what is refused at saving stands in the class below."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
    def test_the_hosts_own_network_is_not_asked(
        self, of: Of, setting: Set, fakes: tuple[FakeProvider, FakeProvider], host: str
    ) -> None:
        fake = fakes[1]
        add(of, "inside", "m", base_url=f"http://{host}:{fake.port}/v1", key=KEY)
        _, fault, attempts = reply(candidates(of, None, "m"))
        assert fault is not None
        assert (fault.code, fault.retryable) == ("provider_unavailable", False)
        assert "may be asked" in fault.detail
        error = trial(of, "inside").error
        assert error is not None
        assert "may be asked" in error.detail
        assert (len(attempts), fake.connections) == (1, 0)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_unless_the_host_allows_it(
        self, of: Of, private: None, fakes: tuple[FakeProvider, FakeProvider], host: str
    ) -> None:
        add(of, "inside", "m", base_url=f"http://{host}:{fakes[1].port}/v1")
        assert reply(candidates(of, None, "m"))[1] is None

    def test_what_the_host_configures_is_asked_anywhere(
        self, of: Of, setting: Set, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        setting(OPENAI_BASE_URL=fakes[1].base_url)
        assert reply(candidates(of, None, "m"))[1] is None

    def test_one_connection_is_not_lent_to_the_other(
        self, of: Of, setting: Set, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        setting(OPENAI_BASE_URL=fakes[1].base_url)
        add(of, "inside", "m", base_url=fakes[1].base_url, key="none")

        async def one_after_the_other() -> list[str | None]:
            found: list[str | None] = []
            for order in (candidates(of, None, "x"), candidates(of, None, "m")):
                attempts: list[Attempt] = []
                prompt = Prompt("m", (Message("user", "Hello"),))
                try:
                    async for _ in stream_with_fallback(order, prompt, attempts.append):
                        pass
                except ProviderError:
                    assert attempts[0].error
                found.append(attempts[0].error)
            return found

        assert run(one_after_the_other()) == [None, "provider_unavailable"]

    def test_a_proxy_of_the_environment_is_passed_by(
        self,
        of: Of,
        private: None,
        fakes: tuple[FakeProvider, FakeProvider],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{fakes[0].port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        add(of, "one", "m", base_url=fakes[1].base_url)
        assert reply(candidates(of, None, "m"))[1] is None
        assert fakes[0].connections == 0

    @pytest.mark.parametrize("text", PUBLIC + OWN_NETWORK + NOWHERE)
    def test_plain_text_stays_in_the_hosts_own_network(self, setting: Set, text: str) -> None:
        address, inside, public = ipaddress.ip_address(text), text in OWN_NETWORK, text in PUBLIC
        assert outbound.may_be_provider(address, "https") is public
        assert not outbound.may_be_provider(address, "http")
        setting(BOOGA_ALLOW_PRIVATE_ADDRESSES="1")
        assert outbound.may_be_provider(address, "https") is (public or inside)
        assert outbound.may_be_provider(address, "http") is inside


class TestBaseUrl:
    """At saving."""

    @pytest.mark.parametrize(
        "url",
        [
            *(f"https://{f'[{text}]' if ':' in text else text}/v1" for text in OWN_NETWORK + NOWHERE),
            "https://localhost/v1",
            "https://2130706433/v1",
            "https://0x7f.1/v1",
            "https://user:word@1.1.1.1/v1",
            "https://1.1.1.1@127.0.0.1/v1",
            "https://1.1.1.1/v1?key=x",
            "https://1.1.1.1/v1#x",
            "https://1.1.1.1:99999/v1",
            "http://1.1.1.1/v1",
            "http://127.0.0.1/v1",
            "http://llm.invalid/v1",
            "ftp://1.1.1.1/v1",
            "https://",
        ],
    )
    def test_is_refused(self, setting: Set, url: str) -> None:
        with pytest.raises(OutboundRefused) as refused:
            provision.check_address(url)
        assert refused.value.pointer == "/base_url"

    @pytest.mark.parametrize(
        "url", [None, "https://1.1.1.1/v1", "https://[2606:4700::1111]:8443/v1", "https://llm.invalid/v1"]
    )
    def test_is_taken(self, setting: Set, url: str | None) -> None:
        provision.check_address(url)

    def test_of_the_hosts_own_network_is_taken_where_allowed(self, private: None) -> None:
        provision.check_address("http://127.0.0.1:8080/v1")
        provision.check_address("https://localhost/v1")
        provision.check_address("http://llm.invalid/v1")
        for url in ("http://1.1.1.1/v1", "http://169.254.169.254/v1", "https://169.254.169.254/v1"):
            with pytest.raises(OutboundRefused):
                provision.check_address(url)

    def test_a_resolver_that_hangs_delays_nobody_for_long(
        self, setting: Set, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        over = threading.Event()
        monkeypatch.setattr(outbound, "LOOKUP_SECONDS", 0.05)
        # No resolver on loopback can be told to hang.
        monkeypatch.setattr(outbound.socket, "getaddrinfo", lambda *_, **__: over.wait() and [])
        provision.check_address("https://slow.invalid/v1")
        over.set()


class TestTrial:
    def test_it_works(self, of: Of, private: None, fakes: tuple[FakeProvider, FakeProvider]) -> None:
        add(of, "one", "m", "n", key=KEY, base_url=fakes[0].base_url, is_active=False)
        found = trial(of, "one")
        assert (found.error, found.models) == (None, 2)
        assert [r.path for r in fakes[0].requests] == ["/v1/models", "/v1/chat/completions"]
        assert fakes[0].requests[1].body["model"] == "m"

    def test_a_provider_without_models_is_only_asked_for_its_own(
        self, of: Of, private: None, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        add(of, "one", base_url=fakes[1].base_url)
        assert (trial(of, "one").error, len(fakes[1].requests)) == (None, 1)

    @pytest.mark.parametrize(
        ("changes", "code", "words"),
        [
            ({"status": 429}, "provider_rate_limited", "429"),
            ({"status": 503}, "provider_unavailable", "503"),
            ({"status": 404}, "provider_rejected", "404"),
            ({"answer": "html"}, "provider_malformed", "web page"),
            ({"silent": True}, "provider_timeout", "too long"),
            ({"hang": 0}, "provider_timeout", "too long"),
        ],
    )
    def test_the_providers_own_fault_is_told(
        self,
        of: Of,
        private: None,
        fakes: tuple[FakeProvider, FakeProvider],
        monkeypatch: pytest.MonkeyPatch,
        changes: dict[str, Any],
        code: str,
        words: str,
    ) -> None:
        if code == "provider_timeout":
            monkeypatch.setattr(provision, "TRIAL_SECONDS", 0.5)
        fakes[1].behaviour(message=f"Do you know that {KEY} is a key?", **changes)
        add(of, "one", "m", base_url=fakes[1].base_url, key=KEY)
        found = trial(of, "one")
        assert found.error is not None
        assert (found.error.code, found.models) == (code, 2)
        assert words in found.error.detail
        assert KEY not in found.error.detail

    def test_a_key_that_is_not_accepted(
        self, of: Of, private: None, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        add(of, "one", "m", base_url=fakes[0].base_url, key="sk-wrong")
        found = trial(of, "one")
        assert found.error is not None
        assert (found.error.code, found.models, len(fakes[0].requests)) == ("provider_refused", None, 1)
        assert found.error.detail == "The provider answered 401 (invalid_api_key)."

    def test_a_server_without_a_list_of_models_may_work_all_the_same(
        self, of: Of, private: None, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        add(of, "one", base_url=f"http://127.0.0.1:{fakes[1].port}/elsewhere")
        found = trial(of, "one")
        assert (found.error, found.models) == (None, None)

    def test_the_embedded_one_always_works(self, of: Of, setting: Set) -> None:
        add(of, "last resort", "m", kind="extractive")
        assert trial(of, "last resort").error is None

"""The tenant's own providers over HTTP: kept, tried, asked in order, paid for, and their keys never shown."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import MetaData, select

from tests.backends import Backend
from tests.conftest import MakesClient
from tests.contract.conformance import described
from tests.events import events, text_of
from tests.fakes.provider import FakeProvider
from tests.servers import Server, running

PROVIDERS = "/api/v1/chat/llm-providers"
CHOICES = "/api/v1/chat/providers"
PERSONAS = "/api/v1/chat/personas"
SESSIONS = "/api/v1/chat/sessions"
KEY = "sk-of-the-tenant-4f7bQz81"

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def inner_server(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets tenants reach the host's own network; no provider is configured."""
    folder = tmp_path_factory.mktemp(f"inner-{backend.name}")
    with running(folder, backend.name, {**backend.fresh(), "BOOGA_ALLOW_PRIVATE_ADDRESSES": "1"}) as made:
        yield made


@pytest.fixture
def admin(inner_server: Server, connect: MakesClient) -> httpx.Client:
    """The owner of its tenant."""
    return connect(inner_server.api_key, inner_server)


@pytest.fixture
def fakes() -> Iterator[tuple[FakeProvider, FakeProvider]]:
    """Two servers; the first knows one key only."""
    with FakeProvider(key=KEY) as first, FakeProvider() as second:
        yield first, second


def _maker(client: httpx.Client, made: list[str]) -> Make:
    def provider(name: str = "House", kind: str = "openai", **fields: Any) -> dict[str, Any]:
        response = client.post(PROVIDERS, json={"name": name, "kind": kind, **fields})
        assert response.status_code == 201, response.text
        made.append(response.headers["location"])
        body: dict[str, Any] = response.json()
        return body

    return provider


@pytest.fixture
def make(client: httpx.Client) -> Iterator[Make]:
    """Makes providers of tenant A, and removes them."""
    made: list[str] = []
    yield _maker(client, made)
    for path in made:
        client.delete(path)


@pytest.fixture
def make_inner(admin: httpx.Client) -> Iterator[Make]:
    """The same on the server that may ask loopback."""
    made: list[str] = []
    yield _maker(admin, made)
    for path in made:
        admin.delete(path)


@pytest.fixture
def session_with(admin: httpx.Client, inner_server: Server) -> Iterator[Callable[..., str]]:
    """``session_with(llm_provider=..., ...)``: the path of a new session with such a persona."""
    made: list[str] = []

    def session(**fields: Any) -> str:
        body = {"name": "Analyst", "stack_id": inner_server.tenant["stack_id"], **fields}
        persona = admin.post(PERSONAS, json=body)
        assert persona.status_code == 201, persona.text
        made.append(persona.headers["location"])
        found = admin.post(SESSIONS, json={"persona_id": persona.json()["id"]})
        assert found.status_code == 201, found.text
        return f"{SESSIONS}/{found.json()['id']}"

    yield session
    for path in made:
        admin.delete(path)


def where(response: httpx.Response) -> tuple[int, str | None]:
    """The status and the field at fault."""
    return response.status_code, response.json()["errors"][0].get("pointer")


class TestFields:
    def test_what_is_left_out_takes_its_default(self, client: httpx.Client, make: Make) -> None:
        made = make()
        assert client.get(f"{PROVIDERS}/{made['id']}").json() == made
        assert {name: made[name] for name in made.keys() - {"id", "created_at", "updated_at"}} == {
            "name": "House",
            "kind": "openai",
            "base_url": None,
            "api_key_hint": None,
            "models": [],
            "order": 0,
            "is_active": True,
        }

    def test_what_came_is_kept(self, client: httpx.Client, make: Make) -> None:
        given = {"base_url": "https://1.1.1.1/v1", "order": 3, "is_active": False}
        made = make(
            api_key=KEY,
            models=[{"name": "m", "input_price": 2.5}, {"name": "n", "context_window": 4096}],
            **given,
        )
        assert {name: made[name] for name in given} == given
        assert made["models"] == [
            {"name": "m", "input_price": 2.5, "output_price": None, "context_window": None},
            {"name": "n", "input_price": None, "output_price": None, "context_window": 4096},
        ]
        assert made["api_key_hint"] == "Qz81"
        assert "api_key" not in made
        changed = client.patch(f"{PROVIDERS}/{made['id']}", json={"order": 4, "models": []}).json()
        assert {**changed, "updated_at": None} == {**made, "updated_at": None, "order": 4, "models": []}

    @pytest.mark.parametrize("key", ["abc", "secret"])
    def test_a_short_key_gives_no_hint(self, make: Make, key: str) -> None:
        assert make(api_key=key)["api_key_hint"] == ""

    def test_lists_are_in_the_order_of_asking(self, client: httpx.Client, make: Make) -> None:
        for name, order in (("C", 2), ("A", 3), ("B", 1)):
            make(name, order=order)
        listed = client.get(PROVIDERS).json()["results"]
        assert [p["name"] for p in listed if p["name"] in "ABC"] == ["B", "C", "A"]
        named = client.get(PROVIDERS, params={"ordering": "-name", "search": "c"}).json()["results"]
        assert [p["name"] for p in named if p["name"] in "ABC"] == ["C"]

    def test_as_csv(self, client: httpx.Client, make: Make) -> None:
        made = make(api_key=KEY, models=[{"name": "m"}])
        text = client.get(PROVIDERS, headers={"Accept": "text/csv"}).text
        rows = {row["id"]: row for row in csv.DictReader(io.StringIO(text))}
        assert (rows[made["id"]]["name"], rows[made["id"]]["api_key_hint"]) == ("House", "Qz81")
        assert KEY not in text

    def test_a_name_is_given_once(self, client: httpx.Client, other: httpx.Client, make: Make) -> None:
        make("House")
        second = make("Garden")
        body = {"name": "House", "kind": "openai"}
        assert where(client.post(PROVIDERS, json=body)) == (409, "/name")
        assert where(client.patch(f"{PROVIDERS}/{second['id']}", json={"name": "House"})) == (409, "/name")
        assert client.patch(f"{PROVIDERS}/{second['id']}", json={"name": "Garden"}).status_code == 200
        theirs = other.post(PROVIDERS, json=body)
        assert theirs.status_code == 201
        other.delete(theirs.headers["location"])

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"models": [{"name": "m"}, {"name": "n"}, {"name": "m"}]}, "/models/2/name"),
            ({"kind": "extractive", "base_url": "https://1.1.1.1/v1"}, "/base_url"),
            ({"kind": "extractive", "api_key": KEY}, "/api_key"),
        ],
    )
    def test_what_a_rule_refuses(self, client: httpx.Client, fields: dict[str, Any], pointer: str) -> None:
        refused = client.post(PROVIDERS, json={"name": "Wrong", "kind": "openai", **fields})
        assert where(refused) == (422, pointer)
        assert client.get(PROVIDERS, params={"search": "Wrong"}).json()["count"] == 0

    @pytest.mark.parametrize(
        "fields",
        [
            {"api_key": f"{KEY}\n"},
            {"api_key": ""},
            {"base_url": f"llm.example/{KEY}"},
            {"models": [{"name": "m", "input_price": -1, "note": KEY}]},
            {"kind": KEY},
        ],
    )
    def test_what_the_contract_refuses_is_not_repeated(
        self, client: httpx.Client, fields: dict[str, Any]
    ) -> None:
        refused = client.post(PROVIDERS, json={"name": "Wrong", "kind": "openai", **fields})
        assert refused.status_code == 400
        assert KEY not in refused.text


class TestAddress:
    @pytest.mark.parametrize(
        "url",
        [
            "https://127.0.0.1/v1",
            "https://localhost/v1",
            "https://10.0.0.1/v1",
            "https://192.168.1.1/v1",
            "https://[::1]/v1",
            "https://[::ffff:127.0.0.1]/v1",
            "https://169.254.169.254/v1",
            "https://2130706433/v1",
            "https://user:word@1.1.1.1/v1",
            "http://1.1.1.1/v1",
            "http://127.0.0.1/v1",
        ],
    )
    def test_that_is_private_or_in_plain_text_is_refused(
        self, client: httpx.Client, make: Make, url: str
    ) -> None:
        made = make(is_active=False)
        body = {"name": "Inside", "kind": "openai", "base_url": url}
        assert where(client.post(PROVIDERS, json=body)) == (422, "/base_url")
        assert where(client.patch(f"{PROVIDERS}/{made['id']}", json={"base_url": url})) == (422, "/base_url")
        assert client.get(f"{PROVIDERS}/{made['id']}").json()["base_url"] is None

    @pytest.mark.parametrize(
        "url", ["http://169.254.169.254/v1", "https://169.254.169.254/v1", "http://1.1.1.1"]
    )
    def test_some_are_refused_where_private_ones_are_allowed(self, admin: httpx.Client, url: str) -> None:
        refused = admin.post(PROVIDERS, json={"name": "Inside", "kind": "openai", "base_url": url})
        assert where(refused) == (422, "/base_url")


class TestKeyAndHost:
    FIRST = "https://1.1.1.1/v1"

    @pytest.mark.parametrize(
        "url", ["https://1.1.1.2/v1", "https://1.1.1.1:8443/v1", "https://llm.invalid/v1", None]
    )
    def test_another_host_needs_the_key_again(
        self, client: httpx.Client, make: Make, url: str | None
    ) -> None:
        path = f"{PROVIDERS}/{make(base_url=self.FIRST, api_key=KEY)['id']}"
        assert where(client.patch(path, json={"base_url": url})) == (422, "/api_key")
        assert client.get(path).json()["base_url"] == self.FIRST
        moved = client.patch(path, json={"base_url": url, "api_key": "sk-another-one-5678"}).json()
        assert (moved["base_url"], moved["api_key_hint"]) == (url, "5678")

    @pytest.mark.parametrize("url", ["https://1.1.1.1/v2", "https://1.1.1.1:443/v1"])
    def test_the_same_host_does_not(self, client: httpx.Client, make: Make, url: str) -> None:
        path = f"{PROVIDERS}/{make(base_url=self.FIRST, api_key=KEY)['id']}"
        moved = client.patch(path, json={"base_url": url}).json()
        assert (moved["base_url"], moved["api_key_hint"]) == (url, "Qz81")

    def test_the_same_key_again_is_no_change(self, client: httpx.Client, make: Make) -> None:
        path = f"{PROVIDERS}/{make(base_url=self.FIRST, api_key=KEY)['id']}"
        before = client.get(path)
        assert client.patch(path, json={"api_key": KEY}).json() == before.json()
        assert client.get(path).headers["etag"] == before.headers["etag"]

    def test_without_a_key_it_may_move(self, client: httpx.Client, make: Make) -> None:
        path = f"{PROVIDERS}/{make(base_url=self.FIRST, api_key=KEY)['id']}"
        assert client.patch(path, json={"api_key": None}).json()["api_key_hint"] is None
        assert client.patch(path, json={"base_url": "https://1.1.1.2/v1"}).status_code == 200

    def test_plain_text_is_another_host(self, admin: httpx.Client, make_inner: Make) -> None:
        path = f"{PROVIDERS}/{make_inner(base_url='https://127.0.0.1:8443/v1', api_key=KEY)['id']}"
        moved = admin.patch(path, json={"base_url": "http://127.0.0.1:8443/v1"})
        assert where(moved) == (422, "/api_key")


class TestPersonas:
    def test_name_what_exists(
        self, client: httpx.Client, other: httpx.Client, server: Server, make: Make
    ) -> None:
        make("House", is_active=False)
        theirs = other.post(PROVIDERS, json={"name": "Theirs", "kind": "openai"}).headers["location"]
        body = {"name": "Analyst", "stack_id": server.tenant["stack_id"]}
        for name, status in (("House", 201), ("openai", 201), ("Theirs", 422), ("house", 422)):
            answer = client.post(PERSONAS, json={**body, "llm_provider": name})
            assert answer.status_code == status, name
            if status == 201:
                path = answer.headers["location"]
                assert where(client.patch(path, json={"llm_provider": "Gone"})) == (422, "/llm_provider")
                client.delete(path)
            else:
                assert where(answer) == (422, "/llm_provider")
        other.delete(theirs)

    def test_keep_what_they_name(self, client: httpx.Client, server: Server, make: Make) -> None:
        path = f"{PROVIDERS}/{make('House')['id']}"
        body = {"name": "Analyst", "stack_id": server.tenant["stack_id"], "llm_provider": "House"}
        persona = client.post(PERSONAS, json=body).headers["location"]
        assert client.delete(path).status_code == 409
        assert client.patch(path, json={"name": "Garden"}).status_code == 409
        assert client.patch(path, json={"is_active": False}).status_code == 200
        assert client.patch(persona, json={"llm_provider": None}).status_code == 200
        assert client.patch(path, json={"name": "Garden"}).status_code == 200
        assert client.delete(path).status_code == 204
        client.delete(persona)


class TestTurns:
    PRICED = [{"name": "m", "input_price": 2, "output_price": 10}]

    def test_a_reply_costs_what_its_tokens_cost(
        self,
        admin: httpx.Client,
        make_inner: Make,
        session_with: Callable[..., str],
        fakes: tuple[FakeProvider, FakeProvider],
    ) -> None:
        make_inner("House", base_url=fakes[0].base_url, api_key=KEY, models=self.PRICED)
        session = session_with(default_chat_model="m")
        reply = admin.post(f"{session}/messages", json={"content": "Tell [[tokens=5]]"}).json()
        assert (reply["status"], reply["provider"], reply["model"]) == ("complete", "House", "m")
        usage = reply["usage"]
        assert (usage["source"], usage["completion_tokens"]) == ("provider", 5)
        assert reply["cost"] == pytest.approx((usage["prompt_tokens"] * 2 + 5 * 10) / 1_000_000)
        assert reply["cost"] > 0
        assert admin.get(f"{session}/messages").json()["results"][1]["cost"] == reply["cost"]

    @pytest.mark.parametrize("price", [{}, {"input_price": 1}, {"output_price": 1}])
    def test_a_price_half_known_is_none(
        self,
        admin: httpx.Client,
        make_inner: Make,
        session_with: Callable[..., str],
        fakes: tuple[FakeProvider, FakeProvider],
        price: dict[str, float],
    ) -> None:
        make_inner("House", base_url=fakes[1].base_url, models=[{"name": "m", **price}])
        session = session_with(default_chat_model="m")
        reply = admin.post(f"{session}/messages", json={"content": "Tell"}).json()
        assert (reply["provider"], reply["cost"]) == ("House", None)

    @pytest.mark.parametrize("fault", [{"status": 500}, {"status": 401}, {"answer": "html"}])
    @pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
    def test_the_second_answers_what_the_first_fails(
        self,
        admin: httpx.Client,
        make_inner: Make,
        session_with: Callable[..., str],
        fakes: tuple[FakeProvider, FakeProvider],
        fault: dict[str, Any],
        streamed: bool,
    ) -> None:
        fakes[0].behaviour(**fault)
        make_inner("Second", base_url=fakes[1].base_url, models=[{"name": "m"}], order=2)
        make_inner("First", base_url=fakes[0].base_url, api_key=KEY, models=self.PRICED, order=1)
        session = session_with(default_chat_model="m")
        if streamed:
            with admin.stream("POST", f"{session}/messages/stream", json={"content": "Tell"}) as response:
                assert response.status_code == 200
                found = [*events(response.iter_lines())]
            assert text_of(found) == found[-1].data["content"]
            reply = found[-1].data
        else:
            reply = admin.post(f"{session}/messages", json={"content": "Tell"}).json()
        assert (reply["status"], reply["provider"], reply["cost"]) == ("complete", "Second", None)
        assert fakes[0].requests

    def test_nobody_goes_on_with_what_the_first_began(
        self,
        admin: httpx.Client,
        make_inner: Make,
        session_with: Callable[..., str],
        fakes: tuple[FakeProvider, FakeProvider],
    ) -> None:
        make_inner("First", base_url=fakes[0].base_url, api_key=KEY, models=self.PRICED, order=1)
        make_inner("Second", base_url=fakes[1].base_url, models=[{"name": "m"}], order=2)
        session = session_with(default_chat_model="m")
        answer = admin.post(f"{session}/messages", json={"content": "Tell [[cut=2]]"})
        assert (answer.status_code, answer.json()["meta"]["provider_error"]) == (502, "provider_interrupted")
        kept = admin.get(f"{session}/messages").json()["results"][1]
        assert (kept["content"], kept["provider"], kept["usage"]["source"]) == (
            "revenue rose",
            "First",
            "estimated",
        )
        assert kept["cost"] > 0
        assert fakes[1].requests == []

    def test_a_call_that_brought_nothing_costs_nothing(
        self,
        admin: httpx.Client,
        make_inner: Make,
        session_with: Callable[..., str],
        fakes: tuple[FakeProvider, FakeProvider],
    ) -> None:
        make_inner("House", base_url=fakes[0].base_url, api_key="sk-wrong-key", models=self.PRICED)
        session = session_with(llm_provider="House")
        answer = admin.post(f"{session}/messages", json={"content": "Tell"})
        assert (answer.status_code, answer.json()["meta"]["provider_error"]) == (502, "provider_refused")
        assert admin.get(f"{session}/messages").json()["results"][1]["cost"] is None

    def test_what_cannot_answer_is_503(
        self, admin: httpx.Client, make_inner: Make, session_with: Callable[..., str]
    ) -> None:
        make_inner("Off", is_active=False, models=self.PRICED)
        for name in ("openai", "Off"):
            session = session_with(llm_provider=name)
            answer = admin.post(f"{session}/messages", json={"content": "Tell"})
            assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
            assert admin.get(f"{session}/messages").json()["count"] == 0

    def test_metrics_do_not_tell_what_a_tenant_calls_its_own(
        self,
        admin: httpx.Client,
        make_inner: Make,
        session_with: Callable[..., str],
        fakes: tuple[FakeProvider, FakeProvider],
    ) -> None:
        make_inner("Hidden name", base_url=fakes[1].base_url, models=[{"name": "m"}])
        admin.post(f"{session_with(default_chat_model='m')}/messages", json={"content": "Tell"})
        assert "Hidden name" not in admin.get("/metrics").text


class TestTrial:
    def test_it_works(
        self, admin: httpx.Client, make_inner: Make, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        made = make_inner(base_url=fakes[0].base_url, api_key=KEY, models=[{"name": "m"}])
        told = admin.post(f"{PROVIDERS}/{made['id']}/test").json()
        assert (told["ok"], told["models"], told["error"]) == (True, 2, None)
        assert told["latency_ms"] > 0

    def test_the_providers_own_fault_is_told(
        self, admin: httpx.Client, make_inner: Make, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        made = make_inner(base_url=fakes[0].base_url, api_key="sk-wrong-key", models=[{"name": "m"}])
        answer = admin.post(f"{PROVIDERS}/{made['id']}/test")
        assert (answer.status_code, answer.json()["ok"]) == (200, False)
        assert answer.json()["error"] == {
            "code": "provider_refused",
            "detail": "The provider answered 401 (invalid_api_key).",
        }
        assert "sk-wrong-key" not in answer.text

    @pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # it takes these seconds
    def test_a_server_that_is_silent_is_told_within_ten_seconds(
        self, admin: httpx.Client, make_inner: Make, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        fakes[1].behaviour(silent=True)
        made = make_inner(base_url=fakes[1].base_url, models=[{"name": "m"}])
        told = admin.post(f"{PROVIDERS}/{made['id']}/test", timeout=10).json()
        assert (told["error"]["code"], told["models"]) == ("provider_timeout", 2)

    def test_once_for_one_key(
        self, admin: httpx.Client, make_inner: Make, fakes: tuple[FakeProvider, FakeProvider]
    ) -> None:
        made = make_inner(base_url=fakes[1].base_url)
        headers = {"Idempotency-Key": "trial-of-" + made["id"]}
        first, again = (admin.post(f"{PROVIDERS}/{made['id']}/test", headers=headers) for _ in range(2))
        assert first.json() == again.json()
        assert (again.headers["idempotent-replayed"], len(fakes[1].requests)) == ("true", 1)


class TestChoices:
    def test_without_providers_they_are_the_contracts_defaults(self, admin: httpx.Client) -> None:
        operation = described().spec["paths"][CHOICES]["get"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        defaults = {name: kind["default"] for name, kind in schema["properties"].items()}
        assert admin.get(PROVIDERS).json()["count"] == 0
        assert admin.get(CHOICES).json() == defaults
        assert all(defaults.values())

    def test_they_are_the_active_providers_and_their_models(
        self, admin: httpx.Client, make_inner: Make
    ) -> None:
        make_inner("B", models=[{"name": "m"}, {"name": "n"}], order=2)
        make_inner("A", "extractive", models=[{"name": "o"}, {"name": "m"}], order=1)
        make_inner("Off", models=[{"name": "p"}], is_active=False)
        found = admin.get(CHOICES).json()
        assert found["llm_providers"] == [
            {"name": "A", "kind": "extractive", "chat_models": ["o", "m"]},
            {"name": "B", "kind": "openai", "chat_models": ["m", "n"]},
        ]
        assert found["chat_models"] == ["o", "m", "n"]

    @pytest.mark.parametrize("role", ["viewer", "member"])
    def test_everybody_may_see_them_but_not_the_providers(
        self, client_with: Callable[..., httpx.Client], make: Make, role: str
    ) -> None:
        made, somebody = make(api_key=KEY), client_with(role=role)
        assert somebody.get(CHOICES).status_code == 200
        for path in (PROVIDERS, f"{PROVIDERS}/{made['id']}"):
            assert somebody.get(path).status_code == 403


def _stored(server: Server) -> Iterator[str]:
    """Every row of every table, and every file of the data folder."""
    tables = MetaData()
    with server.database() as db:
        tables.reflect(db.connection())
        for table in tables.sorted_tables:
            for row in db.execute(select(table)):
                yield f"{table.name}: {tuple(row)!r}"
    for path in server.data_dir.rglob("*"):
        if path.is_file():
            yield f"{path}: {path.read_bytes()!r}"


def test_a_key_is_in_no_answer_no_log_and_no_file(
    admin: httpx.Client,
    inner_server: Server,
    make_inner: Make,
    session_with: Callable[..., str],
    fakes: tuple[FakeProvider, FakeProvider],
) -> None:
    answers: list[httpx.Response] = []

    def told(response: httpx.Response) -> httpx.Response:
        answers.append(response)
        return response

    body = {"name": "Vault", "kind": "openai", "base_url": fakes[0].base_url, "models": [{"name": "m"}]}
    keyed = {"Idempotency-Key": "a-key-in-a-vault"}
    for _ in range(2):
        made = told(admin.post(PROVIDERS, json={**body, "api_key": KEY}, headers=keyed))
    path = made.headers["location"]
    told(admin.post(PROVIDERS, json={**body, "api_key": KEY}))  # the name is taken
    told(admin.post(PROVIDERS, json={**body, "key": KEY, "kind": KEY}))  # not in the contract
    told(admin.patch(path, json={"api_key": KEY}))
    told(admin.patch(path, json={"api_key": KEY, "base_url": "http://169.254.169.254/"}))
    told(admin.get(path))
    told(admin.get(PROVIDERS))
    told(admin.post(f"{path}/test"))
    session = session_with(llm_provider="Vault")
    told(admin.post(f"{session}/messages", json={"content": "Tell"}))
    fakes[0].behaviour(status=400, message=f"The key {KEY} is not liked.")
    told(admin.post(f"{session}/messages", json={"content": "Tell"}))
    told(admin.post(f"{path}/test"))
    told(admin.get(f"{session}/messages"))
    assert [a.status_code for a in answers] == [
        201,
        201,
        409,
        400,
        200,
        422,
        200,
        200,
        200,
        201,
        502,
        200,
        200,
    ]
    assert all(r.headers["authorization"] == f"Bearer {KEY}" for r in fakes[0].requests)
    assert [a for a in answers if KEY in a.text or KEY in str(a.headers)] == []
    assert KEY not in inner_server.log_path.read_text()
    stored = [*_stored(inner_server)]
    assert any("Vault" in text for text in stored)
    assert [text[:200] for text in stored if KEY in text] == []
    admin.patch(
        f"{PERSONAS}/{admin.get(session).json()['persona_id']}", json={"llm_provider": None}
    ).raise_for_status()
    assert admin.delete(path).status_code == 204

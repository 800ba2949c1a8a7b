"""Each change of each operation is a row of the audit log, and so is each change that was refused."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from models.audit import AuditEntry
from tests import mailbox
from tests.backends import Backend
from tests.contract import conformance, matrix
from tests.contract.specimens import Operation, Specimens, operation_of, operations, unknown_id
from tests.fakes.provider import FakeProvider
from tests.servers import PASSWORD, Server, Tenant, new_user, running

CHANGING = [operation for operation in operations() if operation.method != "get"]
GUARDED = [o for o in CHANGING if (o.scope or "").endswith(":write")]
UNCHANGED = {
    "search.run": "it reads",
    "personas.preview": "nothing is kept of it but the tokens that it took",
    "llm_providers.try_out": "it asks a provider, and keeps nothing",
    "openai_door.complete": "its clients keep their own history; only tokens are counted here",
    "sign_in.refresh": "the sign-in goes on as it was",
}
"""What changes nothing that is anybody's, and why. It may not leave a row either."""
TOLD_WITHIN = 10.0
STACKS = "/api/v1/tenants/stacks"
_numbers = count(1)

Call = dict[str, Any]


def _signs() -> dict[str, str]:
    """By what a request is known again: its id, and where it comes from."""
    return {"X-Request-ID": f"audited-{next(_numbers)}", "X-Forwarded-For": conformance.an_address()}


def of(chosen: list[Operation]) -> pytest.MarkDecorator:
    """One test for each."""
    return pytest.mark.parametrize("operation", chosen, ids=[operation.id for operation in chosen])


@dataclass(slots=True)
class House:
    """An installation where each operation can succeed, and who calls."""

    server: Server
    tenant: Tenant
    owner: httpx.Client
    operator: httpx.Client
    anonymous: httpx.Client
    narrow: httpx.Client
    """A viewer whose key may read its own profile."""
    unpaid: httpx.Client
    """The owner of a tenant that may not chat."""

    def told(self, sent: dict[str, str], *, wait: bool = False) -> list[AuditEntry]:
        """The rows of the request with these signs; what is done after its answer is waited for."""
        deadline = time.monotonic() + TOLD_WITHIN
        while True:
            with self.server.database() as db:
                found = list(
                    db.scalars(select(AuditEntry).where(AuditEntry.request_id == sent["X-Request-ID"]))
                )
                db.expunge_all()
            if found or not wait or time.monotonic() > deadline:
                return found
            time.sleep(0.05)  # mail is seen to some time after the answer


@pytest.fixture(scope="module")
def house(
    backend: Backend, fake_provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """An open installation with a provider, which can be slow."""
    given = {
        **backend.fresh(),
        "OPENAI_BASE_URL": fake_provider.base_url,
        "OPENAI_API_KEY": "sk-test",
        "BOOGA_OPEN_REGISTRATION": "true",
    }
    folder = tmp_path_factory.mktemp(f"audited-{backend.name}")
    with running(folder, backend.name, given) as server, ExitStack() as clients:
        operator_key = json.loads(server.booga("operator-key", "--json"))["api_key"]
        unpaid = server.bootstrap("Without chat", without_capability="chat_ai")
        keys = (
            server.api_key,
            operator_key,
            None,
            server.issue_key(role="viewer", scopes=["profile:read"]),
            unpaid["api_key"],
        )
        made = [clients.enter_context(conformance.client(server.url, key)) for key in keys]
        yield House(server, server.tenant, *made)


@pytest.fixture
def fresh(house: House) -> Iterator[Specimens]:
    """Things of this test alone."""
    with house.server.database() as db:
        person = new_user(db, house.tenant, "member").id
    yield Specimens(house.owner, house.tenant, {"user": person}, house.operator, house.anonymous)
    for stack in house.owner.get(STACKS).json()["results"]:
        if stack["id"] != house.tenant["stack_id"]:  # with two, others' calls would have to name one
            house.owner.delete(f"{STACKS}/{stack['id']}").raise_for_status()


# ---- How an operation changes something, where its example alone does not ----


def _tokens(ours: Specimens) -> dict[str, Any]:
    said = {name: ours.tenant[name] for name in ("email", "password")}
    answer = ours.send(operation_of("sign_in.login"), json=said).raise_for_status()
    tokens: dict[str, Any] = answer.json()
    return tokens


def _reset(ours: Specimens, house: House) -> Call:
    email = ours.tenant["email"]
    before = len(mailbox.mails(house.server, email))
    ours.send(operation_of("accounts.request_reset"), json={"email": email}).raise_for_status()
    mail = mailbox.wait_for(house.server, email, before + 1)
    return {"json": {"token": mailbox.token_of(mail), "password": PASSWORD}}


def _accept(ours: Specimens, house: House) -> Call:
    email = f"invited-{next(_numbers)}@example.com"
    body = {"email": email, "role": "member"}
    ours.send(operation_of("people.invite"), json=body).raise_for_status()
    mail = mailbox.wait_for(house.server, email)
    return {"json": {"token": mailbox.token_of(mail), "password": PASSWORD}}


def _running(ours: Specimens, house: House) -> Call:
    session = ours.the("session")
    question = {"content": "Go on [[tokens=1000&gap=0.02]]", "background": True}
    at = f"/api/v1/chat/sessions/{session}/messages/stream"
    with ours.client.stream("POST", at, json=question) as response:
        next(response.iter_lines())
    return {}


def _archived(ours: Specimens, house: House) -> Call:
    ours.send(operation_of("sessions.update"), json={"status": "archived"}).raise_for_status()
    return {}


def _factor(ours: Specimens, house: House) -> Call:
    ours.send(operation_of("accounts.set_up_mfa"), json={"password": PASSWORD}).raise_for_status()
    headers = {"Authorization": f"Bearer {_tokens(ours)['access_token']}"}
    return {"headers": headers, "client": house.anonymous}


def _signed_in(ours: Specimens, house: House) -> Call:
    return {"json": {"refresh_token": _tokens(ours)["refresh_token"]}}


def _devices(ours: Specimens, house: House) -> Call:
    _tokens(ours)
    return {}


def _after(*ids: str) -> Callable[[Specimens, House], Call]:
    """Once these were done."""

    def way(ours: Specimens, house: House) -> Call:
        for id in ids:
            ours.send(operation_of(id)).raise_for_status()
        return {}

    return way


def _as(**changes: Any) -> Callable[[Specimens, House], Call]:
    return lambda ours, house: changes


WAYS: dict[str, Callable[[Specimens, House], Call]] = {
    "accounts.accept": _accept,
    "accounts.change_password": _as(json={"current_password": PASSWORD, "new_password": PASSWORD}),
    "accounts.register": _as(json={"email": "mia@tarnwick.example", "tenant": "Tarnwick"}),
    "accounts.remove_mfa": _factor,
    "accounts.request_reset": lambda ours, house: {"json": {"email": ours.tenant["email"]}},
    "accounts.reset": _reset,
    "accounts.set_up_mfa": _as(json={"password": PASSWORD}),
    "accounts.sign_out_everywhere": _devices,
    "configurations.replace": _after("configurations.update"),
    "persona_users.unassign": _after("persona_users.assign"),
    "personas.restore": _after("personas.update"),
    "products.update": _as(json={"name": "Another name"}),
    "messages.stop": _running,
    "messages.unrate": _after("messages.rate"),
    "sessions.bulk": _archived,
    "sign_in.logout": _signed_in,
}


def _change(operation: Operation, ours: Specimens, house: House, sent: dict[str, str]) -> list[Any]:
    """Change something with these headers; what was said, and what was answered."""
    changes = WAYS[operation.id](ours, house) if operation.id in WAYS else {}
    client = changes.pop("client", ours.client_for(operation))
    call = {**ours.ready(operation), **changes}
    headers = {**call.pop("headers", {}), **sent}
    if operation.id == "embed.begin":
        del headers["Authorization"]  # with it, the conversation that is there would go on
    response: httpx.Response = client.request(**call, headers=headers)
    assert response.is_success, response.text
    is_json = "json" in response.headers.get("content-type", "")
    return [call.get("json"), call.get("data"), response.json() if is_json else None]


def _texts(value: Any) -> Iterator[str]:
    """Words and secrets in a body, not ids, names of fields, nor choices."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
    elif isinstance(value, str) and (set(value) & set(" @/") or len(value) > 36):
        yield value


class TestChanges:
    @of(CHANGING)
    def test_each_is_a_row_with_who_what_and_from_where(
        self, operation: Operation, fresh: Specimens, house: House
    ) -> None:
        sent = _signs()
        said = _change(operation, fresh, house, sent)
        told = house.told(sent, wait=operation.id not in UNCHANGED)
        assert bool(told) != (operation.id in UNCHANGED), told
        for entry in told:
            assert (entry.operation, entry.address) == (operation.id, sent["X-Forwarded-For"])
            assert entry.action in ("create", "update", "delete")
            assert entry.fields or entry.action != "update"
            if operation.is_operators:
                assert (entry.actor_kind, entry.key_id is None) == ("operator", False)
            elif not operation.is_public and operation.id != "accounts.remove_mfa":
                assert (entry.actor_kind, entry.actor_id) == ("key", fresh.tenant["user_id"])
            else:
                assert entry.actor_kind in ("anonymous", "user")
        acts = Counter((e.action, e.object_type, e.object_id, str(e.values)) for e in told)
        assert not acts or max(acts.values()) == 1, acts
        shown = str([entry.values for entry in told])
        for text in _texts(said):
            assert text not in shown, "a word or a secret"

    def test_exceptions_and_ways_are_operations(self) -> None:
        assert {*UNCHANGED, *WAYS} <= {operation.id for operation in CHANGING}


class TestRefusals:
    """None of the probes is valid: what is not refused is told what is wrong with it, and leaves no row."""

    @of(GUARDED)
    def test_each_is_a_row(self, operation: Operation, house: House) -> None:
        id = unknown_id()
        ids = {p["name"]: id for p in operation.parameters if p["in"] == "path" and p["name"] == "id"}
        refusals = 0
        for client in (house.narrow, house.unpaid, house.owner, house.operator):
            sent = _signs()
            answer = client.request(**matrix.probe(operation, ids), headers=sent)
            assert answer.status_code in (400, 403), answer.text
            told = house.told(sent)
            assert len(told) == (answer.status_code == 403)
            for entry in told:
                refusals += 1
                area = (operation.scope or "").partition(":")[0]
                assert (entry.action, entry.object_type) == ("refused", area)
                assert (entry.operation, entry.address) == (operation.id, sent["X-Forwarded-For"])
                assert (entry.actor_kind == "operator") == (client is house.operator)
                assert entry.key_id is not None
                assert entry.object_id == (id if ids else None)
        assert refusals, "of a key that is narrow, if of nobody else"

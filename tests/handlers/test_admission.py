"""Seats, regions, subscriptions and assignments, as they begin and end for conversations that are open."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select

from models.chat.conversations import ChatMessage
from models.tenancy import RegionAssignment, Seat, Stack, Subscription
from tests.conftest import MakesClient
from tests.events import events
from tests.fakes.provider import FakeProvider
from tests.handlers import knowledge
from tests.servers import Server, Tenant

CHAT, TENANTS = "/api/v1/chat", "/api/v1/tenants"
WORKERS_ASKED = 6
"""New connections that are tried, so that each worker takes one."""
SLOWLY = {"content": "Slowly [[tokens=2000&gap=0.05]]"}


@dataclass
class House:
    """A tenant, its owner, a member with a conversation, and who runs the installation."""

    server: Server
    tenant: Tenant
    owner: httpx.Client
    member: httpx.Client
    key: str
    user_id: str
    session_id: str
    subscription: str
    regions: list[str]
    operator: httpx.Client
    told: dict[str, Any] = field(default_factory=dict)

    def ask(self, path: str = "", body: dict[str, Any] | None = None) -> httpx.Response:
        """One question on a connection of its own."""
        url = f"{self.server.url}{path or f'{CHAT}/sessions/{self.session_id}/messages'}"
        body = {"content": "Still there?"} if body is None else body
        return httpx.post(url, json=body, headers={"X-API-Key": self.key}, timeout=60)

    def all_answer(self, status: int, path: str = "", body: dict[str, Any] | None = None) -> bool:
        """Whether every worker answers so, a second from now at the latest: others remember a caller for
        half of one.
        """
        until = time.monotonic() + 1
        while True:
            is_late = time.monotonic() > until
            answers = [self.ask(path, body) for _ in range(WORKERS_ASKED)]
            if {answer.status_code for answer in answers} == {status}:
                self.told = answers[-1].json()
                return True
            if is_late:
                return False

    def refuses(self, path: str = "", body: dict[str, Any] | None = None) -> bool:
        """Whether every worker refuses a question within a second from now, with the reason."""
        refused = self.all_answer(403, path, body)
        error = self.told.get("error")
        code = error["code"] if isinstance(error, dict) else error
        return refused and code in ("capability-required", "capability_required")

    def answers(self) -> bool:
        """Whether every worker answers again, a second from now at the latest."""
        return self.all_answer(201)

    @property
    def seat(self) -> str:
        """Where the member's seat is."""
        return f"{TENANTS}/subscriptions/{self.subscription}/seats/{self.user_id}"

    def take_seat(self) -> None:
        """The seat is taken back."""
        assert self.owner.delete(self.seat).status_code == 204

    def give_seat(self) -> None:
        """The seat is there again."""
        assert self.owner.put(self.seat).status_code == 200

    def admit(self, *region_ids: str) -> None:
        """The member is admitted to these regions alone."""
        url = f"{TENANTS}/users/{self.user_id}/regions"
        assert self.owner.put(url, json={"region_ids": list(region_ids)}).status_code == 200

    def subscribe(self, **values: Any) -> None:
        """The subscription is changed."""
        url = f"{TENANTS}/subscriptions/{self.subscription}"
        assert self.operator.patch(url, json=values).status_code == 200


@pytest.fixture(scope="module")
def company(server_with_provider: Server) -> Tenant:
    return server_with_provider.bootstrap("Seats and regions")


@pytest.fixture(scope="module")
def operators_key(server_with_provider: Server) -> str:
    key: str = json.loads(server_with_provider.booga("operator-key", "--json"))["api_key"]
    return key


@pytest.fixture
def house(
    server_with_provider: Server,
    company: Tenant,
    operators_key: str,
    fake_provider: FakeProvider,
    connect: MakesClient,
) -> Iterator[House]:
    server = server_with_provider
    fake_provider.forget()
    owner, operator = connect(company["api_key"], server), connect(operators_key, server)
    key = server.issue_key(role="member", tenant=company)
    member = connect(key, server)
    me = member.get("/api/v1/auth/me").json()["id"]
    session = member.post(f"{CHAT}/sessions", json={}).json()["id"]
    with server.database() as db:
        of = Subscription.tenant_id == company["tenant_id"]
        subscription = db.scalars(select(Subscription.id).where(of)).one()
        region = db.get_one(Stack, company["stack_id"]).region_id
    made = House(server, company, owner, member, key, me, session, subscription, [region], operator)
    yield made
    made.subscribe(status="active", capabilities=["chat_ai"])
    with server.database() as db:
        db.execute(delete(Seat).where(Seat.user_id == me))


ENDS: dict[str, tuple[Callable[[House], None], Callable[[House], None]]] = {
    "the seat is taken back": (House.take_seat, House.give_seat),
    "the region is not the member's": (House.admit, lambda house: house.admit(*house.regions)),
    "the subscription is suspended": (
        lambda house: house.subscribe(status="suspended"),
        lambda house: house.subscribe(status="active"),
    ),
    "the capability is taken out": (
        lambda house: house.subscribe(capabilities=[]),
        lambda house: house.subscribe(capabilities=["chat_ai"]),
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_what_ends_ends_for_an_open_session_in_every_worker(how: str, house: House) -> None:
    end, begin = ENDS[how]
    slug = house.owner.get(f"{CHAT}/personas").json()["results"][0]["slug"]
    door = {"model": slug, "messages": [{"role": "user", "content": "Still there?"}]}
    assert house.answers()
    end(house)
    assert house.refuses()
    for path, body in (
        (f"{CHAT}/sessions/{house.session_id}/messages/stream", {"content": "Still there?"}),
        (f"{CHAT}/sessions/{house.session_id}/regenerate", {}),
        (f"{CHAT}/sessions", {}),
        (f"{CHAT}/sessions", {"stack_id": house.tenant["stack_id"]}),
        ("/openai/v1/chat/completions", door),
    ):
        assert house.refuses(path, body), path
    begin(house)
    assert house.answers()
    assert house.ask("/openai/v1/chat/completions", door).status_code == 200


@pytest.mark.parametrize("how", list(ENDS)[:2])
def test_with_the_seat_or_region_knowledge_is_out_of_reach_and_what_was_said_stays(
    how: str, house: House
) -> None:
    end, begin = ENDS[how]
    index = knowledge.make(house.owner, "indices")
    document = knowledge.ready(house.owner, index["id"])
    persona = house.owner.get(f"{CHAT}/personas").json()["results"][0]["id"]
    reads = {"accessible_index_ids": [index["id"]]}
    assert house.owner.patch(f"{CHAT}/personas/{persona}", json=reads).status_code == 200
    places = [f"{CHAT}/knowledge/documents/{document['id']}", f"{CHAT}/personas/{persona}"]
    places.append(f"{places[0]}/content")
    stack = {"stack_id": house.tenant["stack_id"]}
    assert [house.member.get(place).status_code for place in places] == [200] * 3
    end(house)
    assert [house.member.get(place).status_code for place in places] == [404] * 3
    search = {"query": "What is said here?", "mode": "keyword"}
    assert house.member.post(f"{CHAT}/knowledge/search", json=search).json()["results"] == []
    assert house.member.get("/openai/v1/models").json()["data"] == []
    access = house.member.get(f"{CHAT}/knowledge/access", params=stack).json()["data"]
    assert access["has_access"] is False
    assert house.member.get(f"{CHAT}/sessions/{house.session_id}/messages").status_code == 200
    begin(house)
    assert [house.member.get(place).status_code for place in places] == [200] * 3


def test_an_owner_needs_neither_seat_nor_region(house: House) -> None:
    me = house.tenant["user_id"]
    session = house.owner.post(f"{CHAT}/sessions", json={}).json()["id"]
    with house.server.database() as db:
        for entity in (Seat, RegionAssignment):
            db.execute(delete(entity).where(entity.user_id == me))
    eligible = house.owner.get(f"{CHAT}/users", params={"stack_id": house.tenant["stack_id"]}).json()["data"]
    assert me not in [user["id"] for user in eligible]
    url = f"{CHAT}/sessions/{session}/messages"
    assert house.owner.post(url, json={"content": "May I?"}).status_code == 201


def test_an_open_session_ends_with_the_assignment_of_its_persona(house: House) -> None:
    persona = knowledge.persona(house.owner, house.server, stack_id=house.tenant["stack_id"])
    url, who = f"{CHAT}/personas/{persona['id']}", {"user_ids": [house.user_id]}
    assert house.owner.post(f"{url}/assign-users", json=who).status_code == 200
    session = house.member.post(f"{CHAT}/sessions", json={"persona_id": persona["id"]}).json()["id"]
    ask = f"{CHAT}/sessions/{session}/messages"
    assert house.member.post(ask, json={"content": "Hello?"}).status_code == 201
    assert house.owner.post(f"{url}/unassign-users", json=who).status_code == 200
    refused = house.member.post(ask, json={"content": "Hello?"})
    assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
    assert house.owner.post(f"{url}/assign-users", json=who).status_code == 200
    assert house.member.post(ask, json={"content": "Hello?"}).status_code == 201


@pytest.mark.parametrize("how", ENDS)
def test_a_reply_being_written_is_interrupted_and_its_part_kept(how: str, house: House) -> None:
    url = f"{CHAT}/sessions/{house.session_id}/messages/stream"
    with house.member.stream("POST", url, json=SLOWLY) as response:
        told = events(response.iter_lines())
        assert any(event.name == "message.delta" for event in told)
        ENDS[how][0](house)
        last = list(told)[-1]
    assert (last.name, last.data["status"]) == ("message.completed", "interrupted")
    assert last.data["content"]
    with house.server.database() as db:
        kept = db.get_one(ChatMessage, last.data["id"])
        assert (kept.status, kept.content) == ("interrupted", last.data["content"])


def test_somebody_elses_reply_goes_on(house: House) -> None:
    session = house.owner.post(f"{CHAT}/sessions", json={}).json()["id"]
    url = f"{CHAT}/sessions/{session}/messages/stream"
    few = {"content": "Slowly [[tokens=60&gap=0.05]]"}
    with house.owner.stream("POST", url, json=few) as response:
        told = events(response.iter_lines())
        assert any(event.name == "message.delta" for event in told)
        house.take_seat()
        last = list(told)[-1]
    assert last.data["status"] == "complete"

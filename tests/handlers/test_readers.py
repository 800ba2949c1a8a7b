"""Keys and devices that end, for whom a reply is being written and for who reads along."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from models.access import ApiKey, SignIn
from models.base import now
from models.tenancy import User
from storage.secrets import hash_password
from tests.conftest import MakesClient
from tests.events import events
from tests.fakes.provider import FakeProvider
from tests.servers import PASSWORD, Server, Tenant, new_user

API = "/api/v1"
SLOWLY = {"content": "Slowly [[tokens=600&gap=0.05]]"}
"""Half a minute's reply."""


@dataclass
class Reader:
    """Who reads, by a credential that can end; ``owner`` ends it."""

    server: Server
    owner: httpx.Client
    client: httpx.Client
    id: str
    session_id: str

    @property
    def stream_url(self) -> str:
        """Where replies are streamed."""
        return f"{API}/chat/sessions/{self.session_id}/messages/stream"


@pytest.fixture(scope="module")
def company(server_with_provider: Server) -> Tenant:
    return server_with_provider.bootstrap("Readers")


@pytest.fixture
def owner(
    server_with_provider: Server, company: Tenant, fake_provider: FakeProvider, connect: MakesClient
) -> httpx.Client:
    fake_provider.forget()
    return connect(company["api_key"], server_with_provider)


@pytest.fixture
def by_key(
    server_with_provider: Server, company: Tenant, owner: httpx.Client, connect: MakesClient
) -> Reader:
    """A member with a key."""
    client = connect(
        server_with_provider.issue_key(role="member", tenant=company, scopes=["chat:read", "chat:write"]),
        server_with_provider,
    )
    session = client.post(f"{API}/chat/sessions", json={}).json()["id"]
    newest = owner.get(f"{API}/api-keys", params={"ordering": "-created_at"}).json()["results"][0]
    return Reader(server_with_provider, owner, client, newest["id"], session)


@pytest.fixture
def by_device(
    server_with_provider: Server, company: Tenant, owner: httpx.Client, connect: MakesClient
) -> Reader:
    """A member who signed in."""
    with server_with_provider.database() as db:
        user = new_user(db, company, "member")
        user.password_hash = hash_password(PASSWORD)
        email, id = user.email, user.id
    client = connect(server=server_with_provider)
    tokens = client.post(f"{API}/auth/login", json={"email": email, "password": PASSWORD}).json()
    client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    session = client.post(f"{API}/chat/sessions", json={}).json()["id"]
    return Reader(server_with_provider, owner, client, id, session)


def _revoke(of: Reader) -> None:
    assert of.owner.delete(f"{API}/api-keys/{of.id}").status_code == 204


def _narrow(of: Reader) -> None:
    assert of.owner.patch(f"{API}/api-keys/{of.id}", json={"scopes": ["chat:read"]}).status_code == 200


def _expire(of: Reader) -> None:
    with of.server.database() as db:
        db.get_one(ApiKey, of.id).expires_at = now() - timedelta(seconds=1)


def _switch_off(of: Reader) -> None:
    _change_maker(of, is_active=False)


def _make_viewer(of: Reader) -> None:
    _change_maker(of, role="viewer")


def _change_maker(of: Reader, **values: Any) -> None:
    maker = of.owner.get(f"{API}/api-keys/{of.id}").json()["user_id"]
    assert of.owner.patch(f"{API}/tenants/users/{maker}", json=values).status_code == 200


def _sign_out(of: Reader) -> None:
    with httpx.Client(base_url=of.server.url, headers=of.client.headers) as beside:
        assert beside.delete(f"{API}/auth/sessions").status_code == 204


def _let_run_out(of: Reader) -> None:
    with of.server.database() as db:
        for device in db.query(SignIn).where(SignIn.user_id == of.id):
            device.expires_at = now() - timedelta(seconds=1)


REFUSED = ("message.failed", "unauthorized")


def _told_last(
    of: Reader, method: str, end: Callable[[Reader], None], body: dict[str, Any] | None
) -> tuple[str, str]:
    """The stream is under way, its reader's credential ends, and so does the stream: by this event."""
    with of.client.stream(method, of.stream_url, json=body) as response:
        told = events(response.iter_lines())
        assert any(event.name == "message.delta" for event in told)
        end(of)
        last = list(told)[-1]
    assert bool(last.id) == (last.name == "message.completed")
    return last.name, last.data["error"] or last.data["status"]


def _is_kept(of: Reader) -> None:
    """What was written until then is kept, and is no longer being written."""
    deadline = time.monotonic() + 10
    while True:
        listed = of.owner.get(f"{API}/chat/sessions/{of.session_id}/messages").json()["results"]
        if listed[-1]["status"] != "streaming":
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)  # its writer goes on for up to two seconds without readers
    assert listed[-1]["status"] == "interrupted"
    assert listed[-1]["content"]


@pytest.mark.parametrize("end", [_revoke, _narrow, _expire])
def test_a_stream_ends_with_its_readers_key(by_key: Reader, end: Callable[[Reader], None]) -> None:
    assert _told_last(by_key, "POST", end, SLOWLY) == REFUSED
    _is_kept(by_key)


@pytest.mark.parametrize("end", [_switch_off, _make_viewer])
def test_a_stream_ends_with_its_readers_account(by_key: Reader, end: Callable[[Reader], None]) -> None:
    """The reply ends, too, by a watch of its own: whichever comes first is what the reader is told."""
    assert _told_last(by_key, "POST", end, SLOWLY) in (REFUSED, ("message.completed", "interrupted"))
    _is_kept(by_key)


@pytest.mark.parametrize("end", [_sign_out, _let_run_out])
def test_a_stream_ends_with_its_readers_device(by_device: Reader, end: Callable[[Reader], None]) -> None:
    assert _told_last(by_device, "POST", end, SLOWLY) == REFUSED
    _is_kept(by_device)


def test_a_whole_reply_is_not_given_to_a_key_that_ended(by_key: Reader) -> None:
    answers: list[httpx.Response] = []
    url = by_key.stream_url.removesuffix("/stream")
    asking = threading.Thread(target=lambda: answers.append(by_key.client.post(url, json=SLOWLY)))
    asking.start()
    deadline = time.monotonic() + 10
    messages = f"{API}/chat/sessions/{by_key.session_id}/messages"
    while not by_key.owner.get(messages).json()["count"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # the question arrives in another thread
    _revoke(by_key)
    asking.join()
    assert answers[0].status_code == 401


def test_an_openai_stream_ends_with_its_key(by_key: Reader) -> None:
    slug = by_key.owner.get(f"{API}/chat/personas").json()["results"][0]["slug"]
    body = {"model": slug, "stream": True, "messages": [{"role": "user", "content": SLOWLY["content"]}]}
    with by_key.client.stream("POST", "/openai/v1/chat/completions", json=body) as response:
        told = (line for line in response.iter_lines() if line.startswith("data: "))
        next(told)
        _revoke(by_key)
        last = list(told)[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("how", ["toggle-active", "regenerate-key"])
def test_a_visitors_stream_ends_with_its_bot(
    how: str, server_with_provider: Server, owner: httpx.Client, connect: MakesClient
) -> None:
    persona = owner.get(f"{API}/chat/personas").json()["results"][0]["id"]
    origin = {"Origin": "https://desk.example"}
    fields = {"name": "Desk", "persona_id": persona, "allowed_origins": list(origin.values())}
    bot = owner.post(f"{API}/chat/bots", json=fields).json()
    visitor, at = connect(server=server_with_provider), f"{API}/embed/{bot['public_key']}/sessions"
    begun = visitor.post(at, headers=origin).json()
    visitor.headers.update({**origin, "Authorization": f"Bearer {begun['visitor_token']}"})
    url = f"{at}/{begun['session_id']}/messages/stream"
    with visitor.stream("POST", url, json=SLOWLY) as response:
        told = events(response.iter_lines())
        assert any(event.name == "message.delta" for event in told)
        assert owner.post(f"{API}/chat/bots/{bot['id']}/{how}").status_code == 200
        last = list(told)[-1]
    assert (last.name, last.data["error"]) == REFUSED


def test_who_reads_along_is_refused_alone(by_key: Reader, company: Tenant, connect: MakesClient) -> None:
    """An administrator loses the role while it reads what a member is told, who is told all of it."""
    of = by_key.server
    admin = connect(of.issue_key(role="admin", tenant=company), of)
    me = admin.get(f"{API}/auth/me").json()["id"]

    def demote(_: Reader) -> None:
        with of.database() as db:
            db.get_one(User, me).is_active = False

    few = {"content": "Slowly [[tokens=80&gap=0.05]]"}
    with by_key.client.stream("POST", by_key.stream_url, json=few) as response:
        told = events(response.iter_lines())
        assert any(event.name == "message.delta" for event in told)
        along = Reader(of, by_key.owner, admin, me, by_key.session_id)
        assert _told_last(along, "GET", demote, None) == REFUSED
        last = list(told)[-1]
    assert (last.name, last.data["status"]) == ("message.completed", "complete")

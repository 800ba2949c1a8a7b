"""The tenant's people over HTTP: invited by mail, given roles, let go."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx
import pytest

from models.access import ApiKey, effective_scopes
from models.tenancy import User
from storage import identity
from tests import mailbox
from tests.contract import conformance
from tests.servers import PASSWORD, Server, seat

USERS, ACCEPT = "/api/v1/tenants/users", "/api/v1/auth/invitations/accept"
_numbers = count(1)

Person = dict[str, Any]


def somebody() -> str:
    return f"person-{next(_numbers)}@people.example"


def invite(client: httpx.Client, role: str = "member", **changes: Any) -> Person:
    answer = client.post(USERS, json={"email": somebody(), "role": role, **changes})
    assert answer.status_code == 201, answer.text
    person: Person = answer.json()
    return person


def accept(server: Server, client: httpx.Client, person: Person) -> None:
    token = mailbox.token_of(mailbox.wait_for(server, person["email"]))
    assert client.post(ACCEPT, json={"token": token, "password": PASSWORD}).status_code == 204


def until_all_workers_know() -> None:
    time.sleep(identity.REMEMBERED_SECONDS)  # exactly as long as the product promises to remember at most


class TestInvite:
    def test_by_mail_to_a_sign_in(
        self, server: Server, client: httpx.Client, anonymous: httpx.Client
    ) -> None:
        address = somebody()
        answer = client.post(USERS, json={"email": address.upper(), "role": "viewer", "name": "Grace"})
        assert answer.status_code == 201
        person = answer.json()
        assert (person["email"], person["role"], person["is_active"], person["is_invited"]) == (
            address,
            "viewer",
            True,
            True,
        )
        assert client.get(answer.headers["location"]).json() == person
        mail = mailbox.wait_for(server, address)
        link = mailbox.LINK.search(mail.get_content())
        assert link is not None
        assert link[1] == f"{server.url}/account"
        accept(server, anonymous, person)
        login = anonymous.post("/api/v1/auth/login", json={"email": address, "password": PASSWORD})
        assert login.status_code == 200
        assert client.get(answer.headers["location"]).json()["is_invited"] is False

    def test_a_link_serves_once(self, server: Server, client: httpx.Client, anonymous: httpx.Client) -> None:
        person = invite(client)
        accept(server, anonymous, person)
        token = mailbox.token_of(mailbox.wait_for(server, person["email"]))
        again = anonymous.post(ACCEPT, json={"token": token, "password": "another password"})
        assert again.status_code == 422
        assert again.json()["errors"][0]["pointer"] == "/token"
        wrong = {"token": "bkm_of_nobody", "password": "another password"}
        assert anonymous.post(ACCEPT, json=wrong).status_code == 422
        confirm = "/api/v1/auth/password/reset/confirm"
        assert anonymous.post(confirm, json={"token": token, "password": PASSWORD}).status_code == 422

    def test_twice_is_409(self, client: httpx.Client) -> None:
        person = invite(client)
        again = client.post(USERS, json={"email": person["email"], "role": "member"})
        assert again.status_code == 409

    def test_an_address_of_another_tenant_is_like_any(
        self, server: Server, client: httpx.Client, other: httpx.Client, anonymous: httpx.Client
    ) -> None:
        person = invite(other)
        accept(server, anonymous, person)
        here, unknown = invite(client, email=person["email"]), invite(client)
        varying = {"id", "email", "created_at", "updated_at"}
        assert {k: v for k, v in here.items() if k not in varying} == {
            k: v for k, v in unknown.items() if k not in varying
        }
        token = mailbox.token_of(mailbox.wait_for(server, person["email"], 2))
        refused = anonymous.post(ACCEPT, json={"token": token, "password": PASSWORD})
        assert refused.status_code == 409, "only the holder of the mailbox is told"

    @pytest.mark.parametrize(
        "email", ["nobody", "a@b@c", "a b@example.com", "a@example.com\nBcc: b@x.com", "@x"]
    )
    def test_what_is_no_address_is_400(self, client: httpx.Client, email: str) -> None:
        assert client.post(USERS, json={"email": email, "role": "member"}).status_code == 400

    def test_a_tenants_name_is_no_header(self, server: Server, connect: Any) -> None:
        tenant = server.bootstrap("Name\nBcc: everybody@example.com")
        person = invite(connect(tenant["api_key"]))
        mail = mailbox.wait_for(server, person["email"])
        assert mail["Bcc"] is None
        assert "Bcc: everybody" in mail["Subject"]


class TestList:
    def test_is_searched_filtered_and_ordered(self, server: Server, connect: Any) -> None:
        client = connect(server.bootstrap("Listing")["api_key"])
        people = [invite(client, role) for role in ("member", "admin", "member")]
        client.patch(f"{USERS}/{people[2]['id']}", json={"is_active": False})

        def emails(**query: Any) -> list[str]:
            return [row["email"] for row in client.get(USERS, params=query).json()["results"]]

        assert emails(role="admin") == [people[1]["email"]]
        assert emails(is_active=False) == [people[2]["email"]]
        assert emails(search=people[0]["email"].upper()) == [people[0]["email"]]
        assert emails(role="member", ordering="-email") == sorted(
            [people[0]["email"], people[2]["email"]], reverse=True
        )
        assert len(emails()) == 4
        assert client.get(USERS + ".csv").text.count("\r\n") == 5


class TestRoles:
    def test_an_admin_touches_no_owner(
        self, server: Server, client: httpx.Client, client_with: Callable[..., httpx.Client]
    ) -> None:
        admin, owner, member = client_with(role="admin"), invite(client, "owner"), invite(client)
        one = f"{USERS}/{owner['id']}"
        assert admin.patch(one, json={"name": "X"}).status_code == 403
        assert admin.patch(one, json={"role": "member"}).status_code == 403
        assert admin.delete(one).status_code == 403
        assert admin.patch(f"{USERS}/{member['id']}", json={"role": "owner"}).status_code == 403
        assert admin.post(USERS, json={"email": somebody(), "role": "owner"}).status_code == 403
        assert admin.patch(f"{USERS}/{member['id']}", json={"role": "admin"}).status_code == 200
        assert client.patch(one, json={"role": "member"}).status_code == 200

    @pytest.mark.parametrize("change", [{"role": "admin"}, {"is_active": False}, None])
    def test_the_last_owner_stays(self, server: Server, connect: Any, change: dict[str, Any] | None) -> None:
        tenant = server.bootstrap("One owner")
        client = connect(tenant["api_key"])
        invite(client, "owner")  # who has accepted nothing can save nobody
        one = f"{USERS}/{tenant['user_id']}"
        answer = client.patch(one, json=change) if change else client.delete(one)
        assert answer.status_code == 409
        assert client.get(one).json()["role"] == "owner"

    def test_of_two_owners_who_go_at_once_one_stays(
        self, server: Server, connect: Any, anonymous: httpx.Client
    ) -> None:
        for _ in range(3):
            tenant = server.bootstrap("Two owners")
            client = connect(tenant["api_key"])
            second = invite(client, "owner")
            accept(server, anonymous, second)
            keys = [tenant["api_key"], _key_of(server, second["id"])]
            ids = [second["id"], tenant["user_id"]]

            def demote(key: str, id: str) -> int:
                with conformance.client(server.url, key) as asking:
                    return asking.patch(f"{USERS}/{id}", json={"role": "member"}).status_code

            with ThreadPoolExecutor(2) as pool:
                statuses = list(pool.map(demote, keys, ids))
            assert statuses.count(200) == 1, statuses
            with server.database() as db:
                roles = Counter(db.get_one(User, id).role for id in ids)
            assert roles == {"owner": 1, "member": 1}

    def test_a_change_reaches_keys_within_a_second(
        self, server: Server, client: httpx.Client, connect: Any
    ) -> None:
        person = invite(client, "admin")
        theirs = connect(_key_of(server, person["id"]))
        assert theirs.get(USERS).status_code == 200
        client.patch(f"{USERS}/{person['id']}", json={"role": "member"})
        until_all_workers_know()
        assert {theirs.get(USERS).status_code for _ in range(8)} == {403}
        client.patch(f"{USERS}/{person['id']}", json={"is_active": False})
        until_all_workers_know()
        assert {theirs.get(USERS).status_code for _ in range(8)} == {401}

    def test_who_was_switched_off_is_signed_out_for_good(
        self, server: Server, client: httpx.Client, anonymous: httpx.Client
    ) -> None:
        person = invite(client)
        accept(server, anonymous, person)
        body = {"email": person["email"], "password": PASSWORD}
        tokens = anonymous.post("/api/v1/auth/login", json=body).json()
        for is_active in (False, True):
            client.patch(f"{USERS}/{person['id']}", json={"is_active": is_active})
        until_all_workers_know()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert anonymous.get("/api/v1/auth/me", headers=headers).status_code == 401


class TestDelete:
    def test_takes_keys_and_sessions_along(self, server: Server, client: httpx.Client, connect: Any) -> None:
        person = invite(client)
        key = _key_of(server, person["id"])
        with server.database() as db:
            seat(db, server.tenant, person["id"])
        theirs = connect(key)
        session = theirs.post("/api/v1/chat/sessions", json={}).json()
        assert client.delete(f"{USERS}/{person['id']}").status_code == 204
        until_all_workers_know()
        assert theirs.get("/api/v1/auth/me").status_code == 401
        assert client.get(f"{USERS}/{person['id']}").status_code == 404
        assert client.get(f"/api/v1/chat/sessions/{session['id']}").status_code == 404

    def test_another_tenants_is_404(self, client: httpx.Client, other: httpx.Client) -> None:
        person = invite(other)
        assert client.delete(f"{USERS}/{person['id']}").status_code == 404
        assert other.get(f"{USERS}/{person['id']}").status_code == 200


def _key_of(server: Server, user_id: str) -> str:

    with server.database() as db:
        user = db.get_one(User, user_id)
        scopes = effective_scopes(user.role, None)
        key, secret = ApiKey.issue(user_id=user.id, role=user.role, name="test", scopes=scopes)
        key.tenant_id = user.tenant_id
        db.add(key)
    return secret

"""Sign-in over HTTP: passwords, throttling, refresh tokens and their families, the caller's own profile."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from models.access import SignIn
from models.base import now
from models.tenancy import Tenant as TenantRow
from models.tenancy import User
from storage import identity
from tests.backends import Backend
from tests.contract import conformance
from tests.servers import PASSWORD, Server, Tenant, running

LOGIN, REFRESH, LOGOUT, ME = (f"/api/v1/auth/{name}" for name in ("login", "refresh", "logout", "me"))
_hosts = count(1)

Visit = Callable[..., httpx.Client]
Tokens = dict[str, Any]


@pytest.fixture(scope="module")
def door(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server behind a proxy on loopback, so that each test may come from an address of its own."""
    given = {**backend.fresh(), "BOOGA_TRUSTED_PROXIES": "127.0.0.1"}
    with running(tmp_path_factory.mktemp(f"door-{backend.name}"), backend.name, given) as made:
        yield made


@pytest.fixture
def visit(door: Server) -> Iterator[Visit]:
    """``visit()``: somebody without credentials, from an address that nobody else has."""
    opened: list[httpx.Client] = []

    def make(address: str | None = None) -> httpx.Client:
        number = next(_hosts)
        client = conformance.client(door.url, None)
        client.headers["X-Forwarded-For"] = address or f"10.9.{number // 250}.{number % 250 + 1}"
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def visitor(visit: Visit) -> httpx.Client:
    """Somebody without credentials."""
    return visit()


@pytest.fixture
def tenant(door: Server) -> Tenant:
    """A tenant of this test alone; its owner's failures are nobody else's."""
    return door.bootstrap("Sign-in")


def sign_in(client: httpx.Client, tenant: Tenant, **changes: str) -> httpx.Response:
    return client.post(LOGIN, json={"email": tenant["email"], "password": PASSWORD, **changes})


def tokens_of(client: httpx.Client, tenant: Tenant) -> Tokens:
    answer = sign_in(client, tenant)
    assert answer.status_code == 200, answer.text
    tokens: Tokens = answer.json()
    return tokens


def renew(client: httpx.Client, tokens: Tokens) -> httpx.Response:
    return client.post(REFRESH, json={"refresh_token": tokens["refresh_token"]})


def me(client: httpx.Client, tokens: Tokens) -> int:
    return client.get(ME, headers={"Authorization": f"Bearer {tokens['access_token']}"}).status_code


def until_all_workers_know() -> None:
    """A verdict may be remembered by a worker that did not make the change."""
    time.sleep(identity.REMEMBERED_SECONDS)  # exactly as long as the product promises to remember at most


class TestLogin:
    def test_gives_tokens_that_work(self, visitor: httpx.Client, tenant: Tenant) -> None:
        answer = sign_in(visitor, tenant)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["expires_in"] == 900
        assert me(visitor, answer.json()) == 200

    def test_the_case_of_an_address_does_not_matter(self, visitor: httpx.Client, tenant: Tenant) -> None:
        assert sign_in(visitor, tenant, email=tenant["email"].upper()).status_code == 200

    def test_a_refresh_token_is_no_access_token(self, visitor: httpx.Client, tenant: Tenant) -> None:
        tokens = tokens_of(visitor, tenant)
        assert me(visitor, {"access_token": tokens["refresh_token"]}) == 401

    def test_every_refusal_is_the_same(self, door: Server, visitor: httpx.Client, tenant: Tenant) -> None:
        of = {"tenant_id": tenant["tenant_id"]}
        away, invited = f"away-{tenant['email']}", f"invited-{tenant['email']}"
        suspended = door.bootstrap("Suspended")
        with door.database() as db:
            owner = db.get_one(User, tenant["user_id"])
            db.add(User(**of, email=away, is_active=False, password_hash=owner.password_hash))
            db.add(User(**of, email=invited))
            db.get_one(TenantRow, suspended["tenant_id"]).is_active = False
        attempts = [
            {"password": "a wrong password"},
            {"email": "nobody@example.com"},
            {"email": away},
            {"email": invited},
            {"email": suspended["email"]},
        ]
        answers = [sign_in(visitor, tenant, **changes) for changes in attempts]
        assert [answer.status_code for answer in answers] == [401] * len(attempts)
        assert len({answer.text.replace(answer.json()["request_id"], "") for answer in answers}) == 1

    def test_credentials_in_a_header_do_not_matter(self, visitor: httpx.Client, tenant: Tenant) -> None:
        visitor.headers["X-API-Key"] = "bk_live_of_nobody"
        assert sign_in(visitor, tenant).status_code == 200

    def test_a_hash_of_other_parameters_is_renewed(
        self, door: Server, visitor: httpx.Client, tenant: Tenant
    ) -> None:
        from argon2 import PasswordHasher

        older = PasswordHasher(time_cost=2, memory_cost=8192, parallelism=1).hash(PASSWORD)
        with door.database() as db:
            db.get_one(User, tenant["user_id"]).password_hash = older
        assert sign_in(visitor, tenant).status_code == 200
        with door.database() as db:
            renewed = db.get_one(User, tenant["user_id"]).password_hash or ""
        assert renewed.split("$")[3] == "m=47104,t=1,p=1"
        assert sign_in(visitor, tenant).status_code == 200


class TestThrottle:
    @pytest.mark.parametrize("known", [True, False])
    def test_ten_failures_close_an_account(
        self, visitor: httpx.Client, visit: Visit, tenant: Tenant, known: bool
    ) -> None:
        email = tenant["email"] if known else f"nobody-{tenant['email']}"
        tries = [sign_in(visitor, tenant, email=email, password="wrong") for _ in range(11)]
        assert [answer.status_code for answer in tries] == [401] * 10 + [429]
        right = sign_in(visit(), tenant, email=email.upper())
        assert right.status_code == 429
        assert 1 <= int(right.headers["retry-after"]) <= 900

    def test_another_account_is_not_closed(self, visitor: httpx.Client, tenant: Tenant) -> None:
        for _ in range(11):
            sign_in(visitor, tenant, email=f"other-{tenant['email']}", password="wrong")
        assert sign_in(visitor, tenant).status_code == 200

    def test_success_does_not_count(self, visitor: httpx.Client, tenant: Tenant) -> None:
        assert {sign_in(visitor, tenant).status_code for _ in range(12)} == {200}

    def test_tries_at_once_learn_no_more_than_ten(
        self, visitor: httpx.Client, visit: Visit, tenant: Tenant
    ) -> None:
        with ThreadPoolExecutor(30) as pool:
            tries = pool.map(lambda _: sign_in(visitor, tenant, password="wrong").status_code, range(30))
        assert Counter(tries) == {401: 10, 429: 20}

    def test_a_hundred_failures_close_an_address_whatever_it_claims(
        self, visit: Visit, tenant: Tenant
    ) -> None:
        def fail(number: int) -> int:
            client = visit(f"198.51.100.{number}, 10.200.0.9")
            return sign_in(client, tenant, email=f"{number}-{tenant['email']}", password="wrong").status_code

        with ThreadPoolExecutor(10) as pool:
            assert Counter(pool.map(fail, range(100))) == {401: 100}
        assert sign_in(visit("203.0.113.5, 10.200.0.9"), tenant).status_code == 429
        assert sign_in(visit("203.0.113.5, 10.200.0.10"), tenant).status_code == 200

    def test_a_network_of_ipv6_counts_as_one_address(self, visit: Visit) -> None:
        network = f"2001:db8:{next(_hosts):x}:1"
        left = [
            int(re.findall(r"r=(\d+)", answer.headers["RateLimit"])[0])
            for answer in (
                visit(f"{network}::{host}").post(REFRESH, json={"refresh_token": "none"}) for host in (1, 2)
            )
        ]
        assert left[0] - left[1] == 1

    def test_no_proxy_is_trusted_that_was_not_named(self, server: Server, tmp_path: Path) -> None:
        if server.backend != "sqlite":
            pytest.skip("the proxy is looked at before any backend")
        with (
            running(tmp_path, "sqlite", {"BOOGA_TRUSTED_PROXIES": ""}) as other,
            conformance.client(other.url, None) as client,
        ):
            left = []
            for number in range(3):
                client.headers["X-Forwarded-For"] = f"198.51.100.{number}"
                limit = client.get("/.well-known/jwks.json").headers["ratelimit"]
                left.append(int(limit.partition(";r=")[2].partition(";")[0]))
        assert left == [left[0], left[0] - 1, left[0] - 2], "each claim was counted as another address"


class TestRefresh:
    def test_rotates(self, visitor: httpx.Client, tenant: Tenant) -> None:
        first = tokens_of(visitor, tenant)
        second = renew(visitor, first)
        assert second.status_code == 200
        assert second.headers["cache-control"] == "no-store"
        assert second.json()["refresh_token"] != first["refresh_token"]
        assert me(visitor, second.json()) == 200
        assert renew(visitor, second.json()).status_code == 200

    def test_reuse_ends_the_family(self, visitor: httpx.Client, tenant: Tenant) -> None:
        first, bystander = tokens_of(visitor, tenant), tokens_of(visitor, tenant)
        second = renew(visitor, first).json()
        third = renew(visitor, second).json()
        assert renew(visitor, first).status_code == 401
        until_all_workers_know()
        assert [me(visitor, tokens) for tokens in (first, second, third)] == [401] * 3
        assert renew(visitor, third).status_code == 401
        assert me(visitor, bystander) == 200

    def test_one_of_two_at_once_is_served(self, visitor: httpx.Client, tenant: Tenant) -> None:
        tokens = tokens_of(visitor, tenant)
        with ThreadPoolExecutor(8) as pool:
            statuses = Counter(pool.map(lambda _: renew(visitor, tokens).status_code, range(8)))
        assert statuses == {200: 1, 401: 7}

    def test_a_forged_token_harms_nobody(self, visitor: httpx.Client, tenant: Tenant) -> None:
        tokens = tokens_of(visitor, tenant)
        genuine = tokens["refresh_token"]
        body = genuine.removeprefix("bkr_")
        forged = [
            genuine[:-3] + ("AAA" if genuine[-3:] != "AAA" else "BBB"),
            "bkr_" + body[:22] + ("B" if body[22] == "A" else "A") + body[23:],
            "bkr_" + "A" * 70,
            "bkr_" + "!" * 70,
            genuine + "A",
            genuine + "==",
            tokens["access_token"][:74],
            "x",
        ]
        for text in forged:
            assert renew(visitor, {"refresh_token": text}).status_code == 401, text
            assert visitor.post(LOGOUT, json={"refresh_token": text}).status_code == 204, text
        assert me(visitor, tokens) == 200
        assert renew(visitor, tokens).status_code == 200

    def test_expires(self, door: Server, visitor: httpx.Client, tenant: Tenant) -> None:
        tokens = tokens_of(visitor, tenant)
        with door.database() as db:
            mine = update(SignIn).where(SignIn.user_id == tenant["user_id"])
            db.execute(mine.values(expires_at=now() - timedelta(seconds=1)))
        assert renew(visitor, tokens).status_code == 401
        until_all_workers_know()
        assert me(visitor, tokens) == 401

    @pytest.mark.parametrize("table", [User, TenantRow])
    def test_what_was_deactivated_has_no_tokens(
        self, door: Server, visitor: httpx.Client, tenant: Tenant, table: type[User] | type[TenantRow]
    ) -> None:
        tokens = tokens_of(visitor, tenant)
        assert me(visitor, tokens) == 200
        with door.database() as db:
            id = tenant["user_id"] if table is User else tenant["tenant_id"]
            db.execute(update(table).where(table.id == id).values(is_active=False))
        assert renew(visitor, tokens).status_code == 401
        until_all_workers_know()
        assert me(visitor, tokens) == 401


class TestLogout:
    def test_ends_this_device_alone(self, visitor: httpx.Client, tenant: Tenant) -> None:
        tokens, other = tokens_of(visitor, tenant), tokens_of(visitor, tenant)
        assert me(visitor, tokens) == 200
        answer = visitor.post(LOGOUT, json={"refresh_token": tokens["refresh_token"]})
        assert answer.status_code == 204
        until_all_workers_know()
        assert {me(visitor, tokens) for _ in range(8)} == {401}
        assert renew(visitor, tokens).status_code == 401
        assert me(visitor, other) == 200

    def test_is_repeatable(self, visitor: httpx.Client, tenant: Tenant) -> None:
        body = {"refresh_token": tokens_of(visitor, tenant)["refresh_token"]}
        assert [visitor.post(LOGOUT, json=body).status_code for _ in range(2)] == [204, 204]


class TestMe:
    def test_by_token(self, visitor: httpx.Client, tenant: Tenant) -> None:
        token = tokens_of(visitor, tenant)["access_token"]
        profile = visitor.get(ME, headers={"Authorization": f"Bearer {token}"}).json()
        assert profile["id"] == tenant["user_id"]
        assert profile["email"] == tenant["email"]
        assert profile["role"] == "owner"
        assert profile["tenant"] == {"id": tenant["tenant_id"], "name": "Sign-in"}
        assert profile["capabilities"] == ["chat_ai"]

    def test_a_key_tells_its_own_limits(self, client_with: Callable[..., httpx.Client]) -> None:
        client = client_with(scopes=["profile:read", "chat:read"])
        assert client.get(ME).json()["scopes"] == ["chat:read", "profile:read"]
        assert client.patch(ME, json={"name": "Ada"}).status_code == 403

    def test_capabilities_are_the_tenants(
        self, without_capability: Tenant, client_with: Callable[..., httpx.Client]
    ) -> None:
        assert client_with(tenant=without_capability).get(ME).json()["capabilities"] == []

    def test_a_name_is_changed_once(self, client_with: Callable[..., httpx.Client]) -> None:
        client = client_with(role="viewer")
        read = client.get(ME)
        assert client.get(ME, headers={"If-None-Match": read.headers["etag"]}).status_code == 304
        guard = {"If-Match": read.headers["etag"]}
        changed = client.patch(ME, json={"name": "Ada Lovelace"}, headers=guard)
        assert changed.status_code == 200
        assert changed.json()["name"] == "Ada Lovelace"
        assert changed.headers["etag"] == client.get(ME).headers["etag"] != read.headers["etag"]
        assert client.patch(ME, json={"name": "Another"}, headers=guard).status_code == 412
        assert client.get(ME).json()["name"] == "Ada Lovelace"

    @pytest.mark.parametrize(
        "body",
        [{}, {"name": ""}, {"name": " "}, {"email": "x@example.com"}, {"name": "Ada", "role": "owner"}],
    )
    def test_nothing_else_can_be_changed(self, client: httpx.Client, body: dict[str, str]) -> None:
        assert client.patch(ME, json=body).status_code == 400

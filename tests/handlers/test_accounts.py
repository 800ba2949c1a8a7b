"""One's own account over HTTP: forgotten and new passwords, the second factor, devices, registering."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import Any

import httpx
import pyotp
import pytest
from sqlalchemy import select, update

from models.access import SignIn
from models.base import now
from models.letters import Letter
from models.second_factor import SecondFactor
from models.tenancy import Subscription, User
from storage import identity
from tests import mailbox
from tests.backends import Backend
from tests.contract import conformance
from tests.servers import PASSWORD, Server, Tenant, running

AUTH = "/api/v1/auth"
NEW = "a better horse battery staple"
_hosts = count(1)

Tokens = dict[str, Any]


@pytest.fixture(scope="module")
def door(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An open installation behind a proxy on loopback: each test comes from an address of its own."""
    given = {
        **backend.fresh(),
        "BOOGA_TRUSTED_PROXIES": "127.0.0.1",
        "BOOGA_OPEN_REGISTRATION": "true",
    }
    with running(tmp_path_factory.mktemp(f"accounts-{backend.name}"), backend.name, given) as made:
        yield made


@pytest.fixture
def visitor(door: Server) -> Iterator[httpx.Client]:
    """Somebody without credentials."""
    with conformance.client(door.url, None) as client:
        number = next(_hosts)
        client.headers["X-Forwarded-For"] = f"10.8.{number // 250}.{number % 250 + 1}"
        yield client


@pytest.fixture
def tenant(door: Server) -> Tenant:
    """A tenant of this test alone."""
    return door.bootstrap("Accounts")


def post(
    client: httpx.Client, path: str, body: dict[str, Any], tokens: Tokens | None = None
) -> httpx.Response:
    return client.post(f"{AUTH}/{path}", json=body, headers=bearer(tokens) if tokens else {})


def bearer(tokens: Tokens) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def sign_in(client: httpx.Client, tenant: Tenant, **changes: str) -> httpx.Response:
    return post(client, "login", {"email": tenant["email"], "password": PASSWORD, **changes})


def tokens_of(client: httpx.Client, tenant: Tenant, **changes: str) -> Tokens:
    answer = sign_in(client, tenant, **changes)
    assert answer.status_code == 200, answer.text
    tokens: Tokens = answer.json()
    return tokens


def me(client: httpx.Client, tokens: Tokens) -> int:
    return client.get(f"{AUTH}/me", headers=bearer(tokens)).status_code


def until_all_workers_know() -> None:
    time.sleep(identity.REMEMBERED_SECONDS)  # exactly as long as the product promises to remember at most


class TestReset:
    def test_by_mail_ends_every_sign_in(self, door: Server, visitor: httpx.Client, tenant: Tenant) -> None:
        before = tokens_of(visitor, tenant)
        visitor.headers["Host"] = "evil.example"
        assert post(visitor, "password/reset", {"email": tenant["email"].upper()}).status_code == 202
        del visitor.headers["Host"]
        mail = mailbox.wait_for(door, tenant["email"])
        link = mailbox.LINK.search(mail.get_content())
        assert link is not None
        assert link[1] == f"{door.url}/account", "never the Host header"
        body = {"token": mailbox.token_of(mail), "password": NEW}
        assert post(visitor, "password/reset/confirm", body).status_code == 204
        until_all_workers_know()
        assert me(visitor, before) == 401
        assert post(visitor, "refresh", {"refresh_token": before["refresh_token"]}).status_code == 401
        assert sign_in(visitor, tenant).status_code == 401
        assert sign_in(visitor, tenant, password=NEW).status_code == 200
        assert post(visitor, "password/reset/confirm", body).status_code == 422

    def test_of_two_at_once_one_is_served(self, door: Server, visitor: httpx.Client, tenant: Tenant) -> None:
        post(visitor, "password/reset", {"email": tenant["email"]})
        token = mailbox.token_of(mailbox.wait_for(door, tenant["email"]))

        def confirm(number: int) -> int:
            body = {"token": token, "password": f"{NEW} {number}"}
            return post(visitor, "password/reset/confirm", body).status_code

        with ThreadPoolExecutor(6) as pool:
            assert Counter(pool.map(confirm, range(6))) == {204: 1, 422: 5}

    def test_a_token_expires_and_is_kept_as_a_hash(
        self, door: Server, visitor: httpx.Client, tenant: Tenant
    ) -> None:
        post(visitor, "password/reset", {"email": tenant["email"]})
        token = mailbox.token_of(mailbox.wait_for(door, tenant["email"]))
        with door.database() as db:
            letter = db.scalars(select(Letter).where(Letter.user_id == tenant["user_id"])).one()
            assert letter.token_hash is not None
            assert token not in repr(vars(letter))
            letter.expires_at = now() - timedelta(seconds=1)
        body = {"token": token, "password": NEW}
        assert post(visitor, "password/reset/confirm", body).status_code == 422
        assert sign_in(visitor, tenant).status_code == 200

    def test_a_known_address_answers_like_an_unknown_one(
        self, door: Server, visitor: httpx.Client, tenant: Tenant
    ) -> None:
        known = post(visitor, "password/reset", {"email": tenant["email"]})
        unknown = post(visitor, "password/reset", {"email": f"no-{tenant['email']}"})
        varying = {"x-request-id", "date", "ratelimit"}
        heads = [
            {name: value for name, value in answer.headers.items() if name not in varying}
            for answer in (known, unknown)
        ]
        assert (known.status_code, known.content, heads[0]) == (
            unknown.status_code,
            unknown.content,
            heads[1],
        )
        mailbox.wait_for(door, tenant["email"])
        assert not mailbox.mails(door, f"no-{tenant['email']}")

    def test_too_many_are_429_known_or_not(self, visitor: httpx.Client, tenant: Tenant) -> None:
        for email in (tenant["email"], f"no-{tenant['email']}"):
            statuses = [post(visitor, "password/reset", {"email": email}).status_code for _ in range(11)]
            assert statuses == [202] * 10 + [429]

    def test_who_is_invited_gets_the_invitation_again(
        self, door: Server, visitor: httpx.Client, tenant: Tenant, connect: Any
    ) -> None:
        email = f"invited-{tenant['email']}"
        body = {"email": email, "role": "member"}
        assert connect(tenant["api_key"], door).post("/api/v1/tenants/users", json=body).status_code == 201
        post(visitor, "password/reset", {"email": email})
        mail = mailbox.wait_for(door, email, 2)
        answer = post(visitor, "invitations/accept", {"token": mailbox.token_of(mail), "password": NEW})
        assert answer.status_code == 204


class TestPassword:
    def test_a_change_signs_the_others_out(self, visitor: httpx.Client, tenant: Tenant) -> None:
        mine, other = tokens_of(visitor, tenant), tokens_of(visitor, tenant)
        body = {"current_password": PASSWORD, "new_password": NEW}
        assert post(visitor, "password", body, mine).status_code == 204
        until_all_workers_know()
        assert (me(visitor, mine), me(visitor, other)) == (200, 401)
        assert sign_in(visitor, tenant, password=NEW).status_code == 200

    def test_wrong_ones_count_like_failed_sign_ins(self, visitor: httpx.Client, tenant: Tenant) -> None:
        mine = tokens_of(visitor, tenant)
        body = {"current_password": "wrong", "new_password": NEW}
        statuses = [post(visitor, "password", body, mine).status_code for _ in range(11)]
        assert statuses == [422] * 10 + [429]
        assert sign_in(visitor, tenant).status_code == 429

    def test_a_short_one_is_400(self, visitor: httpx.Client, tenant: Tenant) -> None:
        body = {"current_password": PASSWORD, "new_password": "short"}
        assert post(visitor, "password", body, tokens_of(visitor, tenant)).status_code == 400


class TestSecondFactor:
    @pytest.fixture
    def begun(self, visitor: httpx.Client, tenant: Tenant) -> tuple[Tokens, dict[str, Any]]:
        """A device, and a second factor that waits for its first code."""
        tokens = tokens_of(visitor, tenant)
        answer = post(visitor, "mfa", {"password": PASSWORD}, tokens)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        return tokens, answer.json()

    def test_every_code_serves_once(
        self, door: Server, visitor: httpx.Client, tenant: Tenant, begun: tuple[Tokens, dict[str, Any]]
    ) -> None:
        tokens, factor = begun
        totp = pyotp.parse_uri(factor["uri"])
        assert isinstance(totp, pyotp.TOTP)
        assert totp.secret == factor["secret"]
        assert sign_in(visitor, tenant).status_code == 200, "not asked for before it is enabled"
        wrong = str((int(totp.now()) + 1) % 1_000_000).zfill(6)
        assert post(visitor, "mfa", {"otp": wrong}, tokens).status_code == 422
        first = totp.now()
        assert post(visitor, "mfa", {"otp": first}, tokens).json()["enabled"] is True
        needed = sign_in(visitor, tenant)
        assert (needed.status_code, needed.json()["meta"]) == (401, {"otp_required": True})
        assert sign_in(visitor, tenant, password="wrong").json()["meta"] == {}
        assert sign_in(visitor, tenant, otp=first).status_code == 401, "it was used to enable"
        _let_time_pass(door, tenant)
        with ThreadPoolExecutor(6) as pool:
            codes = [totp.now()] * 6
            statuses = Counter(pool.map(lambda code: sign_in(visitor, tenant, otp=code).status_code, codes))
        assert statuses == {200: 1, 401: 5}
        assert post(visitor, "mfa", {"password": PASSWORD}, tokens).status_code == 409

    def test_recovery_codes_serve_once_and_are_hashed(
        self, door: Server, visitor: httpx.Client, tenant: Tenant, begun: tuple[Tokens, dict[str, Any]]
    ) -> None:
        tokens, factor = begun
        codes = factor["recovery_codes"]
        assert len(set(codes)) == 10
        assert post(visitor, "mfa", {"otp": pyotp.TOTP(factor["secret"]).now()}, tokens).status_code == 200
        assert sign_in(visitor, tenant, otp=codes[0].upper()).status_code == 200
        assert sign_in(visitor, tenant, otp=codes[0]).status_code == 401
        with door.database() as db:
            kept = db.scalars(select(SecondFactor).where(SecondFactor.user_id == tenant["user_id"])).one()
            assert len(kept.recovery_hashes) == 9
            assert not {*codes} & {*kept.recovery_hashes}
            assert factor["secret"].encode() not in kept.sealed_secret

    def test_wrong_codes_close_the_account(
        self, visitor: httpx.Client, tenant: Tenant, begun: tuple[Tokens, dict[str, Any]]
    ) -> None:
        tokens, factor = begun
        totp = pyotp.TOTP(factor["secret"])
        assert post(visitor, "mfa", {"otp": totp.now()}, tokens).status_code == 200
        statuses = [sign_in(visitor, tenant, otp="aaaaaa").status_code for _ in range(11)]
        assert statuses == [401] * 10 + [429]

    def test_only_a_fresh_device_removes_it(
        self,
        door: Server,
        visitor: httpx.Client,
        tenant: Tenant,
        connect: Any,
        begun: tuple[Tokens, dict[str, Any]],
    ) -> None:
        tokens, factor = begun
        assert post(visitor, "mfa", {"otp": pyotp.TOTP(factor["secret"]).now()}, tokens).status_code == 200
        assert connect(tenant["api_key"], door).delete(f"{AUTH}/mfa").status_code == 403
        with door.database() as db:
            mine = update(SignIn).where(SignIn.user_id == tenant["user_id"])
            db.execute(mine.values(created_at=now() - timedelta(minutes=16)))
        assert visitor.delete(f"{AUTH}/mfa", headers=bearer(tokens)).status_code == 403
        fresh = tokens_of(visitor, tenant, otp=factor["recovery_codes"][1])
        assert visitor.delete(f"{AUTH}/mfa", headers=bearer(fresh)).status_code == 204
        assert sign_in(visitor, tenant).status_code == 200


def _let_time_pass(door: Server, tenant: Tenant) -> None:
    """As if the last code had been taken some steps ago."""
    with door.database() as db:
        mine = update(SecondFactor).where(SecondFactor.user_id == tenant["user_id"])
        db.execute(mine.values(last_step=SecondFactor.last_step - 3))


class TestDevices:
    def test_are_listed_and_ended(self, visitor: httpx.Client, tenant: Tenant) -> None:
        visitor.headers["User-Agent"] = "Old phone"
        phone = tokens_of(visitor, tenant)
        visitor.headers["User-Agent"] = "Laptop"
        laptop = tokens_of(visitor, tenant)
        found = visitor.get(f"{AUTH}/sessions", headers=bearer(laptop)).json()["results"]
        assert {(row["user_agent"], row["is_current"]) for row in found} == {
            ("Old phone", False),
            ("Laptop", True),
        }
        assert all(row["address"] == visitor.headers["X-Forwarded-For"] for row in found)
        one = next(row["id"] for row in found if not row["is_current"])
        assert visitor.delete(f"{AUTH}/sessions/{one}", headers=bearer(laptop)).status_code == 204
        assert visitor.delete(f"{AUTH}/sessions/{one}", headers=bearer(laptop)).status_code == 404
        until_all_workers_know()
        assert (me(visitor, phone), me(visitor, laptop)) == (401, 200)

    @pytest.mark.parametrize("how", ["sessions", "logout"])
    def test_all_are_ended_at_once(self, visitor: httpx.Client, tenant: Tenant, how: str) -> None:
        devices = [tokens_of(visitor, tenant) for _ in range(3)]
        if how == "sessions":
            answer = visitor.delete(f"{AUTH}/sessions", headers=bearer(devices[0]))
        else:
            body = {"refresh_token": devices[0]["refresh_token"], "everywhere": True}
            answer = post(visitor, "logout", body)
        assert answer.status_code == 204
        until_all_workers_know()
        assert {me(visitor, tokens) for tokens in devices} == {401}

    def test_a_colleagues_is_404(
        self, door: Server, visitor: httpx.Client, tenant: Tenant, connect: Any
    ) -> None:
        mine = tokens_of(visitor, tenant)
        one = visitor.get(f"{AUTH}/sessions", headers=bearer(mine)).json()["results"][0]["id"]
        colleague = connect(door.issue_key(role="admin", tenant=tenant), door)
        assert colleague.get(f"{AUTH}/sessions").json()["count"] == 0
        assert colleague.delete(f"{AUTH}/sessions/{one}").status_code == 404
        assert me(visitor, mine) == 200


class TestRegister:
    def test_makes_a_tenant_and_its_owner(self, door: Server, visitor: httpx.Client) -> None:
        email = f"founder-{next(_hosts)}@accounts.example"
        body = {"tenant": "Fresh Ltd", "email": email, "name": "Ada"}
        assert post(visitor, "register", body).status_code == 202
        mail = mailbox.wait_for(door, email)
        assert "Fresh Ltd" not in f"{mail['Subject']} {mail.get_content()}", "anybody's words to anybody"
        assert post(visitor, "login", {"email": email, "password": NEW}).status_code == 401
        accepted = post(visitor, "invitations/accept", {"token": mailbox.token_of(mail), "password": NEW})
        assert accepted.status_code == 204
        tokens = post(visitor, "login", {"email": email, "password": NEW}).json()
        profile = visitor.get(f"{AUTH}/me", headers=bearer(tokens)).json()
        assert (profile["role"], profile["tenant"]["name"], profile["capabilities"]) == (
            "owner",
            "Fresh Ltd",
            [],
        )
        with door.database() as db:
            of = Subscription.tenant_id == profile["tenant"]["id"]
            assert db.scalar(select(Subscription.id).where(of)) is None

    def test_a_known_address_is_told_by_mail_alone(
        self, door: Server, visitor: httpx.Client, tenant: Tenant
    ) -> None:
        answer = post(visitor, "register", {"tenant": "Again Ltd", "email": tenant["email"]})
        assert (answer.status_code, answer.content) == (202, b"")
        mail = mailbox.wait_for(door, tenant["email"])
        assert mailbox.LINK.search(mail.get_content()) is None
        with door.database() as db:
            assert len(db.scalars(select(User.id).where(User.email == tenant["email"])).all()) == 1

    def test_a_closed_installation_is_403(self, anonymous: httpx.Client) -> None:
        body = {"tenant": "Fresh Ltd", "email": "founder@accounts.example"}
        answer = anonymous.post(f"{AUTH}/register", json=body)
        assert (answer.status_code, answer.json()["error"]) == (403, "feature-disabled")

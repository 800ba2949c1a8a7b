"""From a credential to a caller: what it costs, and when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, update

from handlers.commands import make_tenant
from models.access import ApiKey, SignIn, digest
from models.base import now
from models.tenancy import Subscription, Tenant, User
from storage import identity, tokens
from storage.database import engine, look, platform


@pytest.fixture
def made(migrated: None) -> dict[str, str]:
    """A tenant; its key was used a moment ago."""
    tenant = make_tenant("Tenant A", "owner@example.com", "correct horse battery")
    with platform() as db:
        db.execute(update(ApiKey).values(last_used_at=now()))
    return tenant


@pytest.fixture
def token(made: dict[str, str]) -> str:
    """An access token of a device that is signed in."""
    with platform() as db:
        device = db.put(
            SignIn.begin(
                tenant_id=made["tenant_id"],
                user_id=made["user_id"],
                seed=tokens.new_seed(),
                address="",
                user_agent="tests",
            )
        )
    return tokens.make_access_token(made["user_id"], made["tenant_id"], device.id)


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is asked of the database meanwhile."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith(("BEGIN", "SET", "SELECT pg_catalog")):
            seen.append(statement)

    event.listen(engine(), "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine(), "before_cursor_execute", note)


class TestCosts:
    def test_a_key_costs_one_query_and_then_none(self, made: dict[str, str]) -> None:
        with statements() as asked:
            found = identity.caller_of(made["api_key"])
            assert identity.remembered(made["api_key"]) is found is not None
        assert len(asked) == 1

    def test_a_token_costs_one_query(self, token: str) -> None:
        assert tokens.jwks()["keys"]
        with statements() as asked:
            assert identity.caller_of(token) is not None
        assert len(asked) == 1

    def test_a_mistyped_key_costs_none(self, made: dict[str, str]) -> None:
        key = made["api_key"]
        mistyped = key[:-8] + ("x" if key[-8] != "x" else "y") + key[-7:]
        with statements() as asked:
            assert identity.caller_of(mistyped) is None
            assert identity.caller_of(key[:-1]) is None
            assert identity.caller_of("bk_") is None
        assert asked == []

    def test_the_last_use_is_written_beside_the_request(self, made: dict[str, str]) -> None:
        with platform() as db:
            db.execute(update(ApiKey).values(last_used_at=now() - timedelta(minutes=2)))
        before = now()
        with statements() as asked:
            assert identity.caller_of(made["api_key"]) is not None
            identity._later.submit(lambda: None).result(timeout=30)
        assert [statement.split()[0] for statement in asked] == ["SELECT", "UPDATE"]
        with platform(writes=False) as db:
            key = db.query(ApiKey).filter_by(key_hash=digest(made["api_key"])).one()
        assert key.last_used_at is not None
        assert key.last_used_at >= before
        assert key.updated_at < before, "a use is no change of the key"
        assert identity.remembered(made["api_key"]) is not None, "nor of anybody's rights"


def test_who_it_is(made: dict[str, str], token: str) -> None:
    by_key, by_token = identity.caller_of(made["api_key"]), identity.caller_of(token)
    assert by_key is not None
    assert by_token is not None
    assert (by_key.tenant_id, by_key.user_id) == (made["tenant_id"], made["user_id"])
    assert by_key.capabilities == by_token.capabilities == {"chat_ai"}
    assert by_key.scopes == by_token.scopes
    assert by_key.identity.startswith("key:")
    assert by_token.identity == f"user:{made['user_id']}"


ENDS_A_KEY = {
    "revoked": (ApiKey, {"revoked_at": now()}),
    "expired": (ApiKey, {"expires_at": now()}),
    "its maker deactivated": (User, {"is_active": False}),
    "its tenant suspended": (Tenant, {"is_active": False}),
}
ENDS_A_TOKEN = {
    "signed out": (SignIn, {"ended_at": now()}),
    "expired": (SignIn, {"expires_at": now()}),
    "the user deactivated": (User, {"is_active": False}),
    "the tenant suspended": (Tenant, {"is_active": False}),
}


@pytest.mark.parametrize(("table", "values"), ENDS_A_KEY.values(), ids=ENDS_A_KEY)
def test_a_key_ends_at_once(made: dict[str, str], table: Any, values: dict[str, Any]) -> None:
    assert identity.caller_of(made["api_key"]) is not None
    with platform() as db:
        db.execute(update(table).values(**values))
    assert identity.remembered(made["api_key"]) is None
    assert identity.caller_of(made["api_key"]) is None


@pytest.mark.parametrize(("table", "values"), ENDS_A_TOKEN.values(), ids=ENDS_A_TOKEN)
def test_a_token_ends_at_once(token: str, table: Any, values: dict[str, Any]) -> None:
    assert identity.caller_of(token) is not None
    with platform() as db:
        for row in db.query(table):
            for name, value in values.items():
                setattr(row, name, value)
    assert identity.remembered(token) is None
    assert identity.caller_of(token) is None


def test_a_token_serves_its_own_user_alone(made: dict[str, str], token: str) -> None:
    device = tokens.read_access_token(token)
    assert device is not None
    other = make_tenant("Tenant B", "other@example.com", "correct horse battery")
    for user, tenant in (
        (other["user_id"], other["tenant_id"]),
        (made["user_id"], other["tenant_id"]),
        (other["user_id"], made["tenant_id"]),
    ):
        assert identity.caller_of(tokens.make_access_token(user, tenant, device.sign_in_id)) is None


@pytest.mark.parametrize(
    "values",
    [
        {"status": "cancelled"},
        {"period_end": now() - timedelta(seconds=1)},
        {"period_start": now() + timedelta(days=1)},
        {"capabilities": []},
    ],
)
def test_capabilities_end_with_the_subscription(made: dict[str, str], values: dict[str, Any]) -> None:
    with platform() as db:
        db.execute(update(Subscription).values(**values))
    caller = identity.caller_of(made["api_key"])
    assert caller is not None
    assert caller.capabilities == frozenset()


def test_a_key_never_has_more_than_its_makers_role(made: dict[str, str]) -> None:
    with platform() as db:
        db.execute(update(User).values(role="viewer"))
    caller = identity.caller_of(made["api_key"])
    assert caller is not None
    assert "personas:write" not in caller.scopes
    assert "personas:read" in caller.scopes


def test_what_was_read_before_a_change_is_not_remembered_after_it(
    made: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that is committed while another thread still holds the old answer in its hands."""

    def read_and_dawdle(*asked: Any) -> Any:
        found = look(*asked)
        with platform() as db:
            db.execute(update(ApiKey).values(revoked_at=now()))
        return found

    monkeypatch.setattr(identity, "look", read_and_dawdle)
    assert identity.caller_of(made["api_key"]) is not None
    assert identity.remembered(made["api_key"]) is None

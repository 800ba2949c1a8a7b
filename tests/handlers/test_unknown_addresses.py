"""The same work is done for an address that has an account and for one that has none.

Counted, not timed: the statements and hashes before the answer. ``python -m tests.benchmarks addresses``
measures the time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from argon2 import PasswordHasher
from sqlalchemy import event, func, select

from handlers import accounts, sign_in
from handlers.problems import Problem
from handlers.requests import Exchange
from models.letters import Letter, LetterKind
from models.tenancy import Role, Tenant, User
from models.work import Job
from storage import accounts as stored
from storage import database, secrets
from storage.database import platform
from storage.settings import settings
from tests.servers import PASSWORD

KNOWN, UNKNOWN = "ada@example.com", "nobody@example.com"


@dataclass
class Visitor:
    """Where a request comes from."""

    client: str = "192.0.2.1"


FROM = cast(Exchange, Visitor())


@dataclass
class Work:
    """What a thread did: statements, and hashes that were held against a password."""

    statements: list[str] = field(default_factory=list)
    hashes: int = 0


REACHED = Work(["SELECT 1"])
"""To know that the database is there, which tells nothing of anybody."""


@pytest.fixture
def people(migrated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A company with somebody who signs in, somebody switched off and somebody invited."""
    monkeypatch.setenv("BOOGA_OPEN_REGISTRATION", "true")
    settings.cache_clear()
    hashed = secrets.hash_password(PASSWORD)
    with platform() as db:
        of = {"tenant_id": db.put(Tenant(name="Company")).id, "role": Role.MEMBER}
        db.put(User(**of, email=KNOWN, password_hash=hashed))
        db.put(User(**of, email="off@example.com", password_hash=hashed, is_active=False))
        db.put(User(**of, email="invited@example.com"))
    secrets.password_fits(PASSWORD, None)  # makes the hash that nobody's password fits, once in a process


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    """Counts what this thread does; everything is still done."""
    work, here, verify = Work(), threading.get_ident(), PasswordHasher.verify

    def count(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if threading.get_ident() == here and statement != "BEGIN":  # SQLite is told so by a statement
            work.statements.append(statement)

    def counted(self: PasswordHasher, hash: str | bytes, password: str | bytes) -> Any:
        work.hashes += 1
        return verify(self, hash, password)

    event.listen(database.engine(), "before_cursor_execute", count)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(PasswordHasher, "verify", counted)
            yield work
    finally:
        event.remove(database.engine(), "before_cursor_execute", count)


def refused(email: str, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A sign-in with a wrong password."""
    with watched(monkeypatch) as work, pytest.raises(Problem) as problem:
        sign_in._verified(email, "not the right password", None, "192.0.2.1")
    assert (problem.value.code, problem.value.detail) == (
        "unauthorized",
        "The address or the password is wrong.",
    )
    return work


@pytest.mark.parametrize("email", [KNOWN, "off@example.com", "invited@example.com"])
def test_a_sign_in_costs_one_hash_and_the_same_statements(
    email: str, people: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = refused(UNKNOWN, monkeypatch)
    assert unknown.hashes == 1
    assert unknown.statements
    assert refused(email, monkeypatch) == unknown


def done_afterwards() -> None:
    """Wait until the one thread that works behind answers has done what it was given."""
    stored._later.submit(lambda: None).result()


def letters() -> list[str]:
    with platform(writes=False) as db:
        found = list(db.scalars(select(Letter.kind).order_by(Letter.created_at)))
        assert db.scalar(select(func.count()).where(Job.kind == stored.MAIL)) == len(found)
        return found


def test_a_wish_for_a_new_password_is_answered_before_anything_is_looked_up(
    people: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for email in (KNOWN, UNKNOWN, "invited@example.com", "off@example.com"):
        with watched(monkeypatch) as work:
            assert accounts.request_reset({"email": email}, FROM) == (None, 202)
        assert work == REACHED, "before the answer"
    done_afterwards()
    assert letters() == [LetterKind.RESET, LetterKind.INVITATION], "by jobs, for those who have an account"


def test_a_registration_is_answered_before_anything_is_looked_up(
    people: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for email in (KNOWN, UNKNOWN):
        with watched(monkeypatch) as work:
            body = {"email": email, "tenant": "Another", "name": "Ada"}
            assert accounts.register(body, FROM) == (None, 202)
        assert work == REACHED, "before the answer"
    done_afterwards()
    assert letters() == [LetterKind.KNOWN, LetterKind.REGISTRATION]

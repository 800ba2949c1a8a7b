"""Transactions that see one tenant, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError, StatementError

from models.access import ApiKey
from models.errors import NotFound, Stale
from models.tenancy import Organization, Tenant, User
from storage.database import Session, current, platform, reading, transaction


@dataclass(frozen=True)
class Of:
    tenant_id: str


@pytest.fixture
def tenants(migrated: None) -> tuple[Of, Of]:
    """Two tenants, each with an organization called Treasury."""
    found = []
    for name in ("A", "B"):
        with platform() as db:
            tenant = db.put(Tenant(name=name))
        with transaction(Of(tenant.id)) as db:
            db.put(Organization(name="Treasury"))
        found.append(Of(tenant.id))
    return found[0], found[1]


def _ids(of: Of) -> list[str]:
    with reading(of) as db:
        return list(db.scalars(select(Organization.id).order_by(Organization.id)))


class TestOneTenant:
    def test_what_is_put_belongs_to_it(self, tenants: tuple[Of, Of]) -> None:
        with transaction(tenants[0]) as db:
            assert db.put(Organization(name="New")).tenant_id == tenants[0].tenant_id

    def test_another_tenants_row_cannot_be_put(self, tenants: tuple[Of, Of]) -> None:
        with pytest.raises(RuntimeError, match="another tenant"), transaction(tenants[0]) as db:
            db.put(Organization(name="New", tenant_id=tenants[1].tenant_id))
        assert len(_ids(tenants[1])) == 1

    def test_selecting_finds_its_own(self, tenants: tuple[Of, Of]) -> None:
        with reading(tenants[0]) as db:
            assert db.scalar(select(func.count()).select_from(Organization)) == 1
            assert [row.tenant_id for row in db.scalars(select(Organization))] == [tenants[0].tenant_id]
            assert [*db.scalars(select(Organization.tenant_id))] == [tenants[0].tenant_id]
            inner = select(Organization.id)
            assert db.scalar(select(func.count()).where(Organization.id.in_(inner))) == 1

    def test_an_id_of_another_is_not_found(self, tenants: tuple[Of, Of]) -> None:
        (foreign,) = _ids(tenants[1])
        with reading(tenants[0]) as db, pytest.raises(NotFound):
            db.require(Organization, foreign)
        with transaction(tenants[0]) as db, pytest.raises(NotFound):
            db.require(Organization, foreign, lock=True)

    def test_it_is_told_which_field_of_a_body_named_it(self, tenants: tuple[Of, Of]) -> None:
        with reading(tenants[0]) as db, pytest.raises(NotFound) as told:
            db.require(Organization, _none(), pointer="/organization_id")
        assert told.value.pointer == "/organization_id"

    def test_changing_all_changes_its_own(self, tenants: tuple[Of, Of]) -> None:
        with transaction(tenants[0]) as db:
            db.execute(update(Organization).values(name="Renamed"))
        with platform(writes=False) as db:
            names = {row.tenant_id: row.name for row in db.scalars(select(Organization))}
        assert names == {tenants[0].tenant_id: "Renamed", tenants[1].tenant_id: "Treasury"}

    def test_deleting_all_deletes_its_own(self, tenants: tuple[Of, Of]) -> None:
        with transaction(tenants[0]) as db:
            db.execute(delete(Organization))
        assert (_ids(tenants[0]), len(_ids(tenants[1]))) == ([], 1)

    def test_no_row_can_point_into_another_tenant(self, tenants: tuple[Of, Of]) -> None:
        with transaction(tenants[1]) as db:
            foreign = db.put(User(email="b@example.com")).id
        with pytest.raises(IntegrityError), transaction(tenants[0]) as db:
            db.put(ApiKey(user_id=foreign, name="n", prefix="p", key_hash="h", scopes=[]))

    def test_the_platform_sees_all(self, tenants: tuple[Of, Of]) -> None:
        with platform(writes=False) as db:
            assert db.scalar(select(func.count()).select_from(Organization)) == 2


def _none() -> str:
    return "01934c5e-7d2a-7c3b-9a44-5f1d2b6c8e90"


class TestUnits:
    def test_a_failure_leaves_nothing(self, tenants: tuple[Of, Of]) -> None:
        def fails() -> None:
            with transaction(tenants[0]) as db:
                db.put(Organization(name="Half"))
                raise LookupError

        pytest.raises(LookupError, fails)
        assert len(_ids(tenants[0])) == 1
        assert current() is None

    def test_a_nested_one_joins(self, tenants: tuple[Of, Of]) -> None:
        def fails() -> None:
            with transaction(tenants[0]) as outer:
                with transaction(tenants[0]) as inner:
                    inner.put(Organization(name="Inner"))
                assert outer is inner is current()
                raise LookupError

        pytest.raises(LookupError, fails)
        assert len(_ids(tenants[0])) == 1

    @pytest.mark.parametrize("kind", [transaction, reading])
    def test_another_tenants_cannot_join(
        self, tenants: tuple[Of, Of], kind: Callable[[Of], AbstractContextManager[Session]]
    ) -> None:
        def crosses() -> None:
            with transaction(tenants[0]), kind(tenants[1]):
                pass

        with pytest.raises(RuntimeError, match="another's"):
            crosses()

    def test_a_reader_sees_one_state(self, tenants: tuple[Of, Of]) -> None:
        with reading(tenants[0]) as db:
            before = db.scalar(select(func.count()).select_from(Organization))
            with ThreadPoolExecutor(1) as pool:
                pool.submit(_add, tenants[0], "Meanwhile").result()
            assert db.scalar(select(func.count()).select_from(Organization)) == before
        assert len(_ids(tenants[0])) == 2

    def test_writers_wait_for_each_other(self, tenants: tuple[Of, Of]) -> None:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: _add(tenants[0], f"Number {n}"), range(100)))
        assert len(_ids(tenants[0])) == 101

    def test_locked_counting_loses_nothing(self, tenants: tuple[Of, Of]) -> None:
        (id,) = _ids(tenants[0])

        def one_more(_: int) -> None:
            with transaction(tenants[0]) as db:
                row = db.require(Organization, id, lock=True)
                row.name = f"{row.name}+"

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one_more, range(40)))
        with reading(tenants[0]) as db:
            assert db.require(Organization, id).name == "Treasury" + "+" * 40

    def test_of_two_serializable_writers_one_is_stale(self, tenants: tuple[Of, Of], backend: Any) -> None:
        (id,) = _ids(tenants[0])
        both = Barrier(2, timeout=20)

        def rename(name: str) -> str:
            try:
                with transaction(tenants[0], serializable=True) as db:
                    seen = db.require(Organization, id).name
                    if backend.name == "postgresql":
                        both.wait()  # both have read before either writes; SQLite lets only one begin
                    if seen != "Treasury":
                        raise Stale("Somebody was first.")
                    db.require(Organization, id).name = name
            except Stale:
                return "stale"
            return "written"

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(rename, ("one", "two"))) == ["stale", "written"]

    def test_answers(self, migrated: None) -> None:
        with platform(writes=False) as db:
            db.execute(select(1))


def _add(of: Of, name: str) -> None:
    with transaction(of) as db:
        db.put(Organization(name=name))


class TestValues:
    @pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=9))])
    def test_an_instant_comes_back_as_it_went(self, tenants: tuple[Of, Of], zone: timezone) -> None:
        at = datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=zone)
        with transaction(tenants[0]) as db:
            id = db.put(Organization(name="Timed", created_at=at)).id
        with reading(tenants[0]) as db:
            found = db.require(Organization, id).created_at
        assert (found, found.tzinfo) == (at, UTC)

    def test_an_instant_without_a_zone_is_refused(self, tenants: tuple[Of, Of]) -> None:
        naive = datetime(2026, 1, 1)
        with pytest.raises(StatementError, match="time zone"), transaction(tenants[0]) as db:
            db.put(Organization(name="Naive", created_at=naive))

    def test_any_script_comes_back_as_it_went(self, tenants: tuple[Of, Of]) -> None:
        name = "Ω – 財務部 – 🏦 – e\u0301 – '; DROP TABLE users; --"
        with transaction(tenants[0]) as db:
            id = db.put(Organization(name=name)).id
        with reading(tenants[0]) as db:
            assert db.require(Organization, id).name == name

    def test_a_list_comes_back_as_it_went(self, tenants: tuple[Of, Of]) -> None:
        with transaction(tenants[0]) as db:
            user = db.put(User(email="a@example.com"))
            db.put(ApiKey(user_id=user.id, name="n", prefix="p", key_hash="h", scopes=["é", "b"]))
        with reading(tenants[0]) as db:
            assert db.scalars(select(ApiKey)).one().scopes == ["é", "b"]

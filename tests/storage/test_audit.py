"""How long entries of the audit log are kept, and how they are found."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from handlers.replies import after, cursor_of
from models.access import Caller
from models.audit import AuditEntry
from models.base import new_id, now
from models.tenancy import Tenant
from storage import audit
from storage.database import platform, transaction
from storage.settings import settings
from tests import scale


def written() -> dict[str, timedelta]:
    """Entries of two tenants and of none, by id, with the age of each."""
    ages = {}
    with platform() as db:
        tenants = [db.put(Tenant(name=name)).id for name in ("A", "B")]
        for tenant_id in (None, *tenants):
            for days in (0, 29, 31, 400):
                at = now() - timedelta(days=days)
                about = {"actor_kind": "system", "action": "update", "object_type": "test"}
                row = db.put(AuditEntry(tenant_id=tenant_id, created_at=at, **about))
                ages[row.id] = timedelta(days=days)
    return ages


def kept(ages: dict[str, timedelta]) -> set[timedelta]:
    with platform(writes=False) as db:
        return {ages[id] for id in db.scalars(select(AuditEntry.id).where(AuditEntry.id.in_(ages)))}


def test_entries_are_kept_for_ever_unless_the_host_sets_a_time(
    migrated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = written()
    assert audit.prune() == 0
    assert kept(ages) == set(ages.values())
    monkeypatch.setenv("BOOGA_AUDIT_RETENTION_DAYS", "30")
    monkeypatch.setattr(audit, "_AT_ONCE", 1)
    settings.cache_clear()
    assert audit.prune() == 6
    assert kept(ages) == {timedelta(0), timedelta(days=29)}
    assert audit.prune() == 0


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # PostgreSQL plans by what is in the tables
def test_each_filter_and_any_page_is_answered_by_an_index(migrated: None) -> None:
    owner = new_id()
    newest = (AuditEntry.created_at.desc(), AuditEntry.id.desc())
    page = select(AuditEntry).order_by(*newest).limit(20)
    behind = after((AuditEntry.created_at, AuditEntry.id), cursor_of(now(), new_id()), down=True)
    asked = {
        "in_order": page,
        "in_order (tenant_id=? AND (created_at,id)<(?,?))": page.where(behind),
        "of_actor": page.where(AuditEntry.actor_id == owner),
        "of_kind": page.where(AuditEntry.actor_kind == "system"),
        "of_action": page.where(AuditEntry.action == "refused"),
        "of_type": page.where(AuditEntry.object_type == "user"),
    }
    for name, query in asked.items():
        with transaction(Caller(owner, owner, "owner", frozenset(), frozenset())) as db:
            with scale.statements() as sent:
                db.scalars(query).all()
            (line,) = scale.plan(db, *sent[0])  # one: nothing is sorted
        assert f"audit_entries_{name}" in line

"""How long entries of the audit log are kept."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from models.audit import AuditEntry
from models.base import now
from models.tenancy import Tenant
from storage import audit
from storage.database import platform
from storage.settings import settings


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

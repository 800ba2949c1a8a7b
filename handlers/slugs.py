"""Slugs that are chosen among all of a tenant's rows of one kind."""

from __future__ import annotations

from itertools import count
from typing import Any

from sqlalchemy import select

from handlers.auth import caller
from models.bots import Bot
from models.errors import Conflict
from models.personas import LONGEST_SLUG, Persona, slug_of
from models.tenancy import Tenant
from storage.database import Session


def one_at_a_time(db: Session) -> None:
    """Wait for others of this tenant who write what has to be unlike all others."""
    db.get(Tenant, caller().tenant_id, with_for_update={"key_share": True})


def free_slug(db: Session, kind: type[Bot] | type[Persona], body: dict[str, Any]) -> str:
    """The slug that was asked for, if none of that kind has it; else one made of the name, numbered where
    taken. Raises ``Conflict`` where it was asked for and is taken.
    """
    wanted: str = body.get("slug") or slug_of(body["name"])
    stem = wanted[: LONGEST_SLUG - 6].rstrip("-")
    taken = set(db.scalars(select(kind.slug).where(kind.slug.startswith(stem, autoescape=True))))
    if wanted not in taken:
        return wanted
    if "slug" in body:
        raise Conflict("The slug is taken.", pointer="/slug")
    return next(slug for slug in (f"{stem}-{number}" for number in count(2)) if slug not in taken)

"""Alembic's entry: runs revisions over the application's own engine, one process at a time."""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import text

from models.base import Base, Instant
from storage.database import engine, tables

LOCK = 7_262_110
tables()  # so that the metadata knows all of them


def render(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Write our column types as plain ones, so that a revision does not change when the application does."""
    if isinstance(item, Instant):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, sa.Uuid):
        return "sa.Uuid(as_uuid=False)"
    if isinstance(item, sa.JSON):
        autogen.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")'
    return False


with engine().connect() as connection:
    if connection.dialect.name == "sqlite":
        # A table that is made anew (batch mode) must not take along the rows that refer to it. Before the
        # transaction begins, since SQLite looks at it only there; the connection is thrown away afterwards.
        connection.connection.execute("PRAGMA foreign_keys=OFF")
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, render_item=render
    )
    context.run_migrations()
    connection.commit()
    if connection.dialect.name == "sqlite":
        connection.invalidate()

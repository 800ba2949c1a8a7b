"""The schema's history (Alembic) and the step that brings a database up to date.

Alembic takes longer to load than most commands to run, so it is asked only where there is something to do.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Select, String, column, inspect, select, table

from storage.database import engine
from storage.migrations import statistics

_HERE = Path(__file__).parent
_VERSION: Select[str] = select(column("version_num", String)).select_from(table("alembic_version"))


def upgrade() -> str:
    """Bring the schema to the newest revision; its id. Several processes may call it at once."""
    if present() != head():
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_HERE))
        config.set_main_option("path_separator", "os")
        command.upgrade(config, "head")
    with engine().begin() as connection:
        statistics.tell(connection)
    return head()


def head() -> str:
    """The newest revision that this code knows: revisions are numbered, and files named by their number."""
    return max(path.name for path in (_HERE / "versions").glob("[0-9]*.py")).partition("_")[0]


def present() -> str | None:
    """The revision that the database is at."""
    with engine().connect().execution_options(writes=False) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.scalar(_VERSION)

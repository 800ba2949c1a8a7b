"""The schema's history (Alembic) and the step that brings a database up to date."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from storage.database import engine


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def upgrade() -> str:
    """Bring the schema to the newest revision; its id. Several processes may call it at once."""
    command.upgrade(_config(), "head")
    return head()


def head() -> str:
    """The newest revision that this code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def present() -> str | None:
    """The revision that the database is at."""
    with engine().connect().execution_options(writes=False) as connection:
        return MigrationContext.configure(connection).get_current_revision()

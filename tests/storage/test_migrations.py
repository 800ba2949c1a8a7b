"""The schema that the revisions make is the one that the models describe."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from models.base import Base
from storage import database, migrations


def test_the_revisions_make_what_the_models_describe(migrated: None) -> None:
    database.tables()
    with database.engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_second_run_changes_nothing(migrated: None) -> None:
    assert migrations.present() == migrations.head() == migrations.upgrade()


def test_the_newest_file_holds_the_newest_revision() -> None:
    """By its name alone a command sees whether there is anything to do."""
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head() == migrations.head()

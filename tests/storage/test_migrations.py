"""The schema that the revisions make is the one that the models describe."""

from __future__ import annotations

import importlib
import pkgutil

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import models
from models.base import Base
from storage import migrations
from storage.database import engine


def test_the_revisions_make_what_the_models_describe(migrated: None) -> None:
    for module in pkgutil.walk_packages(models.__path__, "models."):
        importlib.import_module(module.name)
    with engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_second_run_changes_nothing(migrated: None) -> None:
    assert migrations.present() == migrations.head() == migrations.upgrade()

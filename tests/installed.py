"""An installation in this very process, for tests below HTTP: import the fixtures that you use."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete as remove
from sqlalchemy import func, select, update

from handlers.jobs import KINDS
from models.base import now
from models.knowledge.library import Document, KnowledgeIndex
from models.tenancy import Tenant
from models.work import Job, JobStatus
from storage import database, files, library, migrations, queue, vectors
from storage.database import platform, reading, transaction
from storage.parsing import MEDIA_TYPES
from storage.queue import Kind, Runner
from storage.settings import settings
from tests.backends import Backend, lay

PATIENCE = 60.0


@dataclass(frozen=True)
class Of:
    """Whose rows are meant."""

    tenant_id: str


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the embedder keeps its graph, which takes seconds to write: once for all tests."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def installation(backend: Backend, graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process itself with a database of its own, shared by the tests of a module."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("DATABASE_URL", "SECRET_KEY", "CHROMA_URL", "REDIS_URL", "WORKERS"):
            environment.delenv(f"BOOGA_{name}", raising=False)
        data_dir = tmp_path_factory.mktemp("data")
        if backend.name == "sqlite":
            lay(data_dir)
        given = {"BOOGA_DATA_DIR": str(data_dir), **backend.fresh()}
        for name, value in given.items():
            environment.setenv(name, value)
        _forget()
        (settings().data_dir / "cache").symlink_to(graphs)
        migrations.upgrade()
        yield
        vectors.close()
        database.engine().dispose()
    _forget()


def _forget() -> None:
    for remembered in (settings, database.engine):
        remembered.cache_clear()


@pytest.fixture
def of(installation: None) -> Of:
    """A new tenant; no job is left of earlier tests."""
    with platform() as db:
        db.execute(remove(Job))
    return new_tenant("A")


@pytest.fixture
def index(of: Of) -> str:
    """An index of that tenant."""
    return new_index(of, "Filings")


@pytest.fixture
def working(of: Of) -> Iterator[None]:
    """Jobs are done while the test runs."""
    with runner():
        yield


@pytest.fixture
def chroma_away(of: Of) -> Iterator[Callable[[], None]]:
    """Chroma does not answer until the returned function is called."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BOOGA_CHROMA_URL", "http://127.0.0.1:1")
        settings.cache_clear()

        def back() -> None:
            environment.undo()
            settings.cache_clear()

        yield back
    settings.cache_clear()


@contextmanager
def runner(kinds: dict[str, Kind] | None = None) -> Iterator[Runner]:
    """Jobs are done meanwhile."""
    made = Runner(kinds or KINDS)
    made.start()
    try:
        yield made
    finally:
        made.stop(PATIENCE)


def new_tenant(name: str) -> Of:
    """Another tenant."""
    with platform() as db:
        return Of(db.put(Tenant(name=name)).id)


def new_index(of: Of, name: str) -> str:
    """Another index of a tenant."""
    with transaction(of) as db:
        return db.put(KnowledgeIndex(name=name)).id


def add(of: Of, index_id: str, name: str, content: bytes | str, **more: Any) -> str:
    """Upload a file into an index; its id."""
    data = content.encode() if isinstance(content, str) else content
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]
    with files.receiving(of, io.BytesIO(data)) as incoming, transaction(of) as db:
        document, _ = library.add_document(
            db, incoming, name=name, media_type=media_type, index_id=index_id, **more
        )
        return document.id


def found(of: Of, document_id: str) -> Document:
    """The document as SQL knows it."""
    with reading(of) as db:
        return db.require(Document, document_id)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread or process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)  # others have to get on


def idle() -> bool:
    """Whether no job is left to be done."""
    with platform(writes=False) as db:
        return not db.scalar(select(func.count()).select_from(Job).where(Job.status != JobStatus.DEAD))


def make_due() -> None:
    """Let the waiting between two tries be over."""
    with platform() as db:
        db.execute(update(Job).values(due_at=now()))
    queue._wake(None)


def settled(of: Of, *document_ids: str) -> None:
    """Wait until nothing more is going to happen, and these documents have ended well or badly."""
    until(idle)
    assert {found(of, id).status for id in document_ids} <= {"ready", "failed"}

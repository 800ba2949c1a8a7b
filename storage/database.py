"""Transactions that see one tenant, on SQLite and PostgreSQL alike.

One owner of commit: whoever opens the outermost ``transaction`` in a context. A ``transaction`` inside
another joins it, so that a guard (``If-Match``, ``Idempotency-Key``) and the handler that it guards are one
unit.
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Any, Protocol, TypeVar

import orjson
from sqlalchemy import Engine, Row, Select, Table, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import LoaderCriteriaOption, ORMExecuteState, UOWTransaction, with_loader_criteria
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.pool import QueuePool

import models
from models.base import Base, TenantOwned
from models.errors import NotFound, Stale
from storage.settings import settings

THREADS = 24
"""Threads that run handlers, and so the most connections that one process holds (and a few for background
work).
"""
OVERFLOW = 8
KEPT_OPEN = 4
"""Connections to PostgreSQL that a process keeps while it has no use for them."""

E = TypeVar("E", bound=Base)


class OfTenant(Protocol):
    """Anything that says whose rows may be seen."""

    @property
    def tenant_id(self) -> str:
        """The tenant's id."""


class Everyone:
    """In place of a tenant: operators' lists go over all of them."""

    tenant_id = None


EVERYONE = Everyone()


class Session(OrmSession):
    """A session bound to one tenant, or to none (``tenant_id`` None) for the platform's own work."""

    tenant_id: str | None = None
    writes: bool = True
    """Whether what it is told to change is kept."""

    def require(
        self,
        entity: type[E],
        id: str | None,
        *,
        pointer: str | None = None,
        parameter: str | None = None,
        lock: bool = False,
    ) -> E:
        """The row with that id, in this tenant; else ``NotFound``, with the place that named it: the body's
        ``pointer`` or the query's ``parameter``.
        """
        # Only the row itself: PostgreSQL cannot lock what an outer join may not find.
        locking = {"of": entity} if lock else None
        found = self.get(entity, id, with_for_update=locking) if id is not None else None
        if found is None:
            raise NotFound(pointer=pointer, parameter=parameter)
        return found

    def put(self, row: E) -> E:
        """Add a row and send it to the database, so that its defaults are known and its rules were asked."""
        self.add(row)
        self.flush()
        return row


@event.listens_for(Session, "do_orm_execute")
def _see_one_tenant(state: ORMExecuteState) -> None:
    session = state.session
    tenant_id = session.tenant_id if isinstance(session, Session) else None
    if tenant_id is None or state.is_column_load or state.is_relationship_load:
        return
    if state.is_select or state.is_update or state.is_delete:
        state.statement = state.statement.options(_only(tenant_id))


@lru_cache(maxsize=1000)
def _only(tenant_id: str) -> LoaderCriteriaOption:
    """The condition on every statement of a tenant; to make it anew costs as much as a small query."""
    return with_loader_criteria(
        TenantOwned, lambda entity: entity.tenant_id == tenant_id, include_aliases=True
    )


@event.listens_for(Session, "before_flush")
def _write_one_tenant(session: OrmSession, context: UOWTransaction, instances: Any) -> None:
    tenant_id = session.tenant_id if isinstance(session, Session) else None
    if tenant_id is None:
        return
    for row in session.new:
        if isinstance(row, TenantOwned):
            if row.tenant_id is None:
                row.tenant_id = tenant_id
            elif row.tenant_id != tenant_id:
                raise RuntimeError(f"{type(row).__name__} of another tenant in a tenant's transaction")


_sqlite_writer = threading.Lock()
"""SQLite takes one writer. Waiting here is fair and immediate; waiting in its busy handler is neither."""


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "busy_timeout=20000",
            "foreign_keys=ON",
            "secure_delete=ON",
            "cache_size=-16000",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        kind = connection.get_execution_options()
        if kind.get("writes", True):
            raw = connection.connection.dbapi_connection
            raw.execute(f"PRAGMA synchronous={'NORMAL' if kind.get('followed') else 'FULL'}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif not kind.get("alone"):
            connection.exec_driver_sql("BEGIN")


@cache
def engine() -> Engine:
    """The process's connections to SQL."""
    from storage import audit  # noqa: F401 - so that no process writes without its hook; it imports this module

    url = make_url(settings().database_url)
    options: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": THREADS,
        "max_overflow": OVERFLOW,
        "pool_timeout": 30,
        "hide_parameters": True,
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
    }
    if url.get_backend_name() == "sqlite":
        made = create_engine(url, connect_args={"check_same_thread": False, "timeout": 20}, **options)
        _prepare_sqlite(made)
        return made
    # A server of PostgreSQL has a hundred connections for everybody: those of a burst are given back.
    options |= {"pool_size": KEPT_OPEN, "max_overflow": THREADS + OVERFLOW - KEPT_OPEN}
    return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 5}, **options)


def tables() -> list[Table]:
    """All tables, those first that others refer to."""
    for module in pkgutil.walk_packages(models.__path__, "models."):
        importlib.import_module(module.name)
    return Base.metadata.sorted_tables


@lru_cache(maxsize=16)
def _for(bind: Engine, writes: bool, isolation: str | None, followed: bool) -> Engine:
    """The same connections, for one kind of transaction."""
    options: dict[str, Any] = {"writes": writes, "followed": followed}
    if isolation and bind.dialect.name != "sqlite":
        options["isolation_level"] = isolation
    return bind.execution_options(**options)


@lru_cache(maxsize=16)
def _alone(bind: Engine) -> Engine:
    """The same connections, for statements that need no transaction around them."""
    if bind.dialect.name == "sqlite":
        return bind.execution_options(writes=False, alone=True)
    return bind.execution_options(isolation_level="AUTOCOMMIT")


def look(query: Select[Any], values: dict[str, Any]) -> list[Row[Any]]:
    """The rows of one query over all tenants, without the cost of a transaction around it."""
    with _alone(engine()).connect() as connection:
        return list(connection.execute(query, values))


_open: ContextVar[Session | None] = ContextVar("open_transaction", default=None)


def current() -> Session | None:
    """The transaction that is open in this context, if any."""
    return _open.get()


@contextmanager
def _begin(
    tenant_id: str | None, *, writes: bool, isolation: str | None, followed: bool = False
) -> Iterator[Session]:
    outer = _open.get()
    if outer is not None:
        if outer.tenant_id != tenant_id:
            raise RuntimeError("a transaction of one tenant inside another's")
        yield outer
        outer.flush()
        return
    bind = engine()
    locked = writes and bind.dialect.name == "sqlite"
    if locked:
        _sqlite_writer.acquire()
    try:
        session = Session(_for(bind, writes, isolation, followed), expire_on_commit=False, autoflush=writes)
        session.tenant_id, session.writes = tenant_id, writes
        token = _open.set(session)
        try:
            yield session
            session.commit()
        except DBAPIError as fault:
            session.rollback()
            if getattr(fault.orig, "sqlstate", None) == "40001":
                raise Stale("The resource was changed at the same time. Read it again.") from fault
            raise
        except BaseException:
            session.rollback()
            raise
        finally:
            _open.reset(token)
            session.close()
    finally:
        if locked:
            _sqlite_writer.release()


@contextmanager
def transaction(of: OfTenant, *, serializable: bool = False, followed: bool = False) -> Iterator[Session]:
    """A unit of work that may write. ``serializable``: concurrent changes of what it read make it
    ``Stale``. ``followed``: another commit of this process follows within a second, and whatever ends the
    process loses neither; should the machine lose its power before, both are lost. SQLite then does not wait
    for the disk here, which all other writers would wait for, too.
    """
    isolation = "SERIALIZABLE" if serializable else None
    with _begin(of.tenant_id, writes=True, isolation=isolation, followed=followed) as session:
        yield session


@contextmanager
def reading(of: OfTenant | Everyone) -> Iterator[Session]:
    """A consistent view that does not write."""
    with _begin(of.tenant_id, writes=False, isolation="REPEATABLE READ") as session:
        yield session


@contextmanager
def apart(of: OfTenant) -> Iterator[Session]:
    """A unit of work that is kept whatever becomes of the reading around it.

    Never inside a transaction that writes: SQLite would wait for itself.
    """
    token = _open.set(None)
    try:
        with _begin(of.tenant_id, writes=True, isolation=None) as session:
            yield session
    finally:
        _open.reset(token)


@contextmanager
def platform(*, writes: bool = True) -> Iterator[Session]:
    """A unit of work over all tenants: sign-in, jobs, sweeping, commands. Never for what a caller asked for
    by id.
    """
    with _begin(None, writes=writes, isolation=None) as session:
        yield session

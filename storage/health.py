"""How the parts are that the server stands on: each looked at apart, at most once a second, never for long.

A part is ``ok``, ``degraded`` (it serves, with less) or ``down``. Without a part that it needs the server had
better get no requests; without another it serves with less.
"""

from __future__ import annotations

import asyncio
import enum
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

import httpx
from sqlalchemy import Connection, func, select

from models.base import now
from models.work import Job, JobStatus
from storage import migrations, throttle, tokens, vectors
from storage.database import engine
from storage.embeddings import Unavailable
from storage.settings import settings

PATIENCE = 2.0
"""Seconds to wait for a part; one that takes longer counts as down."""
REMEMBERED_SECONDS = 1.0
PROVIDER_REMEMBERED_SECONDS = 30.0
LITTLE_SPACE, NO_SPACE = 1 << 30, 64 << 20
"""Bytes free on disk below which it is degraded, and down."""
LONG_QUEUE_SECONDS = 300


class Status(enum.StrEnum):
    """How a part is, best first."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Part:
    """One part: how it is, in words too, after how many milliseconds, and whether the server needs it."""

    name: str
    status: Status
    detail: str
    latency_ms: float = 0.0
    needed: bool = True


def overall(parts: list[Part]) -> Status:
    """How the whole is: down without a part that it needs, degraded while any part is not well."""
    if any(part.needed for part in down(parts)):
        return Status.DOWN
    return Status.OK if all(part.status is Status.OK for part in parts) else Status.DEGRADED


def down(parts: list[Part]) -> list[Part]:
    """Those that do not work."""
    return [part for part in parts if part.status is Status.DOWN]


Finding = tuple[Status, str]


def _reading() -> Connection:
    return engine().connect().execution_options(writes=False)


def _database() -> Finding:
    with _reading() as connection:
        connection.execute(select(1))
        return Status.OK, "SQLite" if connection.dialect.name == "sqlite" else "PostgreSQL"


@cache
def _head() -> str:
    return migrations.head()


def _migrations() -> Finding:
    present = migrations.present()
    if present == _head():
        return Status.OK, f"at revision {present}"
    return Status.DOWN, f"at revision {present or 'none'}, not {_head()}: run `booga migrate`"


def _secrets() -> Finding:
    return Status.OK, f"signing keys: {len(tokens.jwks()['keys'])}"


def _vector_store() -> Finding:
    found = vectors.health()
    if found.ok:
        return Status.OK, f"{found.mode} Chroma" + ("" if found.loaded else ", not needed yet")
    # An embedded one that another process holds: search goes by keywords here meanwhile.
    status = Status.DOWN if found.loaded else Status.DEGRADED
    return status, f"{found.mode} Chroma: {found.detail or 'no answer'}"


def _embeddings() -> Finding:
    found = vectors.embedder()
    if isinstance(found, Unavailable):
        return Status.DEGRADED, re.sub(r"/(?:[^\s/]+/)+", "", found.reason)  # names of files, not of folders
    return Status.OK, found.name


def _provider() -> Finding:
    if not settings().has_openai:
        return Status.OK, "extractive"
    headers = {"Authorization": f"Bearer {settings().openai_api_key or 'none'}"}
    url = (settings().openai_base_url or "https://api.openai.com/v1") + "/models"
    try:
        status = httpx.get(url, headers=headers, timeout=PATIENCE - 0.5).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as fault:
        return Status.DEGRADED, f"openai: no answer ({type(fault).__name__})"
    # A server that lists no models may chat all the same.
    refused = status in (401, 403) or status >= 500
    return (Status.DEGRADED, f"openai: answers {status}") if refused else (Status.OK, "openai")


def _disk() -> Finding:
    free = shutil.disk_usage(settings().data_dir).free
    told = f"{free / (1 << 30):.1f} GiB free"
    if free < NO_SPACE:
        return Status.DOWN, told
    return (Status.DEGRADED if free < LITTLE_SPACE else Status.OK), told


def _jobs() -> Finding:
    due = select(func.count(), func.min(Job.due_at)).where(
        Job.status == JobStatus.QUEUED, Job.due_at <= now()
    )
    with _reading() as connection:
        waiting, since = connection.execute(due).one()
    if not waiting:
        return Status.OK, "none waits"
    seconds = max(0, round((now() - since).total_seconds()))
    status = Status.DEGRADED if seconds > LONG_QUEUE_SECONDS else Status.OK
    return status, f"{waiting} wait, the longest for {seconds} s"


def _redis() -> Finding:
    return (Status.OK, "Redis") if throttle.is_reachable() else (Status.DOWN, "Redis: no answer")


_threads = ThreadPoolExecutor(10, thread_name_prefix="health")


@dataclass(slots=True)
class Probe:
    """Looks at one part, in a thread of its own; asked again meanwhile, it waits for the same look."""

    name: str
    look: Callable[[], Finding]
    remembered: float = REMEMBERED_SECONDS
    needed: bool = True
    _looking: Future[Part] | None = field(default=None, init=False)
    _known: tuple[float, Part] | None = field(default=None, init=False)

    async def ask(self) -> Part:
        """How the part is, from now or from a moment ago."""
        if self._known is not None and time.monotonic() - self._known[0] < self.remembered:
            return self._known[1]
        if self._looking is None or self._looking.done():
            self._looking = _threads.submit(self._examine)
        answer = asyncio.shield(asyncio.wrap_future(self._looking))
        try:
            part = await asyncio.wait_for(answer, PATIENCE)
        except TimeoutError:
            return Part(
                self.name, Status.DOWN, f"no answer within {PATIENCE:.0f} s", PATIENCE * 1000, self.needed
            )
        self._known = time.monotonic(), part
        return part

    def _examine(self) -> Part:
        began = time.perf_counter()
        try:
            status, detail = self.look()
        except Exception as fault:  # whatever it is, the part does not work; the kind says enough in public
            status, detail = Status.DOWN, f"no answer ({type(fault).__name__})"
        took = round((time.perf_counter() - began) * 1000, 2)
        return Part(self.name, status, detail[:300], took, self.needed)


_PROBES = (
    Probe("database", _database),
    Probe("migrations", _migrations),
    Probe("secrets", _secrets),
    Probe("vector_store", _vector_store, needed=False),
    Probe("embeddings", _embeddings),
    Probe("provider", _provider, PROVIDER_REMEMBERED_SECONDS),
    Probe("disk", _disk),
    Probe("jobs", _jobs),
)
_REDIS = Probe("redis", _redis, needed=False)


async def parts() -> list[Part]:
    """Every part of this installation, Redis only where it is configured."""
    probes = _PROBES + ((_REDIS,) if settings().redis_url else ())
    return list(await asyncio.gather(*(probe.ask() for probe in probes)))

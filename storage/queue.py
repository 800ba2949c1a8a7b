"""Jobs: work that is promised in a transaction and done after it, by whichever process is free.

The table is the truth: a job is there exactly when the transaction that asked for it committed. A job is
run at least once, so that what it does must bear being done again. Who holds a job renews its lease; a
lease that ends makes the job anybody's again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from weakref import WeakSet

import structlog
from sqlalchemy import and_, event, or_, select, update
from sqlalchemy import delete as remove
from sqlalchemy.dialects import postgresql, sqlite

from models.base import new_id, now
from models.errors import Conflict, Unavailable
from models.work import JOB_ATTEMPTS, JOB_LEASE, Job, JobStatus, backoff
from storage import files
from storage.database import Session, platform
from storage.settings import settings

POLL_SECONDS = 1.0
"""How soon a job is noticed that another process asked for. Our own are noticed at once."""

_RENEWAL_SECONDS = JOB_LEASE.total_seconds() / 4
_ERROR_LENGTH = 1000
_INSERTS: Mapping[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_log = structlog.get_logger()
R = TypeVar("R")
_waiting: WeakSet[threading.Event] = WeakSet()


class Released(Exception):
    """The job is to be left as it is: the process ends, or somebody else holds it now."""


@dataclass(slots=True)
class Work:
    """One job in hand. It is of its tenant, so that transactions can be opened with it."""

    id: str
    tenant_id: str
    subject_id: str
    details: Mapping[str, Any]
    attempt: int
    _worker: str
    _stopping: threading.Event
    _lost: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        """Raise `Released` when the job should be let go. To be asked between steps."""
        if self._stopping.is_set() or self._lost.is_set():
            raise Released


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of job does.

    ``run`` may raise `Unavailable`: a part is away, and the job is tried again for as long as it takes.
    Any other exception counts as an attempt; after the last one ``bury`` tells the subject. ``lane``
    names the thread that runs it, so that slow kinds do not keep quick ones waiting.
    """

    run: Callable[[Work], None]
    bury: Callable[[Work], None]
    lane: str = "quick"


def enqueue(
    db: Session,
    kind: str,
    subject_id: str,
    *,
    tenant_id: str | None = None,
    details: Mapping[str, Any] | None = None,
    priority: int = 5,
) -> None:
    """Promise a job with the caller's transaction. Asked for again, a job begins anew, also one that is
    running.
    """
    at = now()
    fresh = {
        "details": dict(details or {}),
        "priority": priority,
        "status": JobStatus.QUEUED,
        "attempts": 0,
        "postponed": 0,
        "due_at": at,
        "lease_until": None,
        "worker": None,
        "error": None,
        "updated_at": at,
    }
    owner = tenant_id or db.tenant_id
    insert = _INSERTS[db.get_bind().dialect.name](Job).values(
        id=new_id(), tenant_id=owner, kind=kind, subject_id=subject_id, created_at=at, **fresh
    )
    db.flush()
    db.execute(
        insert.on_conflict_do_update(
            index_elements=[Job.kind, Job.subject_id], set_=fresh, where=Job.tenant_id == owner
        )
    )
    event.listen(db, "after_commit", _wake, once=True)


def cancel(db: Session, kind: str, subject_id: str) -> None:
    """Take a promise back; who has the job in hand notices within seconds, or when its subject is gone."""
    db.execute(remove(Job).where(Job.kind == kind, Job.subject_id == subject_id))


def _wake(session: object) -> None:
    for waiting in list(_waiting):
        waiting.set()


def _described(fault: BaseException) -> str:
    """Which fault, and where. Never its words: those of a database quote what was to be written."""
    frames = traceback.extract_tb(fault.__traceback__)[-4:]
    at = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(fault).__name__} at {at}"[:_ERROR_LENGTH]


class Runner:
    """Runs jobs in threads of this process, one for each lane.

    Where everything is embedded, one process alone may run jobs; its lock also tells that a job which is
    marked as running is nobody's, so that work goes on at once after a crash.
    """

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds
        self._name = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        self._held: dict[str, Work] = {}
        self._threads: list[threading.Thread] = []
        self._lock: BinaryIO | None = None

    def start(self, *, patient: bool = True) -> None:
        """Begin; returns at once. Where another process runs the jobs, wait for its end, or raise
        `Conflict`.
        """
        if not patient and not settings().chroma_url and not self._alone():
            raise Conflict(f"Another process runs the jobs of {settings().data_dir}. Stop it first.")
        lanes = sorted({kind.lane for kind in self._kinds.values()})
        main = threading.Thread(target=self._begin, args=(lanes,), name="jobs", daemon=True)
        self._threads.append(main)
        main.start()

    def stop(self, timeout: float) -> None:
        """End within ``timeout`` seconds: what is in hand is finished, or let go for the next runner."""
        self._stopping.set()
        _wake(self)
        deadline = time.monotonic() + timeout
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._held:
            self._let_go(list(self._held.values()))
        if self._lock is not None:
            self._lock.close()

    def _begin(self, lanes: list[str]) -> None:
        if not settings().chroma_url:
            told = False
            while self._lock is None and not self._alone():
                if not told:
                    _log.warning("jobs_wait_for_other_process", folder=str(settings().data_dir))
                    told = True
                if self._stopping.wait(POLL_SECONDS):
                    return
            if settings().is_sqlite:
                self._take_over()
        for lane in lanes:
            kinds = [name for name, kind in self._kinds.items() if kind.lane == lane]
            self._threads.append(
                threading.Thread(target=self._serve, args=(kinds,), name=f"jobs-{lane}", daemon=True)
            )
            self._threads[-1].start()
        while not self._stopping.wait(_RENEWAL_SECONDS):
            self._guarded(self._renew)

    def _alone(self) -> bool:
        """Whether this process holds the data folder's lock; the system frees it when its holder dies."""
        file = (settings().data_dir / "jobs.lock").open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._lock = file
        return True

    def _take_over(self) -> None:
        with platform() as db:
            db.execute(
                update(Job)
                .where(Job.status == JobStatus.RUNNING)
                .values(status=JobStatus.QUEUED, lease_until=None, worker=None)
            )

    def _serve(self, kinds: Collection[str]) -> None:
        woken = threading.Event()
        _waiting.add(woken)
        while not self._stopping.is_set():
            woken.clear()
            claimed = self._guarded(self._claim, kinds)
            if claimed is None:
                woken.wait(POLL_SECONDS)
            else:
                self._guarded(self._do, *claimed)

    def _guarded(self, step: Callable[..., R], *with_: Any) -> R | None:
        """A step whose faults (the database is away, say) must not end the thread."""
        try:
            return step(*with_)
        except Exception as fault:  # whatever it is, the next round may go better
            _log.error("jobs_fault", fault=_described(fault))
            self._stopping.wait(POLL_SECONDS)
            return None

    def _claim(self, kinds: Collection[str]) -> tuple[Work, str] | None:
        at = now()
        due = (
            select(Job)
            .where(
                Job.kind.in_(kinds),
                or_(
                    and_(Job.status == JobStatus.QUEUED, Job.due_at <= at),
                    and_(Job.status == JobStatus.RUNNING, Job.lease_until < at),
                ),
            )
            .order_by(Job.priority, Job.due_at)
            .limit(1)
        )
        with platform(writes=False) as db:
            if db.scalar(due.with_only_columns(Job.id)) is None:
                return None
        with platform() as db:
            job = db.scalar(due.with_for_update(skip_locked=True))
            if job is None:
                return None
            job.status, job.worker = JobStatus.RUNNING, self._name
            job.lease_until = at + JOB_LEASE
            job.attempts += 1
            work = Work(
                job.id,
                job.tenant_id,
                job.subject_id,
                dict(job.details),
                job.attempts,
                self._name,
                self._stopping,
            )
            kind = job.kind
        self._held[work.id] = work
        return work, kind

    def _do(self, work: Work, name: str) -> None:
        kind = self._kinds[name]
        try:
            if work.attempt > JOB_ATTEMPTS:
                # It never came back from its last attempts: it ends whoever runs it.
                self._bury(work, kind, "the process that ran it ended each time")
                return
            kind.run(work)
            self._settle(work, None)
        except Released:
            self._let_go([work])
        except Unavailable as fault:
            self._postpone(work, fault.detail)
        except Exception as fault:  # a job's fault, whatever it is, is told in its row and in the log
            if files.is_full(fault):
                self._postpone(work, "The server's disk is full.")
                return
            told = _described(fault)
            _log.error("job_failed", kind=name, subject_id=work.subject_id, attempt=work.attempt, fault=told)
            if work.attempt >= JOB_ATTEMPTS:
                self._bury(work, kind, told)
            else:
                self._settle(
                    work, {"status": JobStatus.QUEUED, "due_at": now() + backoff(work.attempt), "error": told}
                )
        finally:
            self._held.pop(work.id, None)

    def _bury(self, work: Work, kind: Kind, told: str) -> None:
        kind.bury(work)
        self._settle(work, {"status": JobStatus.DEAD, "error": told})

    def _settle(self, work: Work, values: dict[str, Any] | None) -> None:
        """Write what became of a job that is still ours; None: it is done."""
        ours = (Job.id == work.id, Job.worker == self._name)
        with platform() as db:
            if values is None:
                db.execute(remove(Job).where(*ours))
            else:
                db.execute(update(Job).where(*ours).values(worker=None, lease_until=None, **values))

    def _postpone(self, work: Work, told: str) -> None:
        with platform() as db:
            job = db.scalar(select(Job).where(Job.id == work.id, Job.worker == self._name))
            if job is None:
                return
            job.postponed += 1
            job.attempts -= 1
            job.status, job.worker, job.lease_until = JobStatus.QUEUED, None, None
            job.due_at, job.error = now() + backoff(job.postponed), told[:_ERROR_LENGTH]

    def _let_go(self, works: list[Work]) -> None:
        with platform() as db:
            db.execute(
                update(Job)
                .where(Job.id.in_([work.id for work in works]), Job.worker == self._name)
                .values(
                    status=JobStatus.QUEUED,
                    worker=None,
                    lease_until=None,
                    attempts=Job.attempts - 1,
                )
            )

    def _renew(self) -> None:
        held = dict(self._held)
        if not held:
            return
        with platform() as db:
            ours = (Job.id.in_(held), Job.worker == self._name, Job.status == JobStatus.RUNNING)
            db.execute(update(Job).where(*ours).values(lease_until=now() + JOB_LEASE))
            still = set(db.scalars(select(Job.id).where(*ours)))
        for id, work in held.items():
            if id not in still:
                work._lost.set()

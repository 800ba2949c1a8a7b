"""Chroma as the rest of the product sees it: calls with time limits, and one kind of fault."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from models.errors import Unavailable
from models.knowledge.ranking import VectorHit
from storage.embeddings import Vectors
from storage.settings import settings

SEARCH_SECONDS = 2.0
"""What a question waits for its vectors before it is answered without them."""
START_SECONDS = 5.0
"""The same for the first question of a process, while Chroma is being loaded."""
WRITE_SECONDS = 60.0
PAUSE_SECONDS = 2.0
"""For how long searches do without vectors after one failed, so that not every question waits in vain."""

_SESSIONS = "sessions"
_MOST_DOCUMENTS = 1000
_LEAVE_SECONDS = 3.0
_AGAIN_SECONDS = 1.0
_LOST = "its process ended and is being started again"
_ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from storage.vectors.child import main; main()"


class VectorsUnavailable(Unavailable):
    """Chroma does not answer just now."""


@dataclass(frozen=True, slots=True)
class Health:
    """How Chroma is; ``loaded`` tells whether an embedded one was needed yet."""

    ok: bool
    mode: str
    loaded: bool
    latency_ms: float | None = None
    detail: str | None = None


def collection(tenant_id: str, index_id: str | None, embedder_name: str) -> str:
    """Where an index keeps its vectors by this embedder; None: where a tenant's session files do."""
    return prefix(tenant_id, index_id) + hashlib.sha256(embedder_name.encode()).hexdigest()[:12]


def prefix(tenant_id: str, index_id: str | None) -> str:
    """What the names of an index's collections begin with, whatever the embedder."""
    return f"{tenant_id}.{index_id or _SESSIONS}."


def upsert(to: str, document_id: str, positions: Sequence[int], vectors: Vectors) -> None:
    """Keep one vector for each position; those that are there are replaced."""
    if len(positions):
        request = {"collection": to, "document_id": document_id, "positions": list(positions)}
        _chroma().ask("upsert", request, vectors, WRITE_SECONDS)


def nearest(within: Mapping[str, Sequence[str] | None], vector: Vectors, limit: int) -> list[VectorHit]:
    """The passages whose vectors lie nearest, best first, at most ``limit``.

    ``within`` names the collections, each with the ids of the documents that may be found there (None: all).
    """
    chroma = _chroma()
    chroma.check()
    asked: list[tuple[str, list[str] | None]] = []
    for name, ids in within.items():
        if ids is None:
            asked.append((name, None))
        else:
            asked += [
                (name, list(ids[at : at + _MOST_DOCUMENTS])) for at in range(0, len(ids), _MOST_DOCUMENTS)
            ]
    if not asked:
        return []
    try:
        found = chroma.ask("nearest", {"within": asked, "limit": limit}, vector, SEARCH_SECONDS)
    except VectorsUnavailable:
        chroma.pause()
        raise
    hits: list[VectorHit] = []
    for id, distance in found:
        document_id, _, position = id.rpartition(":")
        hits.append(VectorHit(document_id, int(position), 1.0 - distance))
    return hits


def remove(of: str, document_id: str) -> int:
    """Forget a document's vectors; how many there were."""
    request = {"collection": of, "document_id": document_id}
    return int(_chroma().ask("remove", request, None, WRITE_SECONDS))


def drop(tenant_id: str, index_id: str | None) -> int:
    """Forget all vectors of an index; how many there were."""
    return int(_chroma().ask("drop", {"prefix": prefix(tenant_id, index_id)}, None, WRITE_SECONDS))


def drop_all(tenant_id: str) -> int:
    """Forget all vectors of a tenant; how many there were."""
    return int(_chroma().ask("drop", {"prefix": f"{tenant_id}."}, None, WRITE_SECONDS))


def count(of: str) -> int:
    """How many vectors a collection holds; 0 where there is none."""
    return int(_chroma().ask("count", {"collection": of}, None, WRITE_SECONDS))


def holdings() -> dict[str, dict[str, int]]:
    """For each collection how many vectors of each document it holds: what ``verify`` compares."""
    held: dict[str, dict[str, int]] = _chroma().ask("holdings", {}, None, WRITE_SECONDS)
    return held


def prepare() -> None:
    """Begin to load Chroma, so that the first question need not wait for it; returns at once."""
    _chroma().start()


def health() -> Health:
    """Whether Chroma answers. Does not load an embedded one that nothing needed yet."""
    url = settings().chroma_url
    begun = time.perf_counter()
    if url:
        try:
            httpx.get(f"{url}/api/v2/heartbeat", timeout=1.0).raise_for_status()
        except httpx.HTTPError as fault:
            return Health(False, "server", True, detail=f"no answer ({type(fault).__name__})")
        return Health(True, "server", True, _milliseconds(begun))
    chroma = _chroma()
    if chroma.is_lost():
        return Health(False, "embedded", True, detail=_LOST)
    if not chroma.is_running:
        return _unloaded(settings().data_dir)
    try:
        chroma.ask("beat", {}, None, SEARCH_SECONDS)
    except VectorsUnavailable as fault:
        return Health(False, "embedded", True, detail=fault.detail)
    return Health(True, "embedded", True, _milliseconds(begun))


def close() -> None:
    """End Chroma's process, if this one has one."""
    with _making:
        for chroma in _made.values():
            chroma.close()
        _made.clear()


def _milliseconds(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 2)


def _unloaded(data_dir: Path) -> Health:
    with (data_dir / "chroma.lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Health(
                False, "embedded", False, detail="another process of this data folder holds the vectors"
            )
    return Health(True, "embedded", False)


class _Chroma:
    """The child process that holds Chroma, started when it is needed and by itself again when it died."""

    def __init__(self, url: str | None, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._pending: dict[int, tuple[float, Future[dict[str, Any]]]] = {}
        self._answered = threading.Event()
        self._paused_until = 0.0
        self._lost = False

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def is_lost(self) -> bool:
        """Whether the process died and the next one does not work yet."""
        with self._lock:
            if self._process is not None and not self.is_running:
                self._lose()
            return self._lost

    def check(self) -> None:
        """Raise while searches should do without."""
        if self.is_lost():
            raise VectorsUnavailable(f"The vector store is away: {_LOST}.")
        if time.monotonic() < self._paused_until:
            raise VectorsUnavailable("The vector store did not answer a moment ago.")

    def pause(self) -> None:
        """Let searches do without for a while."""
        self._paused_until = time.monotonic() + PAUSE_SECONDS

    def start(self) -> Connection:
        """Have the process, and a connection to it. It loads Chroma by itself."""
        with self._lock:
            if self._connection is not None and self.is_running:
                return self._connection
            if self._process is not None:
                self._lose()
            ours, theirs = socket.socketpair()
            with theirs:
                arguments = [str(theirs.fileno()), self._url or "", str(self._folder)]
                self._answered.clear()
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    [sys.executable, "-I", "-c", _START, _ROOT, *arguments],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={"MALLOC_ARENA_MAX": "2"},
                    start_new_session=True,
                )
            self._connection = Connection(ours.detach())
            threading.Thread(target=self._read, args=(self._connection,), name="vectors", daemon=True).start()
            return self._connection

    def ask(self, what: str, request: dict[str, Any], vectors: Vectors | None, seconds: float) -> Any:
        """Have something done within ``seconds``, more while it starts, or raise `VectorsUnavailable`."""
        connection = self.start()
        waiting: Future[dict[str, Any]] = Future()
        number = next(self._numbers)
        payload = b"" if vectors is None else np.ascontiguousarray(vectors, "<f4").tobytes()
        frame = json.dumps({"id": number, "do": what, **request}).encode() + b"\n" + payload
        try:
            with self._lock:
                self._pending[number] = time.monotonic(), waiting
                connection.send_bytes(frame)
            answer = waiting.result(seconds if self._answered.is_set() else max(seconds, START_SECONDS))
        except Late:
            self._end_when_stuck()
            raise VectorsUnavailable(f"The vector store did not answer within {seconds:g} seconds.") from None
        except OSError as fault:
            raise VectorsUnavailable("The vector store's process has ended.") from fault
        finally:
            self._pending.pop(number, None)
        if "fault" in answer:
            raise VectorsUnavailable(f"The vector store failed ({answer['fault']}).")
        return answer["result"]

    def close(self) -> None:
        """End the process, in order if it can."""
        with self._lock:
            process, connection = self._process, self._connection
            self._process = self._connection = None
            self._lost = False
        if process is None or connection is None:
            return
        # Closing alone would not wake the thread that reads.
        with socket.socket(fileno=connection.fileno()) as end:
            end.shutdown(socket.SHUT_RDWR)
            end.detach()
        try:
            process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _read(self, connection: Connection) -> None:
        with connection:
            while True:
                try:
                    answer = json.loads(connection.recv_bytes())
                except (EOFError, OSError):
                    break
                self._answered.set()
                if "fault" not in answer:
                    self._lost = False
                _, waiting = self._pending.get(answer["id"], (0.0, None))
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        with self._lock:
            if self._connection is connection and self._process is not None:
                self._connection = None
                self._process.wait()  # it has closed its end, so that it is ending
                self._lose()
        for _, waiting in list(self._pending.values()):
            if not waiting.done():
                waiting.set_result({"fault": "its process ended"})

    def _lose(self) -> None:
        """The process died (the lock is held): see to it that another one works."""
        if not self._lost:
            self._lost = True
            threading.Thread(target=self._revive, name="vectors again", daemon=True).start()

    def _revive(self) -> None:
        while self._lost:
            try:
                self.ask("beat", {}, None, START_SECONDS)
            except VectorsUnavailable:
                time.sleep(_AGAIN_SECONDS)  # so that one that cannot start is not started without end

    def _end_when_stuck(self) -> None:
        """Kill a process that was silent for longer than any call may take; Chroma bears it."""
        oldest = min((asked for asked, _ in list(self._pending.values())), default=time.monotonic())
        if self._process is not None and time.monotonic() - oldest >= WRITE_SECONDS:
            self._process.kill()


_making = threading.Lock()
_made: dict[tuple[str | None, Path], _Chroma] = {}


def _chroma() -> _Chroma:
    place = settings().chroma_url, settings().data_dir / "chroma"
    with _making:
        if place not in _made:
            _made[place] = _Chroma(*place)
        return _made[place]

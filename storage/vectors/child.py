"""The process that holds Chroma, and so is the only one that touches an embedded Chroma's folder.

Chroma keeps Python's global lock while it writes (40 ms for a batch, seconds for a deletion that has a
backlog), offers no time limits of its own, and two processes on one folder lose vectors without an
error. In a process of its own none of that reaches a reader of a stream.

It serves one parent over a socket, and ends when the parent does. A request is a frame of one JSON line
and the bytes of its vectors (float32, little-endian); an answer is JSON with the request's number, and a
result or a fault.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_THREADS = 4
_MANY = 4
_OWNER_LEAVES_WITHIN = 10.0
_PAGE = 500
# What Chroma does not yet have in its index file it adds again, slowly, at the next deletion: keep it short.
_HNSW = {"space": "cosine", "batch_size": 64, "sync_threshold": 64}


def main() -> None:
    """Answer requests until the parent closes its end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the parent may still need us while it drains
    os.umask(0o077)
    connection = Connection(int(sys.argv[1]))
    store = _Store(url=sys.argv[2] or None, folder=Path(sys.argv[3]))
    sending, receiving = threading.Lock(), threading.Lock()

    def answer(frame: bytes) -> None:
        head, _, payload = frame.partition(b"\n")
        request = json.loads(head)
        reply: dict[str, Any] = {"id": request.pop("id")}
        try:
            reply["result"] = store.serve(request.pop("do"), request, payload)
        except BaseException as fault:  # a panic of Chroma's native part is no Exception
            reply["fault"] = f"{type(fault).__name__}: {fault}"[:500]
        with sending:
            connection.send_bytes(json.dumps(reply).encode())

    def work() -> None:
        # Who takes a request answers it: handing it on to another thread takes as long as a small search.
        while True:
            with receiving:
                try:
                    frame = connection.recv_bytes()
                except (EOFError, OSError):
                    return
            answer(frame)

    with ThreadPoolExecutor(_THREADS) as pool:
        pool.submit(store.open)
        for _ in range(_THREADS):
            pool.submit(work)


class _Store:
    """Chroma, opened at its first use and again after it was away."""

    def __init__(self, url: str | None, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._opening = threading.Lock()
        self._client: Any = None
        self._owned: Any = None
        self._known: dict[str, Any] = {}
        self._beside = ThreadPoolExecutor(_THREADS, thread_name_prefix="collections")

    def serve(self, what: str, request: dict[str, Any], payload: bytes) -> Any:
        """Do what a request names."""
        self.open()
        acts: dict[str, Callable[..., Any]] = {
            "beat": self._client.heartbeat,
            "upsert": self._upsert,
            "nearest": self._nearest,
            "remove": self._remove,
            "drop": self._drop,
            "count": self._count,
            "holdings": self._holdings,
        }
        return acts[what](**request, payload=payload) if payload else acts[what](**request)

    def open(self) -> None:
        """Have Chroma ready; raises when it is away, or another process owns its folder."""
        with self._opening:
            if self._client is not None:
                return
            if self._url is None:
                self._own()
            import chromadb
            from chromadb.config import Settings

            quiet = Settings(anonymized_telemetry=False)
            if self._url is None:
                self._client = chromadb.PersistentClient(self._folder, settings=quiet)
            else:
                at = urlsplit(self._url)
                secure = at.scheme == "https"
                self._client = chromadb.HttpClient(
                    host=at.hostname or "",
                    port=at.port or (443 if secure else 80),
                    ssl=secure,
                    settings=quiet,
                )

    def _own(self) -> None:
        """Wait for the last owner's end: a process that was killed leaves one behind for a moment."""
        if self._owned is not None:
            return
        file = self._folder.with_suffix(".lock").open("wb")
        deadline = time.monotonic() + _OWNER_LEAVES_WITHIN
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.close()
                    raise RuntimeError("another process of this data folder holds the vectors") from None
                time.sleep(0.05)  # the system tells nobody that a lock came free
            else:
                self._owned = file
                return

    def _collection(self, name: str) -> Any:
        """The collection of that name, or None."""
        import chromadb.errors

        if name not in self._known:
            try:
                self._known[name] = self._client.get_collection(name, embedding_function=None)
            except (chromadb.errors.NotFoundError, ValueError):
                return None
        return self._known[name]

    def _with(self, name: str, act: Callable[[Any], Any], otherwise: Any) -> Any:
        """``act`` on a collection that may have been dropped by another process since it was looked up."""
        import chromadb.errors

        for _ in range(2):
            found = self._collection(name)
            if found is None:
                return otherwise
            try:
                return act(found)
            except chromadb.errors.NotFoundError:
                self._known.pop(name, None)
        return otherwise

    def _upsert(self, collection: str, document_id: str, positions: list[int], payload: bytes) -> None:
        import numpy as np

        vectors = np.frombuffer(payload, "<f4").reshape(len(positions), -1)
        ids = [f"{document_id}:{position}" for position in positions]
        about = [{"document_id": document_id}] * len(ids)
        if self._collection(collection) is None:
            self._known[collection] = self._client.get_or_create_collection(
                collection, configuration={"hnsw": _HNSW}, embedding_function=None
            )
        gone = object()
        if (
            self._with(collection, lambda to: to.upsert(ids=ids, embeddings=vectors, metadatas=about), gone)
            is gone
        ):
            raise RuntimeError("the collection was dropped meanwhile")

    def _nearest(
        self, within: list[tuple[str, list[str] | None]], limit: int, payload: bytes
    ) -> list[tuple[str, float]]:
        import numpy as np

        asked = np.frombuffer(payload, "<f4")[np.newaxis, :]

        def search(place: tuple[str, list[str] | None]) -> Any:
            name, document_ids = place
            where = None if document_ids is None else {"document_id": {"$in": document_ids}}
            return self._with(name, partial(_query, asked=asked, limit=limit, where=where), None)

        # Of many collections several at once: a server is a journey away, and has more than one core.
        answers = map(search, within) if len(within) < _MANY else self._beside.map(search, within)
        found: list[tuple[str, float]] = []
        for answer in answers:
            if answer is not None:
                found += zip(answer["ids"][0], answer["distances"][0], strict=True)
        return sorted(found, key=lambda hit: hit[1])[:limit]

    def _remove(self, collection: str, document_id: str) -> int:
        answer = self._with(collection, lambda of: of.delete(where={"document_id": document_id}), None)
        return int(answer["deleted"]) if answer else 0

    def _drop(self, prefix: str) -> int:
        dropped = 0
        for name in [name for name in self._names() if name.startswith(prefix)]:
            dropped += self._count(name)
            self._client.delete_collection(name)
            self._known.pop(name, None)
        return dropped

    def _count(self, collection: str) -> int:
        return int(self._with(collection, lambda of: of.count(), 0))

    def _holdings(self) -> dict[str, dict[str, int]]:
        """How many vectors of each document each collection holds."""
        held: dict[str, dict[str, int]] = {}
        for name in self._names():
            counts: dict[str, int] = {}
            for ids in self._ids(name):
                for id in ids:
                    document_id = id.rpartition(":")[0]
                    counts[document_id] = counts.get(document_id, 0) + 1
            held[name] = counts
        return held

    def _ids(self, name: str) -> Iterator[list[str]]:
        at = 0
        while True:
            ids: list[str] = self._with(name, partial(_page_of_ids, at=at), [])
            yield ids
            if len(ids) < _PAGE:
                return
            at += _PAGE

    def _names(self) -> list[str]:
        names: list[str] = []
        while True:
            page = self._client.list_collections(limit=_PAGE, offset=len(names))
            names += [found.name for found in page]
            if len(page) < _PAGE:
                return names


def _query(of: Any, asked: Any, limit: int, where: dict[str, Any] | None) -> Any:
    return of.query(query_embeddings=asked, n_results=limit, where=where, include=["distances"])


def _page_of_ids(of: Any, at: int) -> Any:
    return of.get(limit=_PAGE, offset=at, include=[])["ids"]

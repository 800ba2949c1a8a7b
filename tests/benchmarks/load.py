"""A client as light as it gets, in a process of its own: prepared bytes out, times and bytes back.

It shares its core with the fake provider and must not be what is measured: no HTTP library, no parsing while
the clock runs.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self, cast
from urllib.parse import urlsplit

import orjson
import uvloop

from tests.benchmarks import machine

LONGEST = 120
"""Seconds that a job may take; more is a fault."""


@dataclass(slots=True)
class Step:
    """A request, as the bytes to send. ``{id}`` in it stands for the ``id`` of the answer before.

    ``first``: what the first packet holds that counts as the first token.
    """

    request: str
    first: str = ""


@dataclass(slots=True)
class Slot:
    """A client with a connection of its own: it starts ``at`` seconds, and takes its steps one by one."""

    steps: Sequence[Step]
    at: float = 0.0


@dataclass(slots=True)
class Answer:
    """What came of a step. Seconds are since the slot began; status 0 is a broken connection."""

    status: int
    began: float
    first: float | None
    ended: float
    body: str


@dataclass(slots=True)
class Outcome:
    """All slots' answers, in order, and the seconds from the first start to the last end."""

    seconds: float
    slots: list[list[Answer]] = field(default_factory=list)

    @property
    def answers(self) -> list[Answer]:
        """The answers of all slots."""
        return [answer for slot in self.slots for answer in slot]


def request(method: str, path: str, headers: dict[str, str], body: Any = None) -> str:
    """A request as bytes on the wire."""
    content = b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in headers.items())]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]) + content.decode()


class Load:
    """The client's process."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Self]:
        """Start it beside the server's core; end it."""
        context = multiprocessing.get_context("spawn")
        ours, its = context.Pipe()
        process = context.Process(target=_serve, args=(its,), daemon=True)
        with machine.on(machine.OTHERS):
            process.start()
        its.close()
        try:
            yield cls(ours)
        finally:
            ours.close()
            process.join(10)

    def run(self, url: str, slots: Sequence[Slot]) -> Outcome:
        """Let all slots run to their end."""
        where = urlsplit(url)
        job = {"host": where.hostname, "port": where.port, "slots": [asdict(slot) for slot in slots]}
        self.connection.send_bytes(orjson.dumps(job))
        if not self.connection.poll(LONGEST):
            raise AssertionError(f"{url} did not answer all requests within {LONGEST} s")
        told = orjson.loads(self.connection.recv_bytes())
        return Outcome(told["seconds"], [[Answer(**answer) for answer in slot] for slot in told["slots"]])


# -- the process


class _Client(asyncio.Protocol):
    """One slot at work."""

    def __init__(self, steps: list[dict[str, str]]) -> None:
        self.steps = [(step["request"], step["first"].encode()) for step in steps]
        self.done = asyncio.get_running_loop().create_future()
        self.answers: list[tuple[float, float | None, float, bytes]] = []
        self.began = time.monotonic()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.next()

    def next(self) -> None:
        assert self.transport is not None
        if len(self.answers) == len(self.steps):
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        text, self.marker = self.steps[len(self.answers)]
        if "{id}" in text:
            id = orjson.loads(_split(self.answers[-1][3])[1]).get("id", "none")
            text = text.replace("{id}", id)
        self.parts: list[bytes] = []
        self.missing: int | None = None
        self.head = b""
        self.tail = b""
        self.first: float | None = None
        # The first step's time includes the connection's, as a new client's does.
        self.sent = time.monotonic() if self.answers else self.began
        self.transport.write(text.encode())

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)
        if self.first is None and self.marker and self.marker in b"".join(self.parts[-2:]):
            self.first = time.monotonic()
        if self.missing is None:
            self.head += data
            head, end, rest = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            self.missing = _length(head)
            data = rest
        if self.missing >= 0:
            self.missing -= len(data)
            over = self.missing <= 0
        else:
            self.tail = (self.tail + data)[-7:]
            over = self.tail.endswith(b"\r\n0\r\n\r\n")
        if over:
            self.finish()

    def finish(self) -> None:
        at = time.monotonic()
        self.answers.append((self.sent, self.first, at, b"".join(self.parts)))
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.answers.append((self.sent, self.first, time.monotonic(), b""))
            self.done.set_result(None)

    def told(self) -> list[dict[str, Any]]:
        found = []
        for sent, first, ended, raw in self.answers:
            status, body = _split(raw)
            found.append(
                {
                    "status": status,
                    "began": sent - self.began,
                    "first": None if first is None else first - self.began,
                    "ended": ended - self.began,
                    "body": body.decode("utf-8", "replace"),
                }
            )
        return found


def _length(head: bytes) -> int:
    """The body's bytes; -1 when it comes in chunks."""
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
        if name == b"transfer-encoding":
            return -1
    return 0


def _split(raw: bytes) -> tuple[int, bytes]:
    """Status and body."""
    if not raw:
        return 0, b""
    head, _, rest = raw.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if _length(head) >= 0:
        return status, rest
    parts = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        rest = rest[length + 2 :]
    return status, b"".join(parts)


async def _run(job: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.05
    clients: list[_Client | None] = [None] * len(job["slots"])

    async def slot(number: int) -> None:
        told = job["slots"][number]
        await asyncio.sleep(start + told["at"] - loop.time())
        client = clients[number] = _Client(told["steps"])
        await loop.create_connection(lambda: client, job["host"], job["port"])
        await client.done

    await asyncio.gather(*(slot(number) for number in range(len(clients))))
    seconds = loop.time() - start
    return {"seconds": seconds, "slots": [client.told() for client in clients if client is not None]}


def _serve(connection: Connection) -> None:
    """Do the jobs that come, until no more can."""
    while True:
        try:
            job = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(orjson.dumps(uvloop.run(_run(orjson.loads(job)))))

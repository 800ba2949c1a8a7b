"""What the server can stand on in this run: the embedded parts, and services that answer on loopback."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx
import psycopg
import redis

POSTGRESQL = "postgresql://postgres@127.0.0.1:5432"
REDIS = "redis://127.0.0.1:6379"
SECRET = "a secret of the tests that is of no worth anywhere else"
CHROMA_STARTS_WITHIN = 30.0
CLAIM = "booga:tests:claim"

left_out: dict[str, str] = {}
"""Services that this run did without, and why; printed at its end."""


def answers(port: int) -> bool:
    """Whether something listens on this port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def available() -> list[str]:
    """The backends of this run, the embedded default first."""
    if answers(5432):
        return ["sqlite", "postgresql"]
    left_out["PostgreSQL"] = "nothing answers at 127.0.0.1:5432"
    return ["sqlite"]


@dataclass
class Backend:
    """Where a server keeps its data. ``fresh`` makes the environment of one more installation on it."""

    name: str
    services: dict[str, str] = field(default_factory=dict)
    databases: list[str] = field(default_factory=list)
    _template: str = ""
    """The database that others are copies of: to make all tables takes longer than many tests."""

    def fresh(self, *, bare: bool = False) -> dict[str, str]:
        """Settings of an installation with nothing in it yet, but for ``BOOGA_DATA_DIR``.

        PostgreSQL's tables are there, unless it is to be ``bare``; SQLite's come by ``lay``.
        """
        if self.name == "sqlite":
            return {}
        if not bare and not self._template:
            url = self._make("template1")
            _booga_migrate({"BOOGA_DATABASE_URL": url, "BOOGA_SECRET_KEY": SECRET})
            self._template = self.databases[-1]
        url = self._make("template1" if bare else self._template)
        return {"BOOGA_DATABASE_URL": url, "BOOGA_SECRET_KEY": SECRET, **self.services}

    def _make(self, template: str) -> str:
        name = f"booga_test_{secrets.token_hex(6)}"
        with psycopg.connect(f"{POSTGRESQL}/postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self.databases.append(name)
        return f"{POSTGRESQL}/{name}"

    def drop(self) -> None:
        """Remove every database that ``fresh`` made."""

        def remove(name: str) -> None:
            with psycopg.connect(f"{POSTGRESQL}/postgres", autocommit=True) as connection:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

        # Each waits for a checkpoint, and many at once wait for the same one.
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(remove, self.databases))


def _booga_migrate(given: dict[str, str]) -> bytes:
    """What the host's command makes of an empty database; the file where that is SQLite."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOOGA_", "OPENAI_"))}
    program = Path(sys.executable).parent / "booga"
    with tempfile.TemporaryDirectory(prefix="booga-schema-") as folder:
        environment = {**kept, **given, "BOOGA_DATA_DIR": folder}
        subprocess.run([program, "migrate"], env=environment, check=True, capture_output=True)  # noqa: S603 - our own program
        file = Path(folder) / "booga.db"
        return file.read_bytes() if file.exists() else b""


@cache
def _embedded() -> bytes:
    return _booga_migrate({})


def lay(data_dir: Path) -> None:
    """Put a file of SQLite there that has all tables, and nothing in them."""
    data_dir.mkdir(mode=0o700, exist_ok=True)
    (data_dir / "booga.db").write_bytes(_embedded())


@contextmanager
def backend(name: str) -> Iterator[Backend]:
    """The backend of that name with every service that can join it, cleared away afterwards."""
    with ExitStack() as stack:
        made = Backend(name)
        if name == "postgresql":
            stack.callback(made.drop)
            made.services |= stack.enter_context(_redis())
            made.services |= stack.enter_context(_chroma())
        yield made


@contextmanager
def _redis() -> Iterator[dict[str, str]]:
    """A database of Redis that is empty and nobody's, emptied again afterwards."""
    if not answers(6379):
        left_out["Redis"] = "nothing answers at 127.0.0.1:6379"
        yield {}
        return
    for number in range(15, 0, -1):
        with redis.Redis.from_url(f"{REDIS}/{number}") as client:
            # The claim falls by itself when a run is killed before it can clear up.
            if client.dbsize() or not client.set(CLAIM, "1", nx=True, ex=3600):
                continue
            try:
                yield {"BOOGA_REDIS_URL": f"{REDIS}/{number}"}
            finally:
                client.flushdb()
            return
    left_out["Redis"] = "all its databases are in use"
    yield {}


@contextmanager
def _chroma() -> Iterator[dict[str, str]]:
    """A Chroma server of our own, so that more workers than one can be tested."""
    folder = Path(tempfile.mkdtemp(prefix="booga-chroma-"))
    port = free_port()
    process = chroma_run(folder, port)
    url = f"http://127.0.0.1:{port}"
    try:
        if _beats(url, process):
            yield {"BOOGA_CHROMA_URL": url, "BOOGA_WORKERS": "2"}
        else:
            left_out["Chroma server"] = f"`chroma run` did not answer: {(folder / 'chroma.log').read_text()}"
            yield {}
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def chroma_run(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """`chroma run` with its data and its log in that folder; it is still starting."""
    program = Path(sys.executable).parent / "chroma"
    with (folder / "chroma.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - a program of the install, our own arguments
            [program, "run", "--path", folder / "data", "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            cwd=folder,
        )


def _beats(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + CHROMA_STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            # It has no TLS, and what httpx would read for it takes longer than the answer.
            if httpx.get(f"{url}/api/v2/heartbeat", verify=False).is_success:  # noqa: S501 - loopback
                return True
        except httpx.TransportError:
            time.sleep(0.1)  # it is still starting, and says so to nobody
    return False

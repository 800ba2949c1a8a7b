"""What a benchmark runs against: the server as a host runs it, and the fake provider, each on its core."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from storage import database, migrations, vectors
from storage.settings import settings
from tests import servers
from tests.benchmarks import machine
from tests.servers import Server

API = "/api/v1/chat"


@contextmanager
def serving(settings: dict[str, str] | None = None) -> Iterator[Server]:
    """The server with its production settings and the embedded default, and one tenant in it."""
    with (
        tempfile.TemporaryDirectory(prefix="booga-bench-") as folder,
        machine.on(machine.SERVER),  # which everything that the server starts inherits
        servers.running(Path(folder), "sqlite", settings or {}) as server,
        machine.on(machine.OTHERS),
    ):
        yield server


@contextmanager
def in_this_process(given: dict[str, str]) -> Iterator[None]:
    """An empty installation with these settings, for what is measured below HTTP."""
    with tempfile.TemporaryDirectory(prefix="booga-bench-") as folder:
        before = dict(os.environ)
        os.environ.update({"BOOGA_DATA_DIR": str(Path(folder) / "data"), **given})
        _forget()
        try:
            migrations.upgrade()
            yield
        finally:
            vectors.close()
            database.engine().dispose()
            os.environ.clear()
            os.environ.update(before)
            _forget()


def _forget() -> None:
    for remembered in (settings, database.engine):
        remembered.cache_clear()


@contextmanager
def fake_provider() -> Iterator[str]:
    """The fake provider in a process of its own; its base URL."""
    with machine.on(machine.OTHERS):
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "tests.fakes.provider"], stdout=subprocess.PIPE, text=True
        )
    with process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def client_of(server: Server) -> httpx.Client:
    """The owner's client, for what is not measured."""
    return httpx.Client(base_url=server.url, headers={"X-API-Key": server.api_key}, timeout=120)


def default_persona(client: httpx.Client) -> str:
    """The id of the persona that bootstrap made."""
    found: str = client.get(f"{API}/personas").json()["results"][0]["id"]
    return found

"""The data folder's disk is full, and has room again: clear problems meanwhile, and nothing lost."""

from __future__ import annotations

import io
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import backends
from tests.backends import Backend
from tests.conftest import MakesClient
from tests.events import events
from tests.fakes.provider import FakeProvider
from tests.handlers import knowledge
from tests.handlers.test_bots import picture
from tests.servers import Server, started

CHAT = "/api/v1/chat"
SIZE = "160m"
"""Of the disk: what an installation with its embedding model needs, and as much again."""
WITHIN = 60.0


def _pour(file: io.FileIO, size: int) -> None:
    while True:
        file.write(b"\0" * size)


@dataclass
class Disk:
    """A small file system of its own. ``fill`` leaves not one byte, ``free`` gives all back."""

    folder: Path

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> None:
        """Take all that is left."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with pytest.raises(OSError, match="No space left"):
                    _pour(file, size)

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "booga-test", str(folder)]
    reason = "only root may mount one"
    if os.geteuid() == 0:
        done = subprocess.run(mount, capture_output=True, text=True)  # noqa: S603 - a fixed command
        reason = done.stderr.strip()
        if done.returncode == 0:
            yield Disk(folder)
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607 - likewise
            return
    backends.left_out["A full disk"] = f"a small file system could not be mounted: {reason}"
    pytest.skip(backends.left_out["A full disk"])


@pytest.fixture
def server(disk: Disk, backend: Backend, fake_provider: FakeProvider) -> Iterator[Server]:
    """A server on that disk (with PostgreSQL the files alone are), whose replies can be slow."""
    fake_provider.forget()
    given = {"OPENAI_BASE_URL": fake_provider.base_url, "OPENAI_API_KEY": "sk-test"}
    with started(disk.folder.parent, backend.name, {**backend.fresh(), **given}) as made:
        yield made


def rest(server: Server) -> None:
    """Have SQLite's log written into its file and cut, so that there is no room left in it."""
    if server.backend == "sqlite":
        with closing(sqlite3.connect(server.data_dir / "booga.db", timeout=20)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def refused(answer: httpx.Response) -> bool:
    """Whether the answer says what is wrong, and when to come again."""
    told = answer.json()
    assert answer.status_code == 503, answer.text
    assert (told["error"], answer.headers["Retry-After"]) == ("unavailable", "60")
    return "disk is full" in told["detail"]


def soon(holds: Any) -> bool:
    """Whether something comes true within a minute."""
    deadline = time.monotonic() + WITHIN
    while not (found := holds()) and time.monotonic() < deadline:
        time.sleep(0.1)  # a job or a writer is at work
    return bool(found)


def test_clear_problems_while_it_is_full_and_all_is_well_behind_it(
    disk: Disk, server: Server, connect: MakesClient
) -> None:
    client, anonymous = connect(server.api_key, server), connect(None, server)
    index = knowledge.make(client, "indices")["id"]
    before = knowledge.ready(client, index, b"Said before: the lamp costs 120.", file_name="before.txt")
    session = client.post(f"{CHAT}/sessions", json={}).json()["id"]
    at = f"{CHAT}/sessions/{session}"
    assert client.post(f"{at}/messages", json={"content": "First?"}).status_code == 201
    sign_in = {"email": server.tenant["email"], "password": server.tenant["password"]}
    whole = server.backend == "sqlite"

    rest(server)
    disk.fill()
    big = b"A line that is uploaded while there is no room.\n" * 400
    assert refused(knowledge.upload(client, index, big, file_name="meanwhile.txt"))
    own = {"file": ("own.txt", big, "text/plain")}
    assert refused(client.post(f"{CHAT}/files", data={"session_id": session}, files=own))
    icon = {"file": ("icon.png", picture(), "image/png")}
    assert refused(client.post(f"{CHAT}/bots/icons/upload", files=icon))
    once = {"Idempotency-Key": "the-second-question"}
    asks = [
        ("POST", f"{at}/messages", {"content": "Second?"}, 201, once),
        ("POST", f"{at}/messages/stream", {"content": "Third?"}, 200, {}),
        ("POST", "/api/v1/auth/login", sign_in, 200, {}),
        ("POST", f"{CHAT}/sessions", {}, 201, {}),
    ]
    for method, path, body, status, headers in asks:
        asking = anonymous if "auth" in path else client
        answer = asking.request(method, path, json=body, headers=headers)
        # With PostgreSQL the rows are elsewhere: the folder holds the files alone.
        assert refused(answer) if whole else answer.status_code == status, path
    assert [m["content"] for m in client.get(f"{at}/messages").json()["results"]][0] == "First?"
    assert client.get(f"{CHAT}/knowledge/documents").json()["count"] == 1
    assert client.get("/livez").status_code == 200

    disk.free()
    for method, path, body, status, headers in asks:
        asking = anonymous if "auth" in path else client
        assert asking.request(method, path, json=body, headers=headers).status_code == status, path
    after = knowledge.ready(client, index, big, file_name="meanwhile.txt")
    assert client.post(f"{CHAT}/files", data={"session_id": session}, files=own).status_code == 202
    assert client.post(f"{CHAT}/bots/icons/upload", files=icon).status_code == 201
    content = client.get(f"{CHAT}/knowledge/documents/{after['id']}/content").content
    assert content == big
    assert client.get(f"{CHAT}/knowledge/documents/{before['id']}").json()["status"] == "ready"
    said = [m["content"] for m in client.get(f"{at}/messages").json()["results"] if m["role"] == "user"]
    assert said.count("First?") == 1
    assert said.count("Second?") == 1, "what was refused is asked once, however often it is sent"
    assert server.stop() == 0
    assert "agree" in server.booga("verify")


def test_a_reply_being_written_is_told_to_its_end_and_kept_when_there_is_room(
    disk: Disk, server: Server, connect: MakesClient
) -> None:
    client = connect(server.api_key, server)
    session = client.post(f"{CHAT}/sessions", json={}).json()["id"]
    url = f"{CHAT}/sessions/{session}/messages"
    slow = {"content": "Slowly [[tokens=60&gap=0.05]]"}
    with client.stream("POST", f"{url}/stream", json=slow) as response:
        told = events(response.iter_lines())
        assert any(event.name == "message.delta" for event in told)
        rest(server)
        disk.fill()
        deltas = [next(told) for _ in range(20)]
        assert {event.name for event in deltas} == {"message.delta"}
        time.sleep(3)  # the reply ends meanwhile, and cannot be written
        disk.free()
        last = list(told)[-1]
    assert (last.name, last.data["status"]) == ("message.completed", "complete")
    if server.backend == "sqlite":
        assert "replies could not be written" in server.log_path.read_text()
    kept = client.get(url).json()["results"][-1]
    assert (kept["status"], kept["content"]) == ("complete", last.data["content"])


def test_a_document_being_read_waits_for_room(disk: Disk, server: Server, connect: MakesClient) -> None:
    client = connect(server.api_key, server)
    index = knowledge.make(client, "indices")["id"]
    text = b"".join(b"Line %d tells of harbour lamps and what they cost.\n" % n for n in range(20_000))
    added = knowledge.upload(client, index, text, file_name="long.txt").json()
    at = f"{CHAT}/knowledge/documents/{added['id']}"
    rest(server)
    disk.fill()
    time.sleep(5)  # longer than a job's attempts would take
    assert client.get(at).json()["status"] in ("pending", "parsing", "embedding")
    disk.free()
    assert soon(lambda: client.get(at).json()["status"] in ("embedding", "ready"))
    assert client.get(at).json()["error_code"] is None

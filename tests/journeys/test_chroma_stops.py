"""Chroma stops and comes back: chat says what it lacks, the rest waits, and nobody restarts anything."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.chat.prompts import UNSEARCHABLE
from tests import backends
from tests.backends import Backend
from tests.conftest import MakesClient
from tests.events import events, text_of
from tests.handlers import knowledge
from tests.installed import until
from tests.servers import Server, running

SESSIONS = "/api/v1/chat/sessions"
QUESTION = "What are the lamp inventories?"
Stopping = Callable[[Server], Any]


def children_of(server: Server) -> list[int]:
    """The processes that hold this installation's embedded Chroma."""
    folder, found = str(server.data_dir / "chroma").encode(), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if folder in arguments:
            found.append(int(path.parent.name))
    return found


@contextmanager
def child_killed(server: Server) -> Iterator[None]:
    """The embedded Chroma is killed, and the next one cannot open the folder meanwhile."""
    (child,) = children_of(server)
    with (server.data_dir / "chroma.lock").open("wb") as lock:
        os.kill(child, signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    until(lambda: children_of(server) not in ([], [child]))


@pytest.fixture
def stopping(backend: Backend, tmp_path: Path) -> Iterator[tuple[dict[str, str], Stopping]]:
    """Settings of a server, and what stops its Chroma for a while."""
    given = backend.fresh()
    if backend.name == "sqlite":
        yield given, child_killed
        return
    folder, port = tmp_path / "chroma", backends.free_port()
    folder.mkdir()
    run = [backends.chroma_run(folder, port)]

    @contextmanager
    def stopped(server: Server) -> Iterator[None]:
        run[0].terminate()
        run[0].wait(10)
        yield
        run[0] = backends.chroma_run(folder, port)

    try:
        until(lambda: backends.answers(port))
        yield {**given, "BOOGA_CHROMA_URL": f"http://127.0.0.1:{port}", "BOOGA_WORKERS": "2"}, stopped
    finally:
        run[0].terminate()
        run[0].wait(10)


def told(client: httpx.Client) -> list[tuple[int, str]]:
    """How the vector store is said to be, with the status of the answer that says so."""
    found = []
    for path in ("/readyz", "/api/v1/chat/health"):
        answer = client.get(path)
        body = answer.json()
        checks = {**body, **(body.get("data") or body.get("meta") or {})}["checks"]
        (status,) = [check["status"] for check in checks if check["name"] == "vector_store"]
        found.append((answer.status_code, status))
    return found


def test_chat_goes_on_without_chroma_and_all_recovers_by_itself(
    stopping: tuple[dict[str, str], Stopping], backend: Backend, connect: MakesClient, tmp_path: Path
) -> None:
    given, stops = stopping
    with running(tmp_path, backend.name, given) as server:
        client = connect(server.api_key, server)
        index = knowledge.make(client, "indices")["id"]
        knowledge.ready(client, index)
        persona = knowledge.persona(client, server, indices=[index], allow_file_uploads=True)["id"]
        id = client.post(SESSIONS, json={"persona_id": persona}).json()["id"]
        session = f"{SESSIONS}/{id}"

        def search(mode: str) -> httpx.Response:
            return client.post(f"{knowledge.BASE}/search", json={"query": QUESTION, "mode": mode})

        def attach() -> httpx.Response:
            file = ("note.txt", b"Lamps are lit at dusk.")
            return client.post(knowledge.FILES, files={"file": file}, data={"session_id": id})

        def ask() -> dict[str, Any]:
            answer = client.post(f"{session}/messages", json={"content": QUESTION})
            assert answer.status_code == 201, answer.text
            reply: dict[str, Any] = answer.json()
            return reply

        before = ask()
        assert before["citations"]
        assert UNSEARCHABLE not in before["content"]
        with stops(server):
            # Chat goes on, so the server stays in service, with less.
            until(lambda: told(client) == [(200, "down")] * 2)
            reply = ask()
            assert reply["status"] == "complete"
            assert reply["content"].startswith(UNSEARCHABLE)
            assert (reply["citations"], reply["answer_status"]) == ([], None)
            with client.stream("POST", f"{session}/messages/stream", json={"content": QUESTION}) as stream:
                assert text_of(list(events(stream.iter_lines()))).startswith(UNSEARCHABLE)
            for refused in (
                search("hybrid"),
                search("vector"),
                knowledge.upload(client, index),
                attach(),
            ):
                assert refused.status_code == 503, refused.text
                assert int(refused.headers["retry-after"]) > 0
            assert search("keyword").json()["results"]
        until(lambda: told(client) == [(200, "ok")] * 2)
        until(lambda: search("hybrid").status_code == 200 and search("vector").status_code == 200)
        until(lambda: bool(ask()["citations"]))
        assert search("vector").json()["results"]
        assert attach().status_code == 202
        added = knowledge.ready(client, index)
        assert added["vector_count"] == added["chunk_count"]

"""What becomes of replies when readers leave, the server is stopped or killed, or many come at once."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from tests import servers
from tests.backends import Backend
from tests.events import events, text_of
from tests.fakes.provider import WORDS, FakeProvider
from tests.servers import Server

SESSIONS = "/api/v1/chat/sessions"
ENDLESS = {"content": "Go on [[tokens=100000&gap=0.02]]"}


@pytest.fixture
def provided(backend: Backend, fake_provider: FakeProvider, tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, that it may stop or kill."""
    fake_provider.forget()
    given = {"OPENAI_BASE_URL": fake_provider.base_url, "OPENAI_API_KEY": "sk-test"}
    with servers.started(tmp_path, backend.name, {**backend.fresh(), **given}) as server:
        yield server


def client_of(server: Server) -> httpx.Client:
    """The owner's client."""
    return httpx.Client(base_url=server.url, headers={"X-API-Key": server.api_key}, timeout=30)


def new_session(client: httpx.Client) -> str:
    """The path of a new session."""
    return f"{SESSIONS}/{client.post(SESSIONS, json={}).json()['id']}"


def eventually(look: Any, seconds: float) -> Any:
    """The first true value that ``look`` gives within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)  # SQL and HTTP do not call back


def last_message(client: httpx.Client, session: str) -> dict[str, Any]:
    """The newest message."""
    found: dict[str, Any] = client.get(f"{session}/messages").json()["results"][-1]
    return found


class TestLeaving:
    def test_the_providers_call_ends_and_the_part_is_kept(
        self, server_with_provider: Server, fake_provider: FakeProvider
    ) -> None:
        fake_provider.forget()
        with client_of(server_with_provider) as client:
            session = new_session(client)
            with client.stream("POST", f"{session}/messages/stream", json=ENDLESS) as response:
                told = events(response.iter_lines())
                seen = [next(told) for _ in range(6)]
            left = time.monotonic()
            assert fake_provider.requests[-1].wait_disconnected(timeout=10) - left < 2.0
            kept = eventually(lambda: _ended(client, session), 5)
            assert kept["status"] == "interrupted"
            assert kept["content"].startswith(text_of(seen))
            assert kept["usage"]["source"] == "estimated"

    def test_a_whole_answer_that_nobody_waits_for_is_interrupted_too(
        self, server_with_provider: Server, fake_provider: FakeProvider
    ) -> None:
        fake_provider.forget()
        with client_of(server_with_provider) as client:
            session = new_session(client)
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{session}/messages", json=ENDLESS, timeout=0.5)
            fake_provider.wait_requests(1)
            fake_provider.requests[-1].wait_disconnected(timeout=5)
            assert eventually(lambda: _ended(client, session), 5)["status"] == "interrupted"

    def test_in_the_background_the_reply_goes_on(
        self, server_with_provider: Server, fake_provider: FakeProvider
    ) -> None:
        with client_of(server_with_provider) as client:
            session = new_session(client)
            body = {"content": "Go on [[tokens=60&gap=0.05]]", "background": True}
            with client.stream("POST", f"{session}/messages/stream", json=body) as response:
                next(events(response.iter_lines()))
            kept = eventually(lambda: _ended(client, session), 15)
            assert kept["status"] == "complete"
            assert kept["usage"]["completion_tokens"] == 60

    def test_coming_back_at_once_keeps_it_going(
        self, server_with_provider: Server, fake_provider: FakeProvider
    ) -> None:
        with client_of(server_with_provider) as client:
            session = new_session(client)
            body = {"content": "Go on [[tokens=60&gap=0.05]]"}
            with client.stream("POST", f"{session}/messages/stream", json=body) as response:
                told = events(response.iter_lines())
                seen = [next(told) for _ in range(5)]
            headers = {"Last-Event-ID": seen[-1].id}
            with client.stream("GET", f"{session}/messages/stream", headers=headers) as response:
                rest = list(events(response.iter_lines()))
            assert rest[-1].data["status"] == "complete"
            assert text_of(seen) + text_of(rest) == rest[-1].data["content"]


def _ended(client: httpx.Client, session: str) -> dict[str, Any] | None:
    message = last_message(client, session)
    return None if message["status"] == "streaming" else message


class TestStopping:
    def test_sigterm_ends_streams_with_a_last_event(self, provided: Server) -> None:
        with client_of(provided) as client:
            session = new_session(client)
            with client.stream("POST", f"{session}/messages/stream", json=ENDLESS) as response:
                told = events(response.iter_lines())
                seen = [next(told) for _ in range(6)]
                provided.process.send_signal(signal.SIGTERM)
                seen += list(told)
        assert seen[-1].name == "message.completed"
        assert seen[-1].data["status"] == "interrupted"
        assert seen[-1].data["content"] == text_of(seen)
        assert provided.process.wait(20) == 0

    def test_kill_keeps_the_question_and_an_exact_prefix(
        self, provided: Server, fake_provider: FakeProvider
    ) -> None:
        with client_of(provided) as client:
            session = new_session(client)
            with client.stream("POST", f"{session}/messages/stream", json=ENDLESS) as response:
                told = events(response.iter_lines())
                seen = [next(told) for _ in range(2)]
                until = time.monotonic() + 2.5
                while time.monotonic() < until:
                    seen.append(next(told))
                _kill(provided)
        servers.restart(provided)
        with client_of(provided) as client:
            kept = eventually(lambda: _ended(client, session), 30)
            assert kept is not None, "still marked as streaming 30 s after the restart"
            question = client.get(f"{session}/messages").json()["results"][0]
            assert question["content"] == ENDLESS["content"]
            assert kept["status"] == "interrupted"
            assert kept["content"], "what was there for a second has to be kept"
            whole = " ".join(islice(cycle(WORDS), 1000))
            assert whole.startswith(kept["content"])
            assert whole.startswith(text_of(seen))
            position = {"Last-Event-ID": seen[4].id}
            with client.stream("GET", f"{session}/messages/stream", headers=position) as response:
                resumed = list(events(response.iter_lines()))
            assert text_of(seen[:5]) + text_of(resumed) == kept["content"]
            assert resumed[-1].data["status"] == "interrupted"
            after = client.post(f"{session}/messages", json={"content": "Again [[tokens=3]]"})
            assert after.status_code == 201

    def test_workers_end_with_a_master_that_was_killed(self, provided: Server) -> None:
        left = _descendants(provided.process.pid)
        assert left
        os.kill(provided.process.pid, signal.SIGKILL)
        provided.process.wait()
        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), 15)
        servers.restart(provided)
        with client_of(provided) as client:
            assert client.post(SESSIONS, json={}).status_code == 201


def _kill(server: Server) -> None:
    """What ``kill -9`` of the whole process group does."""
    for pid in [*_descendants(server.process.pid), server.process.pid]:
        os.kill(pid, signal.SIGKILL)
    server.process.wait()


def _descendants(pid: int) -> list[int]:
    listed = subprocess.run(  # noqa: S603 - our own arguments
        ["/usr/bin/pgrep", "-P", str(pid)], capture_output=True, text=True
    ).stdout.split()
    found: list[int] = []
    for child in map(int, listed):
        found += [*_descendants(child), child]
    return found


class TestMany:
    def test_three_hundred_new_chats_at_once_all_succeed(self, server_with_provider: Server) -> None:
        firsts, faults = asyncio.run(_flood(server_with_provider, 300))
        assert faults == []
        assert len(firsts) == 300
        print(f"first token p50 {statistics.median(firsts) * 1000:.0f} ms")


async def _flood(server: Server, count: int) -> tuple[list[float], list[str]]:
    firsts: list[float] = []
    faults: list[str] = []
    headers = {"X-API-Key": server.api_key}
    connector = aiohttp.TCPConnector(limit=0)

    async def chat(http: aiohttp.ClientSession) -> None:
        async with http.post(f"{server.url}{SESSIONS}", json={}) as made:
            if made.status != 201:
                faults.append(f"{made.status} {await made.text()}")
                return
            id = (await made.json())["id"]
        began, last = time.monotonic(), None
        url, body = (
            f"{server.url}{SESSIONS}/{id}/messages/stream",
            {"content": "Hello [[tokens=20&gap=0.02]]"},
        )
        async with http.post(url, json=body) as response:
            lines = (await response.text()).splitlines() if response.status != 200 else None
            if lines is not None:
                faults.append(f"{response.status} {lines[:1]}")
                return
            seen = False
            async for line in response.content:
                if line.startswith(b"event:"):
                    last = line.strip()
                if last == b"event: message.delta" and not seen:
                    seen = True
                    firsts.append(time.monotonic() - began)
        if last != b"event: message.completed":
            faults.append(f"ended with {last!r}")

    async with aiohttp.ClientSession(headers=headers, connector=connector) as http:
        await asyncio.gather(*(chat(http) for _ in range(count)))
    return firsts, faults

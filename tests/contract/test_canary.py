"""What one tenant keeps is heard of by nobody else; and it would be noticed."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import subprocess
import urllib.request
import zipfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import httpx
import pytest
from sqlalchemy import func, select

from models.base import Base
from tests import canary, canary_rows, ears
from tests.backends import Backend
from tests.contract import conformance, marked
from tests.contract.hostile import exchange, head
from tests.contract.marked import Marked
from tests.contract.specimens import Operation, Specimens, operation_of, operations
from tests.fakes.provider import FakeProvider
from tests.fakes.receiver import Receiver
from tests.handlers import knowledge
from tests.relay import relay
from tests.servers import Server, running

TELLING = {
    "api_keys.list",
    "bots.list",
    "categories.list",
    "documents.list",
    "documents.content",
    "files.get",
    "indices.list",
    "llm_providers.list",
    "messages.list",
    "organizations.list",
    "people.list",
    "personas.list",
    "personas.versions",
    "search.run",
    "sessions.list",
    "sessions.history",
    "sign_in.me",
    "tenants.current",
    "webhooks.list",
}
"""Operations that show a tenant what it wrote."""
READ = [
    operation
    for operation in operations()
    if operation.method == "get" and not (operation.is_public or operation.is_operators)
]


Way = Callable[[Server, str, str], Coroutine[Any, Any, None]]


async def _by_httpx(server: Server, path: str, key: str) -> None:
    async with httpx.AsyncClient(headers={"X-API-Key": key}) as client:
        await client.get(server.url + path)


async def _by_aiohttp(server: Server, path: str, key: str) -> None:
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": key}) as client,
        client.get(server.url + path) as answer,
    ):
        await answer.read()


async def _by_urllib(server: Server, path: str, key: str) -> None:
    asked = urllib.request.Request(server.url + path, headers={"X-API-Key": key})  # noqa: S310 - our own server
    with urllib.request.urlopen(asked) as answer:  # noqa: S310 - likewise
        answer.read()


async def _by_a_socket(server: Server, path: str, key: str) -> None:
    exchange(server, head(server, path, method="GET", key=key))


WAYS: dict[str, Way] = {
    "httpx, waiting for nobody": _by_httpx,
    "aiohttp": _by_aiohttp,
    "urllib": _by_urllib,
    "a socket": _by_a_socket,
}
"""How tests ask, beside httpx as it is."""


@contextmanager
def answering(*parts: bytes) -> Iterator[str]:
    """The address of somebody who answers this, in these chunks."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (*parts, b""):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        serving = Thread(target=http.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            serving.join()


@pytest.fixture(scope="module")
def leak(server: Server) -> Iterator[Marked]:
    """Everything of the canary's for somebody who is not known to be one of its own."""
    with conformance.client(server.url, server.issue_key(tenant=server.canary)) as client:
        made = Marked(client, server.canary)
        made.the("message")
        made.the("document")
        made.settled("documents.get", '"status":"ready"')
        yield made


@pytest.fixture
def persona(leak: Marked) -> str:
    """The path of a persona of the canary's."""
    id = leak.the("persona")
    forget()
    return f"/api/v1/chat/personas/{id}"


def forget() -> None:
    """What was heard until now does not count."""
    with suppress(canary.Heard):
        ears.check()


@contextmanager
def heard(piece: str) -> Iterator[None]:
    """Something is heard in this block, and told like this."""
    yield
    with pytest.raises(canary.Heard, match=piece):
        ears.check()


class TestIsNoticed:
    @pytest.mark.parametrize("operation", [o for o in operations() if o.id in TELLING], ids=lambda o: o.id)
    def test_in_an_answer(self, operation: Operation, leak: Marked) -> None:
        call = leak.call(operation)
        forget()
        with heard(f"{canary.WORD}|{canary.NAME}"):
            leak.client.request(**call)

    @pytest.mark.parametrize("way", [*WAYS.values()], ids=[*WAYS])
    def test_by_whichever_client(self, way: Way, persona: str, leak: Marked, server: Server) -> None:
        with heard(f"^.*\nGET /api/v1/chat/personas/.*{canary.WORD}"):
            asyncio.run(way(server, persona, leak.client.headers["X-API-Key"]))

    def test_by_a_client_that_is_no_part_of_us(self, persona: str, leak: Marked, server: Server) -> None:
        with relay(server.url) as door, heard(canary.WORD):
            key = f"X-API-Key: {leak.client.headers['X-API-Key']}"
            asking = ["curl", "--silent", "--output", "/dev/null", "-H", key, door.url + persona]
            subprocess.run(asking, check=True)  # noqa: S603, S607 - our own arguments

    def test_in_what_a_child_prints(self) -> None:
        with heard("printed"):
            subprocess.run(["echo", canary.WORD], capture_output=True, check=True)  # noqa: S603, S607 - our own arguments

    def test_in_a_stream(self, leak: Marked) -> None:
        session = leak.the("session")
        text = f"Revenue rose by 12 percent, as {canary.WORD} has it.".encode()
        file = {"file": (f"{canary.WORD}.txt", text, "text/plain")}
        added = leak.client.post(knowledge.FILES, files=file, data={"session_id": session}).json()["data"]
        knowledge.settled(leak.client, f"{knowledge.FILES}/{added['id']}")
        forget()
        question = {"content": "By how much did revenue rise?"}
        url = f"/api/v1/chat/sessions/{session}/messages/stream"
        with heard(canary.WORD), leak.client.stream("POST", url, json=question) as response:
            assert response.status_code == 200
            response.read()

    def test_in_an_export(self, leak: Marked) -> None:
        call = leak.ready(operation_of("exports.download"))
        forget()
        with heard(canary.WORD):
            leak.client.request(**call).raise_for_status()

    def test_in_parts_and_archives(self) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data/personas.json", f'{{"name": "{canary.WORD.upper()}"}}')
        assert canary.WORD.encode() not in out.getvalue()
        assert canary.in_text(out.getvalue()) is not None
        assert canary.in_text(gzip.compress(out.getvalue())) is not None
        half = len(canary.WORD) // 2
        with answering(canary.WORD[:half].encode(), canary.WORD[half:].encode()) as url, heard(canary.WORD):
            assert httpx.get(url).text == canary.WORD

    def test_an_id_alone(self, leak: Marked) -> None:
        seen = leak.client.get("/api/v1/chat/personas", params={"page_size": 100}).json()["results"]
        assert {persona["stack_id"] for persona in seen} == {leak.tenant["stack_id"]}
        with answering(leak.tenant["stack_id"].encode()) as url:
            forget()
            with heard(canary.MARK):
                httpx.get(url)

    def test_but_none_that_was_asked_for(self, leak: Marked, client: httpx.Client) -> None:
        forget()
        answer = client.get(f"/api/v1/chat/personas/{leak.tenant['stack_id']}")
        assert leak.tenant["stack_id"] in answer.json()["instance"]
        ears.check()

    @pytest.mark.parametrize("text", ['{{"tokens":{}}}', "4,{},5", "[ {} ]", "booga_tokens {}", "{}.0"])
    def test_a_sum(self, text: str) -> None:
        assert canary.in_text(text.format(canary.FIGURE + 4711).encode()) is not None

    @pytest.mark.parametrize("text", ["0.{}", "{}.5", "a{}", "{}0", "-{}", "{}-1"])
    def test_but_no_other_number(self, text: str) -> None:
        assert canary.in_text(text.format(canary.FIGURE).encode()) is None

    def test_and_operators_know_whom_they_serve(self, server: Server, operator_key: str) -> None:
        forget()
        with conformance.client(server.url, operator_key) as client:
            assert canary.NAME in client.get("/api/v1/tenants", params={"page_size": 100}).text
        ears.check()

    def test_at_a_fake(self) -> None:
        with FakeProvider() as fake, closing(Receiver()) as receiver:
            for url in (f"{fake.base_url}/embeddings", receiver.url("told")):
                with heard("was sent"):
                    httpx.post(url, json={"model": "any", "input": [f"A text with {canary.NAME}."]})

    def test_in_a_log_and_in_mails(self, tmp_path: Path) -> None:
        log = tmp_path / "server.log"
        for name, to in (("own", f"{canary.WORD}-mia@example.com"), ("others", "mia@example.com")):
            (tmp_path / f"{name}.eml").write_text(f"To: {to}\n\nWelcome to {canary.NAME}.\n")
        log.write_text(f"A line.\nA line with {canary.WORD}.\n")
        line, mail = canary.in_files(log, tmp_path)
        assert "A line with" in line
        assert "others.eml" in mail


def test_every_table_of_a_tenant_has_a_row_of_the_canary(server: Server) -> None:
    made = canary_rows.plant(server.data_dir, server.environment)["tenant_id"]
    with server.database() as db:
        tables = [table for table in Base.metadata.sorted_tables if "tenant_id" in table.c]
        rows = {table: select(func.count()).where(table.c.tenant_id == made) for table in tables}
        bare = [table.name for table, count in rows.items() if not db.scalar(count)]
    assert bare == [], "plant a row of each in tests/canary_rows.py"


@pytest.fixture
def choir(backend: Backend, fake_provider: FakeProvider, tmp_path: Path) -> Iterator[Server]:
    """A server that asks a provider, and sends webhooks to loopback."""
    given = {
        **backend.fresh(),
        "OPENAI_BASE_URL": fake_provider.base_url,
        "OPENAI_API_KEY": "sk-test",
        "BOOGA_ALLOW_PRIVATE_ADDRESSES": "true",
    }
    fake_provider.forget()
    with running(tmp_path, backend.name, given) as made:
        yield made


def test_who_does_everything_meets_nothing_of_the_canary(choir: Server, fake_provider: FakeProvider) -> None:
    with closing(Receiver()) as receiver, conformance.client(choir.url, choir.api_key) as client:
        every = [shown["type"] for shown in client.get("/api/v1/webhooks/event-types").json()["results"]]
        hook = {"url": receiver.url("all"), "event_types": every}
        client.post("/api/v1/webhooks", json=hook).raise_for_status()
        marked.plant(choir)
        assert any(canary.WORD in str(request.body) for request in fake_provider.requests)
        ours = Specimens(client, choir.tenant)
        marked.write_everything(ours)
        for operation in READ:
            ours.send(operation)
        question = {"query": "By how much did revenue rise?"}
        client.post("/api/v1/chat/knowledge/search", json=question).raise_for_status()
        told = {json.loads(sent.body)["type"] for sent in receiver.wait("all", 5)}
        assert "session.created" in told
        assert any(canary.WORD not in str(request.body) for request in fake_provider.requests)

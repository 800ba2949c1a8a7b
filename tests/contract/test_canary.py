"""What one tenant keeps is heard of by nobody else; and it would be noticed."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests import canary
from tests.backends import Backend
from tests.contract import conformance, marked
from tests.contract.marked import Marked
from tests.contract.specimens import Operation, Specimens, operations
from tests.fakes.provider import FakeProvider
from tests.fakes.receiver import Receiver
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


@pytest.fixture(scope="module")
def leak(server: Server) -> Iterator[Marked]:
    """Everything of the canary's for somebody who is not known to be one of its own."""
    with conformance.client(server.url, server.issue_key(tenant=server.canary)) as client:
        yield Marked(client, server.canary)


class TestIsNoticed:
    @pytest.mark.parametrize("operation", [o for o in operations() if o.id in TELLING], ids=lambda o: o.id)
    def test_in_an_answer(self, operation: Operation, leak: Marked) -> None:
        with pytest.raises(canary.Heard, match=f"{canary.WORD}|{canary.NAME}"):
            leak.send(operation)

    def test_in_an_archive(self, leak: Marked) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data/personas.json", f'{{"name": "{canary.WORD.upper()}"}}')
        assert canary.WORD.encode() not in out.getvalue()
        assert canary.in_text(out.getvalue()) is not None
        assert canary.in_text(gzip.compress(out.getvalue())) is not None

    def test_at_a_fake(self) -> None:
        with FakeProvider() as fake, closing(Receiver()) as receiver:
            for url in (f"{fake.base_url}/embeddings", receiver.url("told")):
                httpx.post(url, json={"model": "any", "input": [f"A text with {canary.NAME}."]})
                with pytest.raises(canary.Heard, match="was sent"):
                    canary.check()

    def test_in_a_log_and_in_mails(self, tmp_path: Path) -> None:
        log = tmp_path / "server.log"
        for name, to in (("own", f"{canary.WORD}-mia@example.com"), ("others", "mia@example.com")):
            (tmp_path / f"{name}.eml").write_text(f"To: {to}\n\nWelcome to {canary.NAME}.\n")
        log.write_text(f"A line.\nA line with {canary.WORD}.\n")
        line, mail = canary.in_files(log, tmp_path)
        assert "A line with" in line
        assert "others.eml" in mail


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

"""The examples of docs/integrating.md, exactly as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.backends import Backend, answers, free_port
from tests.fakes.provider import FakeProvider
from tests.handlers.knowledge import make, settled, upload
from tests.installed import until
from tests.journeys.demo import ROOT
from tests.relay import relay
from tests.servers import Server, running

ASK, RECEIVE = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/integrating.md").read_text(), re.M | re.S)
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def integrated(
    backend: Backend, fake_provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a provider, whose webhooks may go to loopback."""
    given = {
        "OPENAI_BASE_URL": fake_provider.base_url,
        "OPENAI_API_KEY": "sk-test",
        "BOOGA_ALLOW_PRIVATE_ADDRESSES": "true",
    }
    with running(tmp_path_factory.mktemp("integrated"), backend.name, {**backend.fresh(), **given}) as made:
        yield made


@pytest.fixture
def owner(integrated: Server, connect: Any) -> httpx.Client:
    """The owner, who also looks at what the examples did."""
    made: httpx.Client = connect(integrated.api_key, integrated)
    return made


def test_a_question_is_answered_whole_over_a_line_that_breaks(
    integrated: Server, fake_provider: FakeProvider, owner: httpx.Client
) -> None:
    index = make(owner, "indices")["id"]
    document = upload(owner, index).json()
    settled(owner, f"/api/v1/chat/knowledge/documents/{document['id']}")
    persona = owner.get("/api/v1/chat/personas").json()["results"][0]
    owner.patch(
        f"/api/v1/chat/personas/{persona['id']}", json={"accessible_index_ids": [index]}
    ).raise_for_status()
    fake_provider.forget()
    fake_provider.when("What was revenue?", text="It was 7,425 [1], as the third page has it.", gap=0.05)
    with relay(integrated.url) as line:
        line.cut_behind = b"event: message.delta"
        done = subprocess.run(  # noqa: S603 - what the page tells its readers to run
            [sys.executable, "-c", ASK],
            env={**os.environ, "BOOGA": line.url, "BOOGA_KEY": integrated.api_key},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert line.cuts == 1
    answer, *cited = done.stdout.splitlines()
    assert answer == "It was 7,425 [1], as the third page has it."
    assert re.match(r"\[1\] report\.pdf, page 3: ", cited[0])


@contextmanager
def receiving(secret: str, told: Path, port: int) -> Iterator[None]:
    """The page's receiver."""
    with told.open("w") as printed:
        process = subprocess.Popen(  # noqa: S603 - what the page tells its readers to run
            [sys.executable, "-c", RECEIVE],
            env={**os.environ, "BOOGA_WEBHOOK_SECRET": secret, "PORT": str(port)},
            stdout=printed,
            stderr=subprocess.DEVNULL,  # a line for each request
        )
    try:
        until(lambda: answers(port))
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_a_webhook_is_verified_and_told_once(tmp_path: Path, owner: httpx.Client) -> None:
    told, port = tmp_path / "told", free_port()
    url = f"http://127.0.0.1:{port}/"
    hook = owner.post("/api/v1/webhooks", json={"url": url, "event_types": ["session.created"]}).json()
    with receiving(hook["secret"], told, port):
        session = owner.post("/api/v1/chat/sessions", json={}).json()
        line = f"session.created {session['id']}\n"
        until(lambda: told.read_text() == line)
        deliveries = f"/api/v1/webhooks/{hook['id']}/deliveries"
        until(lambda: owner.get(deliveries).json()["results"][0]["status"] == "delivered")
        delivery = owner.get(deliveries).json()["results"][0]
        owner.post(f"{deliveries}/{delivery['id']}/redeliver").raise_for_status()
        until(lambda: len(owner.get(deliveries).json()["results"][0]["attempts"]) == 2)
        forged = httpx.post(url, content=b"{}", headers={"webhook-id": "msg_1"})
        assert forged.status_code == 401
    assert told.read_text() == line

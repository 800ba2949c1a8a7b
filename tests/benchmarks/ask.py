"""From a question to the provider's call: retrieval, the prompt, and the two rows that come first."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.benchmarks import documents, pace, table
from tests.benchmarks.installation import API, client_of, serving
from tests.benchmarks.load import request
from tests.fakes.provider import FakeProvider
from tests.servers import Server

MADE = 7
ROUNDS = 40
QUESTIONS = (
    "How did revenue develop compared with the year before?",
    "What was the capital expenditure?",
    "Which risks from litigation does the company name?",
    "What are total current liabilities?",
    "What does the company say about goodwill impairment?",
    "How large is the operating margin?",
    "What is the inventory turnover?",
    "Who sits on the audit committee?",
)


def run() -> None:
    """Milliseconds from a question to the provider's call, over seven documents (or DOCUMENTS=folder)."""
    with FakeProvider() as fake:
        settings = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "any"}
        with serving(settings) as server, client_of(server) as client:
            pace.note("documents are read in")
            index, names = _filled(client)
            pace.note("questions are asked")
            persona = _persona(client, index)
            measured = []
            for number in range(ROUNDS + len(QUESTIONS)):
                fake.forget()
                found = _ask(server, client, fake, persona, QUESTIONS[number % len(QUESTIONS)])
                if number >= len(QUESTIONS):  # before, each question is new
                    measured.append(found)
    called, retrieval, first = zip(*measured, strict=True)
    print(f"  {len(names)} documents, {ROUNDS} questions one after another, each in a session of its own")
    rows: list[list[table.Cell]] = [
        [name, table.median(values), table.percentile(values, 0.95), max(values)]
        for name, values in (
            ("retrieval, as the event tells it", retrieval),
            ("question sent until the provider is called", called),
            ("question sent until the first token", first),
        )
    ]
    table.show(["milliseconds", "p50", "p95", "max"], rows)


def _filled(client: httpx.Client) -> tuple[str, list[str]]:
    index: str = client.post(f"{API}/knowledge/indices", json={"name": "Reports"}).json()["id"]
    folder = os.environ.get("DOCUMENTS")
    if folder:
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
    else:
        made = [documents.pdf(seed, 600_000) for seed in range(1, MADE + 1)]
        files = {planted.name: planted.content for planted in made}
    paths = []
    for name, content in files.items():
        answer = client.post(
            f"{API}/knowledge/documents", files={"file": (name, content)}, data={"index_id": index}
        )
        answer.raise_for_status()
        paths.append(f"{API}/knowledge/documents/{answer.json()['id']}")
    deadline = time.monotonic() + 600
    while any(client.get(path).json()["status"] != "ready" for path in paths):
        assert time.monotonic() < deadline, "the documents are not ready"
        time.sleep(0.2)  # reading them takes the server's core
    return index, list(files)


def _persona(client: httpx.Client, index: str) -> str:
    stack = client.get(f"{API}/personas").json()["results"][0]["stack_id"]
    body = {"name": "Reader of reports", "stack_id": stack, "accessible_index_ids": [index]}
    made = client.post(f"{API}/personas", json=body)
    made.raise_for_status()
    found: str = made.json()["id"]
    return found


def _ask(
    server: Server, client: httpx.Client, fake: FakeProvider, persona: str, question: str
) -> tuple[float, float, float]:
    """Until the call, of which retrieval, and until the first token; milliseconds."""
    session = client.post(f"{API}/sessions", json={"persona_id": persona, "model": "fake"}).json()["id"]
    path = f"{API}/sessions/{session}/messages/stream"
    asking = request("POST", path, {"X-API-Key": server.api_key}, {"content": question}).encode()
    where = urlsplit(server.url)
    answer, first = b"", None
    # Bytes on a socket: what an HTTP library takes to send them is not the server's.
    with socket.create_connection((where.hostname, where.port)) as line:
        began = time.monotonic()
        line.sendall(asking)
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            part = line.recv(65_536)
            assert part, f"the answer broke off: {answer!r}"
            answer += part
            if first is None and b"event: message.delta" in answer:
                first = time.monotonic()
    assert first is not None, f"no answer to {question}"
    retrieved = re.search(rb"event: retrieval.completed\ndata: (.*)", answer)
    assert retrieved is not None, f"nothing was searched for {question}"
    told = json.loads(retrieved[1])
    assert told["searched"], told
    assert not told["degraded"], told
    call = fake.wait_requests(1)[-1]
    return (call.received_at - began) * 1000, told["timings"]["retrieval_ms"], (first - began) * 1000

"""From an upload to the first search that finds what it says."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

import httpx

from tests.benchmarks import documents, machine, pace, table
from tests.benchmarks.documents import Planted
from tests.benchmarks.installation import API, client_of, serving

ROUNDS = 3
KINDS: dict[str, Callable[[int], Planted]] = {"text": documents.text, "PDF": documents.pdf}
LOOK = 0.02
"""Seconds between two searches: they share the server's core with the reading."""
LONGEST = 60.0


def run() -> None:
    """Seconds from the upload of 1 MB to the first hit on a planted sentence, and until all is embedded."""
    with serving() as server, client_of(server) as client:
        _one(client, server.process.pid, documents.text(1, 20_000))  # loads what the first document needs
        found: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
        sizes: dict[str, int] = {}
        for turn in pace.rounds(ROUNDS, "documents"):
            for kind, make in KINDS.items():
                planted = make(100 + turn)
                sizes[kind] = len(planted.content)
                found[kind].append(_one(client, server.process.pid, planted))
    rows: list[list[table.Cell]] = []
    for kind, measured in found.items():
        answered, retrievable, ready, cpu = (table.median(values) for values in zip(*measured, strict=True))
        rows.append([f"{kind}, {sizes[kind] / 1e6:.2f} MB", answered, retrievable, ready, cpu])
    print(f"  median of {ROUNDS} documents, each into an index of its own; seconds since the upload began")
    table.show(["", "upload answered", "retrievable", "ready", "CPU s"], rows)


def _one(client: httpx.Client, pid: int, planted: Planted) -> tuple[float, float, float, float]:
    index = client.post(f"{API}/knowledge/indices", json={"name": planted.name}).json()["id"]
    query = {"query": planted.question, "index_ids": [index]}
    before, began = machine.cpu_seconds(pid), time.monotonic()
    made = client.post(
        f"{API}/knowledge/documents",
        files={"file": (planted.name, planted.content)},
        data={"index_id": index},
    )
    made.raise_for_status()
    answered = time.monotonic() - began
    retrievable = ready = None
    path = f"{API}/knowledge/documents/{made.json()['id']}"
    while retrievable is None or ready is None:
        if time.monotonic() - began > LONGEST:
            raise AssertionError(f"{planted.name} is not ready: {client.get(path).text}")
        if retrievable is None:
            answer = client.post(f"{API}/knowledge/search", json=query)
            answer.raise_for_status()
            if any(planted.sentence in hit["quote"] for hit in answer.json()["results"]):
                retrievable = time.monotonic() - began
        else:
            status = client.get(path).json()["status"]
            assert status != "failed", f"{planted.name} failed"
            if status == "ready":
                ready = time.monotonic() - began
        time.sleep(LOOK)
    return answered, retrievable, ready, machine.cpu_seconds(pid) - before

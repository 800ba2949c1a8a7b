"""Chat while a long report is read in: what the first token waits for it."""

from __future__ import annotations

import time

import httpx

from tests.benchmarks import documents, pace, table
from tests.benchmarks.installation import API
from tests.benchmarks.streams import Sides, alone

PAGES = 300
BYTES_OF_A_PAGE = 7_400
ROUNDS = 5
LONGEST = 600.0


def run() -> None:
    """Milliseconds to the first token of a stored reply, without and with a 300-page PDF being read in."""
    with Sides.ready() as sides:
        client = sides.client
        _asked(sides, 1)  # loads what the others find loaded
        before = _asked(sides, ROUNDS)
        found: dict[str, list[float]] = {"parsing": [], "embedding": []}
        path, began = _upload(client), time.monotonic()
        while (status := client.get(path).json()["status"]) != "ready":
            assert status != "failed", client.get(path).text
            assert time.monotonic() - began < LONGEST, f"still {status}"
            pace.note(f"the report is {status}")
            found["embedding" if status == "embedding" else "parsing"] += _asked(sides, 1)
        took = time.monotonic() - began
        after = _asked(sides, ROUNDS)
    print(f"  stored replies one after another; {PAGES} pages were read in within {took:.0f} s")
    rows: list[list[table.Cell]] = [
        [name, len(values), table.median(values) * 1000, table.percentile(values, 0.95) * 1000]
        for name, values in (
            ("without", before + after),
            ("while its pages are read", found["parsing"]),
            ("while its passages are embedded", found["embedding"]),
        )
        if values
    ]
    table.show(["first token", "replies", "p50 ms", "p95 ms"], rows)


def _asked(sides: Sides, rounds: int) -> list[float]:
    return [seconds for _ in range(rounds) for seconds in alone(sides, is_direct=False)]


def _upload(client: httpx.Client) -> str:
    index = client.post(f"{API}/knowledge/indices", json={"name": "Reports"}).json()["id"]
    planted = documents.pdf(1, PAGES * BYTES_OF_A_PAGE)
    made = client.post(
        f"{API}/knowledge/documents",
        files={"file": (planted.name, planted.content)},
        data={"index_id": index},
    )
    made.raise_for_status()
    return f"{API}/knowledge/documents/{made.json()['id']}"

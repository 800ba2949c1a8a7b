"""The embedded default, and PostgreSQL with a Chroma server: the same documents, the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.backends import available
from tests.benchmarks import documents as made
from tests.conftest import MakesClient
from tests.handlers import knowledge
from tests.servers import Server, running

SHELF = {
    "lamps.pdf": knowledge.report(mark="Lamps"),
    "buoys.md": b"# Buoys\n\nThe buoys segment had revenue of 3,310 in 2024.\n## Risks\n\nIce breaks buoys.",
    "prices.csv": b"Item,Price,Stock\nHarbour lamp,120,918\nLighthouse lens,4310,7\nBuoy,95,44\n",
    "words.txt": made.text(7, 15_000).content,
}
QUESTIONS = (
    "What were the lamp inventories?",
    "net revenue of the lamp segment",
    "How much revenue did buoys bring in 2024?",
    "What breaks buoys?",
    "price of a lighthouse lens",
    "total assets and current ratio",
    "impairment of goodwill in the third quarter",
    "dividend, depreciation and the audit committee",
    "who fishes for herring?",
)
MODES = ("hybrid", "keyword", "vector")


def answers(client: httpx.Client) -> list[Any]:
    """What is found for each question in each mode, with scores and reasons."""
    index = knowledge.make(client, "indices")["id"]
    for name, content in SHELF.items():
        knowledge.ready(client, index, content, file_name=name)
    found = []
    for question in QUESTIONS:
        for mode in MODES:
            body = {"query": question, "mode": mode, "index_ids": [index], "max_documents": 10}
            answer = client.post(f"{knowledge.BASE}/search", json={**body, "score_threshold": 0})
            assert answer.status_code == 200, answer.text
            hits = answer.json()["results"]
            assert hits or mode == "keyword", question
            found.append(
                (
                    question,
                    mode,
                    [
                        (hit["document_name"], hit["page"], hit["cell"], hit["start"], hit["quote"])
                        for hit in hits
                    ],
                    [hit["reasons"] for hit in hits],
                    [hit["score"] for hit in hits],
                )
            )
    return found


@pytest.mark.skipif("postgresql" not in available(), reason="it compares PostgreSQL with SQLite")
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_search_finds_the_same_on_both(
    client: httpx.Client, connect: MakesClient, tmp_path: Path, server: Server
) -> None:
    assert server.environment["BOOGA_CHROMA_URL"]
    with running(tmp_path, "sqlite", {}) as embedded:
        here = answers(connect(embedded.api_key, embedded))
        there = answers(client)
    for (question, mode, *facts, scores), (_, _, *other_facts, other_scores) in zip(here, there, strict=True):
        assert facts == other_facts, f"{question} ({mode})"
        assert scores == pytest.approx(other_scores, abs=0.001), f"{question} ({mode})"

"""How search and indexing grow with the number of passages, of indices and of tenants."""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.base import new_id
from models.knowledge.keywords import document_postings
from models.knowledge.library import Document, IngestStatus, KnowledgeIndex
from models.knowledge.passages import Cut, Parsed, Unit, assemble
from models.tenancy import Tenant
from storage import library, retrieval, vectors
from storage.database import platform, transaction
from storage.embeddings import Unavailable
from storage.retrieval import Reach
from tests import backends
from tests.benchmarks import machine, table
from tests.benchmarks.documents import LITTLE, WORDS
from tests.benchmarks.installation import in_this_process

SIZES = [int(size) for size in os.environ.get("SIZES", "1000,10000,100000").split(",")]
PASSAGES = 200
"""Of one made document, on 50 pages."""
TEMPLATES = 20
QUERIES = 40
MANY = 200
WIDTH = 384


@dataclass(frozen=True)
class Of:
    """Whose rows are meant."""

    tenant_id: str


def run() -> None:
    """Query p50/p95, memory and index time at 10^3, 10^4 and 10^5 made passages; 200 indices, 200 tenants."""
    for name in backends.available():
        with backends.backend(name) as backend:
            print(f"  {name}{' and a Chroma server' if 'BOOGA_CHROMA_URL' in backend.services else ''}")
            rows, medians = [], []
            for size in SIZES:
                with in_this_process(backend.fresh()):
                    row, median = _size(size)
                    rows.append(row)
                    medians.append(median)
            table.show(
                [
                    "passages",
                    "p50 ms",
                    "p95 ms",
                    "words",
                    "vectors",
                    "ranking",
                    "SQL s",
                    "vectors s",
                    "MB with Chroma",
                ],
                rows,
            )
            _growth(medians)
            with in_this_process(backend.fresh()):
                _many()


def _templates() -> list[Parsed]:
    chance = random.Random(1)  # noqa: S311 - the same texts each time
    made = []
    for _ in range(TEMPLATES):
        parts = []
        for number in range(1, PASSAGES // 4 + 1):
            cuts, text = [], ""
            for _ in range(4):
                words = [chance.choice(LITTLE if at % 2 else WORDS) for at in range(110)]
                words[chance.randrange(110)] = f"{chance.randint(1, 99_999):,}"
                start = len(text)
                text += " ".join(words) + "\n"
                cuts.append(Cut(start, len(text) - 1))
            parts.append((Unit(number, "page", None, text), cuts))
        made.append(assemble(parts, page_count=PASSAGES // 4, media_type="application/pdf", title=None))
    return made


def _size(size: int) -> tuple[list[table.Cell], float]:
    of = _tenant()
    index = _index(of)
    in_sql, in_chroma = _fill(of, index, max(1, size // PASSAGES), _templates())
    took, laps = _asked(of, Reach(index_ids=[index]))
    memory = machine.memory(os.getpid())["pss"]  # Chroma's process is a child of this one
    median = table.median(took)
    part = {name: table.median([lap.get(name, 0.0) for lap in laps]) for name in laps[0]}
    row: list[table.Cell] = [
        f"{size:,}",
        median,
        table.percentile(took, 0.95),
        part["keywords_ms"],
        part.get("vectors_ms", 0.0),
        part["ranking_ms"],
        in_sql,
        in_chroma,
        memory,
    ]
    return row, median


def _fill(of: Of, index: str, count: int, templates: Sequence[Parsed]) -> tuple[float, float]:
    """So many documents; CPU would not tell what Chroma's process does, so these are seconds of the clock."""
    maker = vectors.embedder()
    name = "none" if isinstance(maker, Unavailable) else maker.name
    numbers = np.random.default_rng(1)
    postings = [document_postings(parsed.passages) for parsed in templates[:count]]
    in_sql = in_chroma = 0.0
    for number in range(count):
        parsed = templates[number % len(templates)]
        began = time.monotonic()
        with transaction(of) as db:
            document = db.put(
                Document(
                    id=new_id(),
                    index_id=index,
                    scope_id=index,
                    name=f"Report {number}.pdf",
                    media_type=parsed.media_type,
                    size=1,
                    content_sha256=secrets.token_hex(32),
                )
            )
        library.write_passages(of, document, parsed, postings[number % len(postings)], {}, name)
        in_sql += time.monotonic() - began
        began = time.monotonic()
        made = numbers.standard_normal((PASSAGES, WIDTH)).astype(np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        vectors.upsert(library.place_of_vectors(document, name), document.id, range(PASSAGES), made)
        in_chroma += time.monotonic() - began
        library.settle(of, document.id, IngestStatus.READY, progress=1.0, vector_count=PASSAGES)
    return in_sql, in_chroma


def _asked(of: Of, reach: Reach) -> tuple[list[float], list[dict[str, float]]]:
    chance = random.Random(2)  # noqa: S311 - the same questions each time
    took, laps = [], []
    for number in range(QUERIES + 5):
        question = f"What is the {' '.join(chance.sample(WORDS, 4))} of the company?"
        found = retrieval.search(of, question, reach=reach, threshold=0.0)
        assert found.searched, question
        assert found.degraded is None, found.degraded
        if number >= 5:  # the first ones load what the others find loaded
            took.append(found.took_ms)
            laps.append(found.timings)
    return took, laps


def _growth(medians: Sequence[float]) -> None:
    if len(medians) < 3:
        return
    each = (medians[-1] - medians[-2]) / (SIZES[-1] - SIZES[-2])
    far = (medians[-1] + each * (10**7 - SIZES[-1])) / 1000
    print(
        f"  The last {SIZES[-1] - SIZES[-2]:,} passages added {medians[-1] - medians[-2]:.0f} ms. Words and "
        f"ranking look at each passage, so that a search over 10^7 in one index takes about {far:.1f} s:\n"
        "  at that size, split the passages over indices or narrow searches by category; what is not "
        "searched costs nothing."
    )


def _many() -> None:
    templates = _templates()[:1]
    one = _tenant()
    indices = [_index(one) for _ in range(MANY)]
    for index in indices:
        _fill(one, index, 1, templates)
    rows: list[list[table.Cell]] = []
    for name, reach in (
        (f"one of {MANY} indices", Reach(index_ids=indices[:1])),
        (f"all {MANY} indices of a tenant", Reach(everything=True)),
    ):
        took, _ = _asked(one, reach)
        rows.append([name, table.median(took), table.percentile(took, 0.95)])
    last = one
    for _ in range(MANY):
        last = _tenant()
        _fill(last, _index(last), 1, templates)
    took, _ = _asked(last, Reach(everything=True))
    rows.append([f"one of {MANY} more tenants", table.median(took), table.percentile(took, 0.95)])
    table.show([f"{PASSAGES} passages in each", "p50 ms", "p95 ms"], rows)


def _tenant() -> Of:
    with platform() as db:
        return Of(db.put(Tenant(name=f"Tenant {secrets.token_hex(4)}")).id)


def _index(of: Of) -> str:
    with transaction(of) as db:
        return db.put(KnowledgeIndex(name=f"Index {secrets.token_hex(4)}")).id

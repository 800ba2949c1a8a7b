"""``make evaluate DOCUMENTS=folder QUESTIONS=file.jsonl``: does a search find the page that answers?

A question is a line of JSON: ``id``, ``document`` (a file of the folder), ``question``, ``kind``, ``pages``
(each of which answers it; from 1) and, where several figures are needed, ``pages_all`` (a list of pages for
each). A server is started, reads the documents, and is asked over HTTP; what its ranking's parts are worth
is then measured on the same data. docs/retrieval.md says how to read what is printed.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from models.knowledge.ranking import Method, Mode
from tests import servers
from tests.benchmarks import machine, table
from tests.benchmarks.installation import API, client_of

DEPTH = 10
CUTS = (1, 5, 10)
READY_WITHIN = 1800.0
Place = tuple[str, int | None]
Asked = Callable[["Question", bool], list[Place]]
"""The places found for a question, best first: within its own document (True) or all together."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and where its answer stands."""

    id: str
    document: str
    question: str
    kind: str
    pages: Sequence[int]
    pages_all: Sequence[Sequence[int]] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, line: str) -> Question:
        """Read one line of the file."""
        raw = json.loads(line)
        known = {name: raw.pop(name) for name in list(raw) if name in cls.__slots__ and name != "rest"}
        return cls(**known, rest=raw)

    def is_hit(self, found: Sequence[Place], cut: int) -> bool:
        """Whether one of the right pages is among the first."""
        return any((self.document, page) in found[:cut] for page in self.pages)

    def has_all(self, found: Sequence[Place], cut: int) -> bool:
        """Whether every figure that is needed is among the first."""
        return all(any((self.document, page) in found[:cut] for page in needed) for needed in self.pages_all)


@dataclass(frozen=True, slots=True)
class Variant:
    """The ranking with some of its parts."""

    name: str
    mode: Mode = "hybrid"
    expand: bool = True
    method: Method = field(default_factory=Method)


@dataclass(frozen=True, slots=True)
class _Tenant:
    """Whose documents are searched."""

    tenant_id: str


_BARE = Method(statement_boost=0.0, metadata=False)
VARIANTS = (
    Variant("keyword", "keyword", expand=False, method=_BARE),
    Variant("vector", "vector", expand=False, method=_BARE),
    Variant("fused", expand=False, method=_BARE),
    Variant("+ expansion", method=_BARE),
    Variant("+ statement boost", method=replace(_BARE, statement_boost=Method().statement_boost)),
    Variant("+ metadata: as served"),
    Variant("as served, keyword only", "keyword"),
)


def main() -> int:
    """Measure and print; the status is 0 whatever the figures say."""
    folder, listed = os.environ.get("DOCUMENTS"), os.environ.get("QUESTIONS")
    if not folder or not listed:
        print("Say which: make evaluate DOCUMENTS=folder QUESTIONS=file.jsonl", file=sys.stderr)
        return 2
    lines = Path(listed).read_text("utf-8").splitlines()
    questions = [Question.of(line) for line in lines if line.strip()]
    files = [path for path in sorted(Path(folder).iterdir()) if path.name in {q.document for q in questions}]
    missing = {q.document for q in questions} - {path.name for path in files}
    if missing:
        print(f"These are not in {folder}: {', '.join(sorted(missing))}", file=sys.stderr)
        return 2
    print(machine.facts())
    with (
        tempfile.TemporaryDirectory(prefix="booga-evaluate-") as data,
        servers.started(Path(data), "sqlite", {}) as server,
        client_of(server) as client,
    ):
        index, ids = _indexed(client, files)
        _over_http(client, index, ids, questions)
        server.stop()
        _ablation(server, index, ids, questions)
    return 0


def _indexed(client: httpx.Client, files: Sequence[Path]) -> tuple[str, dict[str, str]]:
    """The index that holds the files, and the id of each document by name."""
    index: str = client.post(f"{API}/knowledge/indices", json={"name": "Evaluation"}).json()["id"]
    began, ids = time.monotonic(), {}
    for path in files:
        with path.open("rb") as content:
            answer = client.post(
                f"{API}/knowledge/documents",
                files={"file": (path.name, content)},
                data={"index_id": index},
            )
        ids[path.name] = answer.raise_for_status().json()["id"]
    for name, id in ids.items():
        while (body := client.get(f"{API}/knowledge/documents/{id}").json())["status"] != "ready":
            assert body["status"] != "failed", f"{name}: {body['error_code']}"
            assert time.monotonic() - began < READY_WITHIN, f"{name} is not ready"
            time.sleep(0.5)  # reading takes the server's core
    print(f"{len(ids)} documents were ready after {time.monotonic() - began:.0f} s\n")
    return index, ids


def _over_http(
    client: httpx.Client, index: str, ids: Mapping[str, str], questions: Sequence[Question]
) -> None:
    took: dict[bool, list[float]] = {True: [], False: []}
    results: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for question in questions:
        for own in (True, False):
            body = {
                "query": question.question,
                "index_ids": [index],
                "max_documents": DEPTH,
                "score_threshold": 0,
                **({"document_ids": [ids[question.document]]} if own else {}),
            }
            began = time.perf_counter()
            answer = client.post(f"{API}/knowledge/search", json=body)
            took[own].append((time.perf_counter() - began) * 1000)
            results[question.id, own] = answer.raise_for_status().json()["results"]

    def found(question: Question, own: bool) -> list[Place]:
        return [(hit["document_name"], hit["page"]) for hit in results[question.id, own]]

    for own, title in ((True, "own document"), (False, "all documents together")):
        print(f"Over HTTP, {title}: median {table.median(took[own]):.1f} ms a search")
        _by_kind(questions, own, found)
    for own, title in ((True, "own document"), (False, "all documents together")):
        print(f"Misses among the first {DEPTH}, {title}:")
        missed = [question for question in questions if not question.is_hit(found(question, own), DEPTH)]
        for question in missed:
            _miss(question, results[question.id, own])
        print("  none\n" if not missed else "")


def _by_kind(questions: Sequence[Question], own: bool, found: Asked) -> None:
    kinds = [*dict.fromkeys(question.kind for question in questions), "all"]
    rows: list[list[table.Cell]] = []
    for kind in kinds:
        of = [question for question in questions if kind in (question.kind, "all")]
        needing = [question for question in of if question.pages_all]
        row: list[table.Cell] = [f"{kind} ({len(of)})"]
        row += [_share(sum(q.is_hit(found(q, own), cut) for q in of), len(of)) for cut in CUTS]
        row += [
            _share(sum(q.has_all(found(q, own), cut) for q in needing), len(needing)) if needing else None
            for cut in CUTS[1:]
        ]
        rows.append(row)
    table.show(["", *(f"hit@{cut}" for cut in CUTS), *(f"all@{cut}" for cut in CUTS[1:])], rows)
    print()


def _share(hits: int, of: int) -> str:
    """A count with its 95 % interval, in per cent."""
    low, high = interval(hits, of)
    return f"{hits} ({100 * low:.0f}-{100 * high:.0f} %)"


def interval(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share (1927): sound for few questions, and near 0 and 1."""
    share, square = hits / of, z * z / of
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / of + square / (4 * of)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _miss(question: Question, hits: Sequence[Mapping[str, Any]]) -> None:
    pages = ", ".join(map(str, question.pages))
    print(
        f"  {question.id} [{question.kind}] {question.question}\n    stands in {question.document}, {pages}"
    )
    for hit in hits[:3]:
        why = "; ".join(hit["reasons"])
        print(f"    found {hit['document_name']}, {hit['page']} ({hit['score']:.2f}: {why})")


def _ablation(
    server: servers.Server, index: str, ids: Mapping[str, str], questions: Sequence[Question]
) -> None:
    """What each part is worth, on the data that the server left, by the function that it searches with."""
    for name, value in server.environment.items():
        if name.startswith("BOOGA_"):
            os.environ[name] = value
    from storage import retrieval, vectors  # with the server's settings, which are read once
    from storage.retrieval import Narrow, Reach

    names = {id: name for name, id in ids.items()}
    of = _Tenant(server.tenant["tenant_id"])

    def asked(variant: Variant) -> Asked:
        kept: dict[tuple[str, bool], list[Place]] = {}

        def found(question: Question, own: bool) -> list[Place]:
            key = question.id, own
            if key not in kept:
                hits = retrieval.search(
                    of,
                    question.question,
                    reach=Reach(index_ids=[index]),
                    narrow=Narrow(document_ids=[ids[question.document]]) if own else None,
                    limit=DEPTH,
                    threshold=0.0,
                    mode=variant.mode,
                    expand=variant.expand,
                    method=variant.method,
                ).hits
                kept[key] = [(names[hit.document_id], hit.page) for hit in hits]
            return kept[key]

        return found

    ways = {variant.name: asked(variant) for variant in VARIANTS}
    try:
        for own, title in ((True, "own document"), (False, "all documents together")):
            print(f"What each part is worth, {title} (hits of {len(questions)}):")
            rows: list[list[table.Cell]] = [
                [name, *(sum(q.is_hit(found(q, own), cut) for q in questions) for cut in CUTS)]
                for name, found in ways.items()
            ]
            rows.append(["chosen without the document asked", *_left_out(questions, own, ways)])
            table.show(["", *(f"hit@{cut}" for cut in CUTS)], rows)
            print()
    finally:
        vectors.close()


def _left_out(questions: Sequence[Question], own: bool, ways: Mapping[str, Asked]) -> list[int]:
    """Hits where each document is judged by the variant that is best on all the others."""
    totals = [0] * len(CUTS)
    for document in dict.fromkeys(question.document for question in questions):
        others = [question for question in questions if question.document != document]
        best = max(ways.values(), key=lambda found: _merit(others, own, found))
        for at, cut in enumerate(CUTS):
            totals[at] += sum(q.is_hit(best(q, own), cut) for q in questions if q.document == document)
    return totals


def _merit(questions: Sequence[Question], own: bool, found: Asked) -> int:
    return sum(question.is_hit(found(question, own), cut) for question in questions for cut in CUTS)


if __name__ == "__main__":
    sys.exit(main())

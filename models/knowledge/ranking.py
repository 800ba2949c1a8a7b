"""Which pages answer a question: BM25 over passages and pages, fused with vectors, the same on every store.

Everything is counted over the documents that are passed in, so statistics never reach beyond what a search
may see. Sources: BM25 as in Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009);
reciprocal rank fusion as in Cormack, Clarke and Buettcher (SIGIR 2009).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.knowledge import relevance
from models.knowledge.expansion import STATEMENTS, AnalysedQuery
from models.knowledge.keywords import CONTEXT_BIT, ENTRY, MOST_TIMES, POSITION_SHIFT, Layout

Mode = Literal["hybrid", "vector", "keyword"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


# More than this share of figures makes a page a table.
STATEMENT_FIGURES = 0.15
# What a term's other names count for the score, where the term itself is missing.
SYNONYM_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Method:
    """The constants of the ranking, and its parts that can be left out to see what they are worth."""

    k1: float = 1.2
    b: float = 0.75
    # What a term in a passage's context (its page's title lines) counts beside one in its text.
    context: float = 0.5
    # Cormack's constant: how little the first few ranks of a list weigh against agreement between lists.
    rrf_k: int = 60
    # What each list counts in the fusion.
    passages: float = 1.0
    pages: float = 1.0
    vectors: float = 1.0
    # A page that opens with the title of a statement asked for, and is a table, counts so much more.
    statement_boost: float = 1.0
    # Whether the company, period and form that a question names say which documents come first.
    metadata: bool = True
    # How many pages of each list take part in the fusion.
    depth: int = 200

    def most(self, mode: Mode) -> float:
        """The fused sum of a page that is first in every list."""
        lists = 0.0 if mode == "keyword" else self.vectors
        if mode != "vector":
            lists += self.passages + self.pages
        return lists / (self.rrf_k + 1)


@dataclass(frozen=True, slots=True)
class DocumentView:
    """What ranking needs of one document: its shape, the rows of the query's terms, its metadata.

    `embedded` is how many passages, from the first on, have their vectors; None: all.
    """

    layout: Layout
    postings: Mapping[str, bytes]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    embedded: int | None = None


@dataclass(frozen=True, slots=True)
class VectorHit:
    """A passage near the question's vector; `cosine` is -1..1."""

    document_id: str
    position: int
    cosine: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """One page and its best passage. `score` is absolute (0 <= score < 1); hits stand in rank order."""

    document_id: str
    position: int
    unit: int
    score: float
    scores: Mapping[str, float]
    reasons: tuple[str, ...]


def rank(
    query: AnalysedQuery,
    documents: Mapping[str, DocumentView],
    vector_hits: Sequence[VectorHit] = (),
    mode: Mode = "hybrid",
    limit: int = 10,
    *,
    threshold: float = relevance.DEFAULT_THRESHOLD,
    scale: relevance.CosineScale = relevance.MINILM,
    method: Method | None = None,
) -> list[Ranked]:
    """The pages that answer `query` best, at most `limit`, one hit a page, best first.

    `documents` are those a search may see, and no others: document frequencies are counted over them. Each
    needs its rows for `keywords.terms_needed(query)`. `vector_hits` may come in any order; those of documents
    that are not passed in are left out; `scale` tells what the cosines of their embedder mean. Hits whose
    score is below `threshold` are dropped. What counts is the order; a hit may well score more than the one
    above it, because lists agree on ranks while the score weighs the evidence for that page alone.
    """
    method = method or Method()
    if not documents or limit < 1:
        return []
    scope = _Scope(documents)
    words = _Words(scope, query, method) if mode != "vector" else None
    vectors = _Vectors(scope, vector_hits) if mode != "keyword" else None
    fits = relevance.document_fits(query, [view.metadata for view in scope.views])
    fused = np.zeros(scope.page_count)
    if words is not None:
        fused += _by_words(scope, words, query, method)
    if vectors is not None:
        fused += method.vectors * _reciprocal(vectors.pages, method)
    if method.metadata:
        fused *= scope.per_page([fit.weight for fit in fits])
    evidence = _Evidence(scope, query, words, vectors, [fit.company for fit in fits], scale)
    passing = np.flatnonzero((fused > 0) & (evidence.scores >= threshold))
    order = passing[np.argsort(-fused[passing], kind="stable")][:limit]
    best = _best_passages(scope, words, vectors, query, order)
    most = method.most(mode)
    return [
        Ranked(
            document_id=scope.ids[scope.document_of(page)],
            position=best[page] - int(scope.first_passage[scope.document_of(page)]),
            unit=int(scope.units[page]),
            score=float(evidence.scores[page]),
            scores=evidence.parts(page) | {"fused": round(float(fused[page]) / most, 4)},
            reasons=evidence.reasons(page, fits[scope.document_of(page)]),
        )
        for page in order.tolist()
    ]


def _by_words(scope: "_Scope", words: "_Words", query: AnalysedQuery, method: Method) -> Floats:
    """The fused ranks of the keyword lists: best passage of the page, and whole page."""
    boost = scope.statement_boost(query.statements, method.statement_boost)
    fused = method.passages * _reciprocal(scope.best_of_page(words.passages(query.terms)) * boost, method)
    return fused + method.pages * _reciprocal(words.pages(query.terms) * boost, method)


def _best_passages(
    scope: "_Scope",
    words: "_Words | None",
    vectors: "_Vectors | None",
    query: AnalysedQuery,
    pages: Ints,
) -> dict[int, int]:
    """The passage of each page to show first: words and meaning count alike, the first of equals wins."""
    value = np.zeros(len(scope.page_of))
    if words is not None:
        found = words.passages(query.terms)
        value += found / max(float(found.max(initial=0.0)), 1e-9)
    if vectors is not None:
        value += vectors.passages
    first = np.searchsorted(scope.page_of, pages, side="left")
    last = np.searchsorted(scope.page_of, pages, side="right")
    return {
        int(page): int(start + np.argmax(value[start:end]))
        for page, start, end in zip(pages, first, last, strict=True)
    }


class _Evidence:
    """What speaks for each page on scales that mean the same for every question, and how to say it."""

    def __init__(
        self,
        scope: "_Scope",
        query: AnalysedQuery,
        words: "_Words | None",
        vectors: "_Vectors | None",
        companies: Sequence[bool],
        scale: relevance.CosineScale,
    ) -> None:
        self._scope, self._query, self._words = scope, query, words
        self._keyword = self._vector = None
        if words is not None:
            covered, matched = words.coverage(query)
            self._keyword = relevance.keyword_score(covered, matched, scope.per_page(companies))
        if vectors is not None:
            self._cosines = vectors.pages
            reachable = np.where(vectors.pages > 0, vectors.pages, vectors.unseen)
            self._vector = relevance.vector_score(reachable, scale)
        self.scores = relevance.combined(self._keyword, self._vector)
        if self._keyword is not None and vectors is not None:
            # That a vector is not there yet says nothing against a page.
            yet = scope.not_embedded() & (vectors.pages <= 0)
            self.scores = np.where(yet, self._keyword, self.scores)

    def parts(self, page: int) -> dict[str, float]:
        parts = {}
        if self._keyword is not None:
            parts["keyword"] = round(float(self._keyword[page]), 4)
        if self._vector is not None and self._cosines[page] > 0:
            parts["vector"] = round(float(self._cosines[page]), 4)
        return parts

    def reasons(self, page: int, fit: relevance.Fit) -> tuple[str, ...]:
        told: list[str] = []
        if self._words is not None:
            present = self._words.terms_on(page)
            said = [word for term, word in self._query.spelled.items() if term in present]
            if said:
                told.append(f"words: {', '.join(said)}")
            named = self._query.concepts.items()
            told += [f"also called: {name}" for name, terms in named if terms <= present]
            bits = int(self._scope.statements[page]) if self._scope.looks_tabular(page) else 0
            told += [
                f"statement: {name}"
                for bit, name in enumerate(STATEMENTS)
                if bits >> bit & 1 and name in self._query.statements
            ]
        if self._vector is not None and self._cosines[page] > 0:
            told.append(f"meaning: {self._cosines[page]:.2f}")
        return (*told, *fit.reasons)


class _Scope:
    """All documents of a search laid end to end: passages and pages get one number each."""

    def __init__(self, documents: Mapping[str, DocumentView]) -> None:
        self.ids = list(documents)
        self.views = list(documents.values())
        layouts = [view.layout for view in self.views]
        self.first_passage = np.cumsum([0, *(len(layout.page_of) for layout in layouts)])
        self.first_page = np.cumsum([0, *(len(layout.units) for layout in layouts)])
        self.page_of = np.concatenate(
            [layout.page_of + start for layout, start in zip(layouts, self.first_page, strict=False)]
        ).astype(np.int64)
        self.lengths = np.concatenate([layout.lengths for layout in layouts]).astype(np.float64)
        self.units = np.concatenate([layout.units for layout in layouts])
        self.statements = np.concatenate([layout.statements for layout in layouts])
        self.figures = np.concatenate([layout.figures for layout in layouts])
        self.page_count = len(self.units)

    def document_of(self, page: int) -> int:
        return int(np.searchsorted(self.first_page, page, side="right")) - 1

    def per_page(self, per_document: Sequence[float]) -> Floats:
        return np.asarray(np.repeat(per_document, np.diff(self.first_page)), np.float64)

    def not_embedded(self) -> npt.NDArray[np.bool_]:
        """The pages none of whose passages has a vector yet."""
        firsts = [
            np.searchsorted(view.layout.page_of, np.arange(len(view.layout.units))) for view in self.views
        ]
        bounds = [len(view.layout.page_of) if view.embedded is None else view.embedded for view in self.views]
        return np.concatenate([first >= bound for first, bound in zip(firsts, bounds, strict=True)])

    def statement_boost(self, statements: frozenset[str], boost: float) -> Floats:
        wanted = sum(1 << bit for bit, name in enumerate(STATEMENTS) if name in statements)
        looks = (self.statements & np.uint8(wanted)).astype(bool) & (self.figures > STATEMENT_FIGURES)
        return 1.0 + boost * looks.astype(np.float64)

    def looks_tabular(self, page: int) -> bool:
        return bool(self.figures[page] > STATEMENT_FIGURES)

    def best_of_page(self, per_passage: Floats) -> Floats:
        best: Floats = np.zeros(self.page_count)
        np.maximum.at(best, self.page_of, per_passage)
        return best


class _Words:
    """The query's postings over the whole scope, decoded once and scored for any weighting of the terms."""

    def __init__(self, scope: _Scope, query: AnalysedQuery, method: Method) -> None:
        self.scope = scope
        self.numbers = {term: number for number, term in enumerate(query.terms)}
        rows: list[bytes] = []
        starts: list[int] = []
        of_term: list[int] = []
        for term, number in self.numbers.items():
            for document, view in enumerate(scope.views):
                row = view.postings.get(term)
                if row:
                    rows.append(row)
                    starts.append(int(scope.first_passage[document]))
                    of_term.append(number)
        counts = np.array([len(row) // ENTRY.itemsize for row in rows], np.int64)
        entries = np.frombuffer(b"".join(rows), ENTRY).astype(np.int64)
        self.passage = (entries >> POSITION_SHIFT) + np.repeat(np.array(starts, np.int64), counts)
        self.term = np.repeat(np.array(of_term, np.int64), counts)
        times = (entries & MOST_TIMES).astype(np.float64)
        titled = ((entries & CONTEXT_BIT) > 0).astype(np.float64)
        size = len(self.numbers)
        frequency = np.bincount(self.term, minlength=size)
        total = len(scope.lengths)
        self.idf = np.log1p((total - frequency + 0.5) / (frequency + 0.5))
        weighted = times + method.context * titled
        saturated = _saturated(weighted, scope.lengths[self.passage], scope.lengths, method)
        self.part = saturated * self.idf[self.term]
        # Pages: entries of one term on one page stand side by side.
        page = scope.page_of[self.passage]
        key = self.term * scope.page_count + page
        edges = np.flatnonzero(np.diff(key, prepend=-1))
        self.page = page[edges]
        self.page_term = self.term[edges]
        page_lengths = _sums(scope.page_of, scope.lengths, scope.page_count)
        if len(edges):
            page_times = np.add.reduceat(times, edges) + method.context * np.maximum.reduceat(titled, edges)
        else:
            page_times = np.zeros(0)
        page_frequency = np.bincount(self.page_term, minlength=size)
        self.page_idf = np.log1p((scope.page_count - page_frequency + 0.5) / (page_frequency + 0.5))
        saturated = _saturated(page_times, page_lengths[self.page], page_lengths, method)
        self.page_part = saturated * self.page_idf[self.page_term]

    def passages(self, weights: Mapping[str, float]) -> Floats:
        by_term = self._by_term(weights)
        return _sums(self.passage, self.part * by_term[self.term], len(self.scope.lengths))

    def pages(self, weights: Mapping[str, float]) -> Floats:
        by_term = self._by_term(weights)
        return _sums(self.page, self.page_part * by_term[self.page_term], self.scope.page_count)

    def coverage(self, query: AnalysedQuery) -> tuple[Floats, Floats]:
        """How much of the question stands on each page: its share by idf, and its sum in rarest terms.

        A term counts whole where it stands itself, and `SYNONYM_SHARE` where its other names do.
        """
        rarest = float(np.log1p((self.scope.page_count + 0.5) / 0.5))
        present = np.zeros((len(self.numbers), self.scope.page_count), bool)
        present[self.page_term, self.page] = True
        matched = np.zeros(self.scope.page_count)
        whole = 0.0
        for term in query.asked:
            number = self.numbers[term]
            here = present[number].astype(np.float64)
            others = [self.numbers[other] for other in query.synonyms.get(term, ())]
            if others:
                share = self.page_idf[others] @ present[others] / self.page_idf[others].sum()
                here = np.maximum(here, SYNONYM_SHARE * share)
            matched += self.page_idf[number] * here
            whole += float(self.page_idf[number])
        return matched / max(whole, 1e-9), matched / rarest

    def terms_on(self, page: int) -> frozenset[str]:
        listed = list(self.numbers)
        return frozenset(listed[number] for number in self.page_term[self.page == page])

    def _by_term(self, weights: Mapping[str, float]) -> Floats:
        by_term = np.zeros(len(self.numbers))
        for term, weight in weights.items():
            by_term[self.numbers[term]] = weight
        return by_term


class _Vectors:
    """The cosines of passages, 0 where the store returned none, and the best of each page.

    `unseen` is what a page without a hit may reach: a store returns the nearest passages only, so the others
    are at most as near as the farthest of those. Without it, a page that words find would be punished for
    the number of hits that was asked for.
    """

    def __init__(self, scope: _Scope, hits: Sequence[VectorHit]) -> None:
        numbers = {document_id: number for number, document_id in enumerate(scope.ids)}
        known = [hit for hit in hits if hit.document_id in numbers]
        at = [int(scope.first_passage[numbers[hit.document_id]]) + hit.position for hit in known]
        self.passages = np.zeros(len(scope.page_of))
        self.passages[at] = np.maximum([hit.cosine for hit in known], 0.0)
        self.pages = scope.best_of_page(self.passages)
        cut_short = bool(known) and len(known) < len(scope.page_of)
        self.unseen = max(min(hit.cosine for hit in known), 0.0) if cut_short else 0.0


def _saturated(times: Floats, lengths: Floats, all_lengths: Floats, method: Method) -> Floats:
    """BM25's part of a term that stands `times` times in a text of that length."""
    average = max(float(all_lengths.sum()) / max(len(all_lengths), 1), 1.0)
    weighed: Floats = (
        times * (method.k1 + 1) / (times + method.k1 * (1 - method.b + method.b * lengths / average))
    )
    return weighed


def _sums(of: Ints, parts: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(of, weights=parts, minlength=size), np.float64)


def _reciprocal(scores: Floats, method: Method) -> Floats:
    """1 / (k + rank) for the best pages of a list, 0 for the others; equal scores keep document order."""
    candidates = np.flatnonzero(scores > 0)
    if len(candidates) > method.depth:
        least = np.partition(scores[candidates], -method.depth)[-method.depth]
        candidates = candidates[scores[candidates] >= least]
    order = candidates[np.argsort(-scores[candidates], kind="stable")][: method.depth]
    result = np.zeros(len(scores))
    result[order] = 1.0 / (method.rrf_k + np.arange(1, len(order) + 1))
    return result

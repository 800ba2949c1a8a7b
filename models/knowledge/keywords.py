"""What the keyword index keeps of a document: postings per term, and the shape of its pages.

Rows of `(term, document)` with a few bytes each are all that a store needs, so any database gives the same
results, statistics are counted over what a search may see, and deleting a document's rows deletes it.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.knowledge import analysis, expansion

# One entry of a posting is 32 bits, little-endian: passage position (24), whether the term stands in the
# passage's context (1), how often it stands in its text (7, at most 127).
ENTRY = np.dtype("<u4")
POSITION_SHIFT = 8
CONTEXT_BIT = 0x80
MOST_TIMES = 0x7F
MOST_PASSAGES = 1 << 24

# A statement says what it is in its first lines.
_LEAD_CHARACTERS = 600

_HEADER = struct.Struct("<BII")
_LAYOUT_VERSION = 1


class Text(Protocol):
    """What is indexed of a passage."""

    @property
    def unit(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def context(self) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The shape of a document: which page each passage lies on, how long it is, what the pages look like.

    `page_of` is an index into the page arrays. `lengths` counts index terms. `units` are the numbers that
    citations use. `statements` has a bit for each statement whose title opens the page, `figures` is the
    share of figures among its terms.
    """

    page_of: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.uint16]
    units: npt.NDArray[np.uint32]
    statements: npt.NDArray[np.uint8]
    figures: npt.NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """The form in which a store keeps it; about 6 bytes a passage and 6 a page."""
        return b"".join(
            (
                _HEADER.pack(_LAYOUT_VERSION, len(self.page_of), len(self.units)),
                self.page_of.astype("<u4").tobytes(),
                self.lengths.astype("<u2").tobytes(),
                self.units.astype("<u4").tobytes(),
                self.statements.astype("u1").tobytes(),
                np.round(self.figures * 255).astype("u1").tobytes(),
            )
        )

    @classmethod
    def from_bytes(cls, stored: bytes) -> "Layout":
        """Read what `to_bytes` wrote; ValueError for anything else."""
        if len(stored) < _HEADER.size:
            raise ValueError("not a layout")
        version, passages, pages = _HEADER.unpack_from(stored)
        if version != _LAYOUT_VERSION or len(stored) != _HEADER.size + 6 * (passages + pages):
            raise ValueError("not a layout of this version")
        at = _HEADER.size
        page_of = np.frombuffer(stored, "<u4", passages, at)
        lengths = np.frombuffer(stored, "<u2", passages, at := at + 4 * passages)
        units = np.frombuffer(stored, "<u4", pages, at := at + 2 * passages)
        statements = np.frombuffer(stored, "u1", pages, at := at + 4 * pages)
        figures = np.frombuffer(stored, "u1", pages, at + pages).astype(np.float32) / np.float32(255)
        return cls(page_of, lengths, units, statements, figures)


@dataclass(frozen=True, slots=True)
class DocumentPostings:
    """What to store of one document: `terms` one row each, `layout` once."""

    terms: dict[str, bytes]
    layout: bytes


def document_postings(passages: Sequence[Text]) -> DocumentPostings:
    """Index a document's passages, which stand in reading order, position 0 first.

    ValueError when there are more passages than an entry can number (16.7 million, some 15 GB of text).
    """
    if len(passages) >= MOST_PASSAGES:
        raise ValueError(f"a document has at most {MOST_PASSAGES} passages")
    postings: dict[str, list[int]] = {}
    page_of: list[int] = []
    lengths: list[int] = []
    pages: list[_Page] = []
    for position, passage in enumerate(passages):
        if not pages or pages[-1].unit != passage.unit:
            pages.append(_Page(passage.unit))
        counts = Counter(analysis.terms(passage.text))
        context = set(analysis.terms(passage.context))
        for term in counts.keys() | context:
            times = min(counts[term], MOST_TIMES)
            entry = position << POSITION_SHIFT | (CONTEXT_BIT if term in context else 0) | times
            postings.setdefault(term, []).append(entry)
        page_of.append(len(pages) - 1)
        lengths.append(min(counts.total(), 0xFFFF))
        pages[-1].add(passage.text, counts)
    layout = Layout(
        page_of=np.array(page_of, np.uint32),
        lengths=np.array(lengths, np.uint16),
        units=np.array([page.unit for page in pages], np.uint32),
        statements=np.array([expansion.statement_bits(page.lead) for page in pages], np.uint8),
        figures=np.array([page.figure_share for page in pages], np.float32),
    )
    return DocumentPostings(
        {term: np.array(entries, ENTRY).tobytes() for term, entries in postings.items()}, layout.to_bytes()
    )


class _Page:
    """What is gathered of a page while its passages go by."""

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.lead = ""
        self._figures = 0
        self._terms = 0

    def add(self, text: str, counts: Counter[str]) -> None:
        if len(self.lead) < _LEAD_CHARACTERS:
            self.lead = f"{self.lead}\n{text}"[:_LEAD_CHARACTERS]
        self._figures += sum(times for term, times in counts.items() if analysis.is_figure(term))
        self._terms += counts.total()

    @property
    def figure_share(self) -> float:
        return self._figures / self._terms if self._terms else 0.0


def terms_needed(query: expansion.AnalysedQuery) -> Iterable[str]:
    """The terms whose rows a store has to fetch before `ranking.rank` can be called."""
    return query.terms.keys()

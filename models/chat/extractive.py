"""The provider that needs no language model: it answers with the passages themselves.

Out of each passage it takes the sentences and table rows that say most about the question and quotes them
letter for letter. It writes nothing of its own about the matter, so it cannot be wrong about it.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from models.chat.ports import (
    Finished,
    Prompt,
    ReplyPart,
    Source,
    TextDelta,
    estimate_tokens,
    estimated_usage,
)
from models.knowledge import analysis, expansion

SHOWN_SOURCES: Final = 4
SHOWN_QUOTES: Final = 3
LONGEST_QUOTE: Final = 600
"""Characters. What is longer without a full stop is no sentence."""

PASSAGES: Final = (
    "No language model is configured, so here are the passages of the documents that fit the question best, "
    "quoted as they stand."
)
INSUFFICIENT: Final = (
    "The evidence in the documents is insufficient: no passage fits this question well enough to be shown. "
    "No language model is configured, so passages are all that can be shown."
)
NOT_SEARCHED: Final = (
    "No language model is configured, so I can only show passages from documents, and no documents were "
    "searched for this question."
)

_ASKS_AMOUNT: Final = re.compile(
    r"\bhow (?:much|many|large|big|high|low|long|old)\b|%|\b(?:amount|total|number|percent\w*|rate|ratio"
    r"|margin|value|cost|price|revenue|sales|income|profit|loss|earnings|expenses?|cash|debt|assets|liabilities)\b",
    re.IGNORECASE,
)
_FIGURE: Final = re.compile(r"\d[\d,.]*")
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
_SCALE_BEHIND = re.compile(r"\s+(?:thousand|million|billion|trillion|percent|per cent|%)\b")
_SENTENCE_END: Final = re.compile(r"[.!?][\"”’)]*(?=\s+[\"“(]?[A-Z0-9])")
_ABBREVIATION: Final = re.compile(r"(?:\b[A-Z]|\b(?:No|vs|cf|Mr|Mrs|Ms|Dr|St|Inc|Ltd|Corp|Co))\.$")

FIGURE_BONUS: Final = 1.5
"""How much more a quote with figures counts where the question asks for one."""
ROOMY: Final = 12
"""Terms beyond which a quote's length begins to count against it."""


@dataclass(frozen=True, slots=True)
class _Quote:
    """A sentence or a row: `text` is `source.text[start:end]`."""

    start: int
    end: int
    text: str
    terms: frozenset[str]
    length: int


class ExtractiveProvider:
    """Shows the passages, with their citations. Needs no network, no key and no model; it never fails."""

    def __init__(self, name: str = "extractive") -> None:
        self.name = name

    async def stream(self, prompt: Prompt) -> AsyncGenerator[ReplyPart, None]:
        """The passages, a line at a time. The chat model and the temperature mean nothing to it."""
        text, reason, left = "", "stop", prompt.max_output_tokens or math.inf
        for piece in _pieces(prompt):
            left -= estimate_tokens(piece)
            if left < 0 and text:
                reason = "length"
                break
            text += piece
            yield TextDelta(piece)
            await asyncio.sleep(0)  # the line is on its way before the next is made
        yield estimated_usage(prompt, text)
        yield Finished(reason)


def _pieces(prompt: Prompt) -> Iterator[str]:
    if not prompt.searched:
        yield NOT_SEARCHED
        return
    if not prompt.sources:
        yield INSUFFICIENT
        return
    yield PASSAGES
    for source, quotes in best_quotes(prompt.question, prompt.sources):
        yield f"\n\n{_place(source)} [{source.number}]"
        for quote in quotes:
            yield f"\n“{quote}”"


def _place(source: Source) -> str:
    """Where the passage stands, in a reader's words."""
    spot = [f"page {source.page}" if source.page else "", source.sheet or "", source.cell or ""]
    return ", ".join(part for part in [source.document_name, *spot, source.heading or ""] if part)


def best_quotes(question: str, sources: Sequence[Source]) -> list[tuple[Source, list[str]]]:
    """The sources that say most about the question, best first, each with its best quotes in reading order.

    A term counts by its weight in the question (the names that filings use for the matter included) and by
    its rarity among all the quotes. Where nothing matches a word, the sources stand in the order given,
    each with its beginning.
    """
    wanted = expansion.analyse(question).terms
    cut = [list(_quotes(source.text)) for source in sources]
    every = [quote for quotes in cut for quote in quotes]
    holders = Counter(term for quote in every for term in quote.terms)
    worth = {
        term: weight * math.log(1 + len(every) / holders[term])
        for term, weight in wanted.items()
        if holders[term]
    }
    amount = bool(_ASKS_AMOUNT.search(question))
    found: list[tuple[Source, list[str]]] = []
    for source, quotes in zip(sources, cut, strict=True):
        rated = [(_rating(quote, worth, amount), quote) for quote in quotes]
        best = sorted((pair for pair in rated if pair[0] > 0), key=lambda pair: -pair[0])[:SHOWN_QUOTES]
        if best:
            # A quote far below its source's best only hides it.
            chosen = [quote for rating, quote in best if rating >= best[0][0] / 3]
            found.append((source, _with_years(chosen, quotes)))
    if not found:
        found = [(source, [quotes[0].text]) for source, quotes in zip(sources, cut, strict=True) if quotes]
    return found[:SHOWN_SOURCES]


def _rating(quote: _Quote, worth: Mapping[str, float], amount: bool) -> float:
    rating = sum(worth[term] for term in quote.terms & worth.keys())
    if amount and _figures(quote.text):
        rating *= FIGURE_BONUS
    return rating / math.sqrt(max(1.0, quote.length / ROOMY))


def _with_years(chosen: list[_Quote], quotes: Sequence[_Quote]) -> list[str]:
    """The chosen quotes in reading order, and above a row of figures the line with its columns' years."""
    shown = {quote.start: quote for quote in chosen}
    for quote in chosen:
        if len(_figures(quote.text)) >= 2:
            above = [
                other for other in quotes if other.start < quote.start and len(_YEAR.findall(other.text)) >= 2
            ]
            if above and len(above[-1].text) <= LONGEST_QUOTE / 4:
                shown[above[-1].start] = above[-1]
    return [shown[start].text for start in sorted(shown)]


def _figures(text: str) -> list[str]:
    """The figures of a text; a bare year is none."""
    return [figure for figure in _FIGURE.findall(text) if not _YEAR.fullmatch(figure.rstrip(".,"))]


def _quotes(text: str) -> Iterator[_Quote]:
    """The sentences and rows of a passage: a line of figures is a row, other lines run on as prose."""
    prose: list[tuple[int, int]] = []
    at = 0
    for line in text.splitlines(keepends=True):
        start, at = at, at + len(line)
        if _is_row(line) or not line.strip():
            yield from _sentences(text, prose)
            prose = []
            if line.strip():
                yield from _sentences(text, [(start, at)], whole=True)
        else:
            prose.append((start, at))
    yield from _sentences(text, prose)


def _is_row(line: str) -> bool:
    """Whether a line is a table's: about a third of it are figures."""
    words = line.split()
    figures = sum(1 for word in words if word.strip("$€£()—–-%").replace(",", "").replace(".", "").isdigit())
    return figures >= 1 and figures * 3 >= len(words) - 2


def _sentences(text: str, lines: Sequence[tuple[int, int]], *, whole: bool = False) -> Iterator[_Quote]:
    """The sentences in adjoining lines, as quotes no longer than `LONGEST_QUOTE`."""
    if not lines:
        return
    start, end = lines[0][0], lines[-1][1]
    ends = [] if whole else [match.end() for match in _SENTENCE_END.finditer(text, start, end)]
    for stop in [*(stop for stop in ends if not _ABBREVIATION.search(text, start, stop)), end]:
        while start < stop:
            part = min(stop, _break(text, start, stop))
            if quote := _quote(text, start, part):
                yield quote
            start = part


def _break(text: str, start: int, stop: int) -> int:
    """Where to end a quote that would be too long: after its last whole line, or its last whole word."""
    if stop - start <= LONGEST_QUOTE:
        return stop
    limit = start + LONGEST_QUOTE
    cut = max(text.rfind("\n", start + 1, limit), text.rfind(" ", start + 1, limit))
    return cut if cut > start else limit


def _quote(text: str, start: int, end: int) -> _Quote | None:
    inner = text[start:end]
    start += len(inner) - len(inner.lstrip())
    inner = inner.strip()
    if not inner:
        return None
    if inner[-1].isdigit() and (scale := _SCALE_BEHIND.match(text, start + len(inner))):
        inner += scale.group()  # a line that ends between a number and its scale would change the number
    terms = analysis.terms(inner)
    return _Quote(start, start + len(inner), inner, frozenset(terms), len(terms))

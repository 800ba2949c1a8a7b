"""Cutting a unit's text into passages: along lines, about 900 characters each, without overlap.

Cuts are pure functions of the text, so the same file always gives the same passages. They never leave
their unit, nor the section below a heading. Whole lines matter most in tables, where half a row is a
wrong figure; only a line that is longer than a passage is cut inside, at a sentence or a space.

Text is kept as the reader's own tools extract it: no Unicode normalisation. NFC would leave most
documents alone, but where it does change something (decomposed accents, compatibility characters) the
quote would differ from what a search in the viewer or a copy from it gives. Folding for search is
the search's own affair. `clean` takes out only what no store or viewer can show.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.knowledge.passages import Cut, Unit

PASSAGE_CHARACTERS = 900
CONTEXT_CHARACTERS = 240
_TITLE_LINE = 110  # a longer line is prose, not a title
_TITLE_LINES = 4
_RUNNING_SHARE = 0.3  # a line that opens more of the pages than this names the document, not the page

_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_NONCHARACTERS = re.compile("[\ufdd0-\ufdef\ufffe\uffff\ufeff]")
_SENTENCE_END = re.compile(r"[.!?;:]['\")\]\u201d\u2019]?\s+")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading that begins at offset `start`; `level` 1 is the outermost."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a sheet: where its text lies and which cells it covers, as in `A4` and `F4`."""

    start: int
    end: int
    first: str
    last: str


def clean(text: str) -> str:
    r"""Take out what a store would refuse or a reader could not see.

    Line ends become `\n`; control characters, NUL included (PostgreSQL has no place for it), become a
    space, so that words do not run together; lone surrogates become U+FFFD; noncharacters and byte
    order marks, which mark a glyph without a letter, go. Everything else stays as it is.
    """
    text = _BREAKS.sub("\n", text)
    text = _CONTROLS.sub(" ", text)
    text = _SURROGATES.sub("\ufffd", text)
    return _NONCHARACTERS.sub("", text)


def cut_pages(pages: Sequence[Unit]) -> Iterator[tuple[Unit, list[Cut]]]:
    """Cut each page on its own; its context is its title lines, without what runs through the document."""
    openings = [_opening_lines(page.text) for page in pages]
    counts = Counter(line for lines in openings for line in set(lines))
    common = max(2, _RUNNING_SHARE * len(pages))
    for page, lines in zip(pages, openings, strict=True):
        context = _clip(" \u00b7 ".join(line for line in lines if counts[line] <= common))
        yield page, [Cut(start, end, context=context) for start, end in spans(page.text)]


def cut_flow(unit: Unit, headings: Sequence[Heading]) -> list[Cut]:
    """Cut a flowing document, section by section; the context is the path of headings above."""
    cuts: list[Cut] = []
    path: list[Heading] = []
    edges = [*(heading.start for heading in headings), len(unit.text)]
    cuts += [Cut(start, end) for start, end in spans(unit.text, 0, edges[0])]
    for heading, end in zip(headings, edges[1:], strict=True):
        path = [above for above in path if above.level < heading.level] + [heading]
        context = _clip(" > ".join(step.title for step in path))
        cuts += [
            Cut(start, stop, context=context, heading=heading.title)
            for start, stop in spans(unit.text, heading.start, end)
        ]
    return cuts


def cut_sheet(unit: Unit, rows: Sequence[Row], header: Sequence[Row]) -> list[Cut]:
    """Cut a sheet into groups of whole rows; the context is its name and its header.

    A row longer than a passage is cut inside; all its parts name the row's cells.
    """
    names = [unit.title or "", *(unit.text[row.start : row.end] for row in header)]
    context = _clip(" \u00b7 ".join(" ".join(name.split()) for name in names if name.strip()))
    cuts: list[Cut] = []
    group: list[Row] = []

    def close() -> None:
        if group:
            cell = _area(group)
            found = spans(unit.text, group[0].start, group[-1].end)
            cuts.extend(Cut(start, end, context=context, cell=cell) for start, end in found)
            group.clear()

    for row in rows:
        if group and row.end - group[0].start > PASSAGE_CHARACTERS:
            close()
        group.append(row)
    close()
    return cuts


def spans(
    text: str, start: int = 0, end: int | None = None, *, size: int = PASSAGE_CHARACTERS
) -> list[tuple[int, int]]:
    """Cut `text[start:end]` into pieces of about `size` characters along its lines.

    Pieces are balanced: 1,000 characters give two of about 500 and not one of 900 and a scrap. They do not
    overlap, carry no white space at their ends, and together hold every letter and digit of the text."""
    end = len(text) if end is None else end
    length = end - start
    if length <= size:
        return _trimmed(text, [(start, end)])
    target = length / -(-length // size)
    pieces: list[tuple[int, int]] = []
    piece = start
    for line_start, line_end in _lines(text, start, end, size):
        over, under = line_end - piece - target, target - (line_start - piece)
        if line_start > piece and (line_end - piece > size or over > under):
            pieces.append((piece, line_start))
            piece = line_start
    if pieces and end - piece < size // 6 and end - pieces[-1][0] <= size * 5 // 4:
        piece = pieces.pop()[0]
    pieces.append((piece, end))
    return _trimmed(text, pieces)


def _lines(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """The lines of `text[start:end]`; one longer than `size` comes in several parts."""
    while start < end:
        newline = text.find("\n", start, end)
        line_end = end if newline < 0 else newline + 1
        while line_end - start > size:
            part_end = _inner_break(text, start, start + size)
            yield start, part_end
            start = part_end
        if start < line_end:
            yield start, line_end
        start = line_end


def _inner_break(text: str, start: int, limit: int) -> int:
    """Where to cut inside a long line: after the last sentence, else the last space, else at `limit`."""
    half = (start + limit) // 2
    sentence = half
    for match in _SENTENCE_END.finditer(text, half, limit):
        sentence = match.end()
    if sentence > half:
        return sentence
    space = max(text.rfind(" ", half, limit), text.rfind("\t", half, limit))
    return space + 1 if space >= half else limit


def _trimmed(text: str, pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pieces without the white space at their ends; those without a letter or digit are left out."""
    kept: list[tuple[int, int]] = []
    for start, end in pieces:
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if any(character.isalnum() for character in text[start:end]):
            kept.append((start, end))
    return kept


def _opening_lines(text: str) -> list[str]:
    """The first few short lines of a page, without page numbers."""
    lines: list[str] = []
    for raw in text[: _TITLE_LINE * _TITLE_LINES * 2].split("\n"):
        line = " ".join(raw.split())
        if len(line) > _TITLE_LINE or len(lines) == _TITLE_LINES:
            break
        if any(character.isalpha() for character in line):
            lines.append(line)
    return lines


def _area(rows: Sequence[Row]) -> str:
    """The range that a group of rows covers, such as `A4:F9`; a single cell stands alone."""
    columns = [re.sub(r"\d", "", cell) for row in rows for cell in (row.first, row.last)]
    order = sorted(columns, key=lambda column: (len(column), column))
    numbers = [int(re.sub(r"\D", "", row.first)) for row in (rows[0], rows[-1])]
    first, last = f"{order[0]}{numbers[0]}", f"{order[-1]}{numbers[-1]}"
    return first if first == last else f"{first}:{last}"


def _clip(text: str) -> str:
    """At most `CONTEXT_CHARACTERS` characters, cut at a word."""
    if len(text) <= CONTEXT_CHARACTERS:
        return text
    return text[: CONTEXT_CHARACTERS + 1].rsplit(" ", 1)[0][:CONTEXT_CHARACTERS]

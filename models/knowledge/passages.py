"""What is left of an uploaded file once it was read: units that a person can open, and passages to cite.

A unit is what a citation points at: one page, one sheet, or the whole of a document that flows. A
passage is a run of text inside one unit. Offsets count code points of the unit's text, so a quote can be
checked by slicing and never drifts from the page it claims to stand on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

UnitKind = Literal["page", "sheet", "section"]


@dataclass(frozen=True, slots=True)
class Unit:
    """One page, one sheet, or one flowing document; `number` counts from 1."""

    number: int
    kind: UnitKind
    title: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a passage lies inside its unit, before it is numbered within the document."""

    start: int
    end: int
    context: str = ""
    cell: str | None = None
    heading: str | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A citable run of text: `text` is `unit.text[start:end]`, letter for letter.

    `context` (the page's title lines, the sheet's header, the path of headings) helps a search to find
    the passage. It is embedded and matched together with the text and is never part of a quote.
    """

    position: int
    unit: int
    page: int | None
    sheet: str | None
    cell: str | None
    heading: str | None
    start: int
    end: int
    text: str
    context: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A whole document; `page_count` is None where the format has no pages."""

    units: tuple[Unit, ...]
    passages: tuple[Passage, ...]
    page_count: int | None
    media_type: str
    title: str | None


def assemble(
    parts: Iterable[tuple[Unit, Sequence[Cut]]], *, page_count: int | None, media_type: str, title: str | None
) -> Parsed:
    """Number the cuts of all units in reading order and slice their texts.

    Raises ValueError for a cut that lies outside its unit or is empty, so that a wrong offset is found
    where the document is read and not where it is quoted.
    """
    units: list[Unit] = []
    passages: list[Passage] = []
    for unit, cuts in parts:
        units.append(unit)
        for cut in cuts:
            if not 0 <= cut.start < cut.end <= len(unit.text):
                raise ValueError(f"cut {cut.start}:{cut.end} lies outside unit {unit.number}")
            passages.append(
                Passage(
                    position=len(passages),
                    unit=unit.number,
                    page=unit.number if unit.kind == "page" else None,
                    sheet=unit.title if unit.kind == "sheet" else None,
                    cell=cut.cell,
                    heading=cut.heading,
                    start=cut.start,
                    end=cut.end,
                    text=unit.text[cut.start : cut.end],
                    context=cut.context,
                )
            )
    return Parsed(tuple(units), tuple(passages), page_count, media_type, title)

"""Excel workbooks (XLSX), read from their XML (ECMA-376 part 1, SpreadsheetML), values as they are shown.

Read by hand because the usual libraries either take 0.4 s to import or give numbers without their
formats, so that a quote would say 0.125 where the sheet shows 12.5%.
"""

import math
from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element  # noqa: S405  (archive.py refuses what makes XML dangerous)

from models.knowledge.chunking import Row, clean, cut_sheet
from models.knowledge.passages import Cut, Unit
from storage.parsing.archive import Archive
from storage.parsing.document import Document, bound_characters, one_line
from storage.parsing.grid import column_name, header_rows
from storage.parsing.limits import Limits, ParseFailure
from storage.parsing.numberformat import BUILT_IN, shown

_S = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_ROW, _CELL, _VALUE = _S + "row", _S + "c", _S + "v"
_INLINE, _TEXT, _RUN = _S + "is", _S + "t", _S + "r"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_LAST_COLUMN = 16_384


def read(data: bytes, limits: Limits, progress: Callable[[float], None]) -> Document:
    """One unit a sheet; a row is a line, its cells parted by tabs, empty ones kept between filled ones."""
    archive = Archive(data, limits)
    main, book = archive.main(_S + "workbook")
    related = archive.relations(main)
    strings = _strings(archive, related)
    formats = _formats(archive, related)
    properties = book.find(_S + "workbookPr")
    from_1904 = properties is not None and properties.get("date1904") in ("1", "true")
    sheets = [sheet for sheet in book.iter(_S + "sheet") if _part(sheet, related)]
    parts: list[tuple[Unit, list[Cut]]] = []
    budget = _Budget(limits)
    for number, sheet in enumerate(sheets, start=1):
        part = _part(sheet, related)
        grid = _rows(archive.stream(part, _ROW), strings, formats, from_1904, budget)
        parts.append(_unit(number, clean(sheet.get("name", "")).strip() or f"Sheet {number}", grid))
        progress(number / len(sheets))
    if not any(cuts for _, cuts in parts):
        raise ParseFailure("empty_file", "The workbook has no filled cells.")
    return Document(parts)


class _Budget:
    """Counts cells and characters over all sheets."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._cells = self._characters = 0

    def spend(self, characters: int) -> None:
        self._cells += 1
        self._characters += characters + 1
        if self._cells > self._limits.cells:
            raise ParseFailure("too_large", f"The workbook has more than {self._limits.cells} cells.")
        bound_characters(self._characters, self._limits)


def _part(sheet: Element, related: dict[str, tuple[str, str]]) -> str:
    kind, name = related.get(sheet.get(_RELATION, ""), ("", ""))
    return name if kind == "worksheet" else ""


def _named(related: dict[str, tuple[str, str]], kind: str) -> str:
    return next((name for found, name in related.values() if found == kind), "")


def _strings(archive: Archive, related: dict[str, tuple[str, str]]) -> list[str]:
    name = _named(related, "sharedStrings")
    return [_plain_text(item) for item in archive.stream(name, _S + "si")] if name in archive.names else []


def _plain_text(item: Element) -> str:
    """The text of a string item, rich or not, without the reading aids of East Asian scripts."""
    pieces: list[str] = []
    for child in item:
        if child.tag == _TEXT:
            pieces.append(child.text or "")
        elif child.tag == _RUN:
            pieces.append(child.findtext(_TEXT) or "")
    return "".join(pieces)


def _formats(archive: Archive, related: dict[str, tuple[str, str]]) -> list[str]:
    """The number format of each cell style."""
    root = archive.xml(_named(related, "styles"))
    if root is None:
        return []
    custom = {node.get("numFmtId"): node.get("formatCode", "General") for node in root.iter(_S + "numFmt")}
    styles = root.find(_S + "cellXfs")
    numbers = [style.get("numFmtId", "0") for style in styles] if styles is not None else []
    return [
        custom.get(number) or BUILT_IN.get(int(number) if number.isdecimal() else 0, "General")
        for number in numbers
    ]


def _rows(
    elements: Iterator[Element], strings: list[str], formats: list[str], from_1904: bool, budget: _Budget
) -> Iterator[tuple[int, dict[int, str]]]:
    """The filled rows of a sheet: their number and their cells by column."""
    number = 0
    for element in elements:
        number = _integer(element.get("r"), number + 1)
        cells: dict[int, str] = {}
        column = 0
        for cell in element:
            if cell.tag != _CELL:
                continue
            column = _column(cell.get("r", ""), column + 1)
            text = one_line(_shown(cell, strings, formats, from_1904))
            if text and column <= _LAST_COLUMN:
                budget.spend(len(text))
                cells[column] = text
        if cells:
            yield number, cells


def _shown(cell: Element, strings: list[str], formats: list[str], from_1904: bool) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inline = cell.find(_INLINE)
        return "" if inline is None else _plain_text(inline)
    raw = cell.findtext(_VALUE) or ""
    if kind == "s":
        index = _integer(raw, -1)
        return strings[index] if 0 <= index < len(strings) else ""
    if kind == "b":
        return "TRUE" if raw.strip() == "1" else "FALSE"
    if kind != "n":
        return raw
    try:
        value = float(raw)
    except ValueError:
        return raw
    style = _integer(cell.get("s"), 0)
    code = formats[style] if style < len(formats) else "General"
    return shown(value, code, from_1904=from_1904) if math.isfinite(value) else raw


def _unit(number: int, name: str, grid: Iterator[tuple[int, dict[int, str]]]) -> tuple[Unit, list[Cut]]:
    lines: list[str] = []
    rows: list[Row] = []
    counts: list[int] = []
    start = 0
    for row, cells in grid:
        first, last = min(cells), max(cells)
        line = "\t".join(cells.get(column, "") for column in range(first, last + 1))
        rows.append(Row(start, start + len(line), f"{column_name(first)}{row}", f"{column_name(last)}{row}"))
        lines.append(line)
        counts.append(len(cells))
        start += len(line) + 1
    unit = Unit(number, "sheet", name, "\n".join(lines))
    return unit, cut_sheet(unit, rows, rows[: header_rows(counts)])


def _column(reference: str, otherwise: int) -> int:
    number = 0
    for letter in reference:
        if not "A" <= letter <= "Z" or number > _LAST_COLUMN:
            break
        number = number * 26 + ord(letter) - 64
    return number or otherwise


def _integer(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 12 else otherwise

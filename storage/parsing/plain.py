"""Formats that are text as they stand: plain text, Markdown, CSV. Their quotes are the file's own lines."""

import codecs
import csv
import re
from collections.abc import Callable, Iterator

from models.knowledge.chunking import Heading, Row, clean, cut_flow, cut_sheet
from models.knowledge.passages import Unit
from storage.parsing.document import Document, bound_characters
from storage.parsing.grid import column_name, header_rows
from storage.parsing.limits import Limits, ParseFailure

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 64 * 1024
_NUL_SHARE = 0.3  # of every second byte: Latin text in UTF-16 has nearly all of them NUL
_CONTROL_SHARE = 0.05
_CONTROL = re.compile("[\x01-\x08\x0e-\x1f\x7f\ufffd]")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*\Z")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*\Z")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_MARKUP = re.compile(r"[*_`]+|!?\[([^\]]*)\]\([^)]*\)")
_DELIMITERS = ",;\t|"
_SNIFFED_ROWS = 20


def decoded(data: bytes, declared: str | None = None) -> str:
    """The text of a file: by its byte order mark, as declared, as UTF-8, else as Windows-1252.

    Raises ParseFailure with `invalid_file` for bytes that are no text in any of these.
    """
    text = _decoded(data, declared)
    sample = text[:_SAMPLE]
    if len(_CONTROL.findall(sample)) > _CONTROL_SHARE * len(sample):
        raise ParseFailure("invalid_file", "The content is not text.")
    return clean(text)


def read_text(data: bytes, limits: Limits, progress: Callable[[float], None]) -> Document:
    """Plain text, as it stands."""
    return _flow(decoded(data), limits, [])


def read_markdown(data: bytes, limits: Limits, progress: Callable[[float], None]) -> Document:
    """Markdown as it was written, in sections below its headings (CommonMark 4.2 and 4.3)."""
    text = decoded(data)
    return _flow(text, limits, list(_headings(text)))


def read_csv(data: bytes, limits: Limits, progress: Callable[[float], None]) -> Document:
    """One unit: the file's lines as they stand; each passage names its cells and carries the header."""
    text = decoded(data)
    bound_characters(len(text), limits)
    rows: list[Row] = []
    counts: list[int] = []
    cells = start = 0
    for number, (end, record) in enumerate(_records(text), start=1):
        filled = sum(1 for cell in record if cell.strip())
        cells += len(record)
        if cells > limits.cells:
            raise ParseFailure("too_large", f"The file has more than {limits.cells} cells.")
        if filled:
            rows.append(Row(start, end, f"A{number}", f"{column_name(len(record))}{number}"))
            counts.append(filled)
        start = end
    if not rows:
        raise ParseFailure("empty_file", "The file has no filled cells.")
    unit = Unit(1, "sheet", None, text)
    return Document([(unit, cut_sheet(unit, rows, rows[: header_rows(counts)]))])


def _decoded(data: bytes, declared: str | None) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    sample = data[:_SAMPLE]
    for encoding, nuls in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        if nuls.count(0) > _NUL_SHARE * len(nuls) and nuls.count(0) > 0.9 * sample.count(0):
            return data.decode(encoding, "replace")
    for guess in (declared or "utf-8", "utf-8", "cp1252"):
        try:
            return data.decode(guess)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("cp1252", "replace")


def _flow(text: str, limits: Limits, headings: list[Heading]) -> Document:
    bound_characters(len(text), limits)
    if not text.strip():
        raise ParseFailure("empty_file", "The file has no text.")
    title = headings[0].title if headings else None
    unit = Unit(1, "section", title, text)
    return Document([(unit, cut_flow(unit, headings))], title=title)


def _headings(text: str) -> Iterator[Heading]:
    fence = ""
    start = above = 0
    paragraph = ""
    for raw in text.split("\n"):
        line = raw.rstrip()
        opening = _FENCE.match(line)
        heading = None if fence else _ATX.match(line)
        underline = None if fence or not paragraph else _SETEXT.match(line)
        if opening and not fence:
            fence = opening.group(1)
        elif opening and opening.group(1).startswith(fence):
            fence = ""
        elif heading:
            title = _MARKUP.sub(r"\1", heading.group(2) or "").strip()
            if title:
                yield Heading(start, len(heading.group(1)), title)
        elif underline:
            yield Heading(
                above, 1 if underline.group(1)[0] == "=" else 2, _MARKUP.sub(r"\1", paragraph).strip()
            )
        paragraph = "" if fence or heading or underline or opening else line.strip()
        above = start
        start += len(raw) + 1


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file (RFC 4180), each with the offset at which it ends."""
    ends = [match.end() for match in re.finditer(r"[^\n]*(?:\n|\Z)", text)]
    lines = text.split("\n")
    csv.field_size_limit(len(text) + 1)  # bounded already; the module's own bound is lower
    reader = csv.reader((line + "\n" for line in lines), delimiter=_delimiter(lines[:_SNIFFED_ROWS]))
    try:
        for record in reader:
            yield ends[reader.line_num - 1], record
    except csv.Error as error:
        raise ParseFailure(
            "invalid_file", f"The file is not proper CSV in line {reader.line_num}."
        ) from error


def _delimiter(lines: list[str]) -> str:
    """The sign that parts the most lines into the same number of cells, a comma when in doubt."""

    def evenness(delimiter: str) -> tuple[float, int]:
        counts = [len(record) for record in csv.reader(lines, delimiter=delimiter) if len(record) > 1]
        common = max(set(counts), key=counts.count) if counts else 1
        return counts.count(common) / max(1, len(lines)) if counts else 0.0, common

    return max(_DELIMITERS, key=evenness)

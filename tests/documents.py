"""Small documents of our own making, as bytes: what tests upload.

They are written by other libraries than those that read them, so that a reader's mistake cannot hide in
its own writer.
"""

import csv
import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import docx
import openpyxl
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

_LEFT, _TOP, _LEADING = 56, 790, 13
_DAY = (2024, 2, 3, 4, 5, 6)  # archives of the same content are the same bytes

Block = str | tuple[int, str] | Sequence[Sequence[str]]
"""A paragraph; a heading with its level; or the rows of a table."""


def pdf(pages: Sequence[str], *, title: str = "", password: str | None = None) -> bytes:
    """A PDF with one text page per string, line by line; cells parted by tabs stand in columns."""
    buffer = io.BytesIO()
    lock = StandardEncryption(password, canPrint=0) if password else None
    canvas = Canvas(buffer, pagesize=A4, encrypt=lock, invariant=1)
    canvas.setTitle(title)
    for page in pages:
        canvas.setFont("Helvetica", 9)
        for number, line in enumerate(page.splitlines()):
            for column, cell in enumerate(line.split("\t")):
                canvas.drawString(_LEFT + 150 * column, _TOP - _LEADING * number, cell)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def bomb_pdf(megabytes: int) -> bytes:
    """A PDF of a few bytes for each megabyte that its one page's commands expand to."""
    line = b"BT /F1 12 Tf 10 10 Td (lamp) Tj ET\n"
    commands = zlib.compress(line * (megabytes * 1024**2 // len(line)), 9)
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(commands), commands),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    file, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(parts) + 1)
    end = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(parts) + 1, len(file))
    return file + head + table + end


def scanned_pdf(pages: int = 2) -> bytes:
    """A PDF whose pages are pictures and hold no text but a page number."""
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A4, invariant=1)
    picture = ImageReader(Image.new("L", (200, 280), 230))
    for number in range(1, pages + 1):
        canvas.drawImage(picture, 0, 0, *A4)
        canvas.drawString(_LEFT, 20, str(number))
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def word(blocks: Iterable[Block]) -> bytes:
    """A DOCX file of paragraphs, headings and tables in the given order."""
    document = docx.Document()
    for block in blocks:
        if isinstance(block, str):
            document.add_paragraph(block)
        elif isinstance(block[0], int):
            document.add_heading(str(block[1]), block[0])
        else:
            rows = [list(row) for row in block if not isinstance(row, int)]
            table = document.add_table(len(rows), len(rows[0]))
            for row, cells in zip(table.rows, rows, strict=True):
                for cell, text in zip(row.cells, cells, strict=True):
                    cell.text = text
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def workbook(
    sheets: Mapping[str, Sequence[Sequence[Any]]], formats: Mapping[tuple[str, str], str] | None = None
) -> bytes:
    """An XLSX file; `formats` gives number formats by sheet and cell, as in `("Sales", "B2")`."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    for (name, cell), code in (formats or {}).items():
        book[name][cell].number_format = code
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def comma_separated(rows: Iterable[Sequence[Any]], *, delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    """A CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode(encoding)


def web_page(body: str, *, title: str = "A page", head: str = "") -> bytes:
    """An HTML file around a body."""
    return (
        f"<!doctype html><html><head><title>{title}</title>{head}</head><body>{body}</body></html>".encode()
    )


def repacked(archive: bytes, parts: Mapping[str, bytes]) -> bytes:
    """A zip archive with some of its parts replaced or added."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in [*source.namelist(), *(name for name in parts if name not in source.namelist())]:
            content = parts[name] if name in parts else source.read(name)
            target.writestr(zipfile.ZipInfo(name, _DAY), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def part(archive: bytes, name: str) -> bytes:
    """One part of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        return source.read(name)

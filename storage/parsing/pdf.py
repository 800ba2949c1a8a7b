"""PDF, page by page, through PDFium."""

from collections.abc import Callable

import pypdfium2  # type: ignore[import-untyped]  # it ships no types
import pypdfium2.raw as pdfium  # type: ignore[import-untyped]

from models.knowledge.chunking import clean, cut_pages
from models.knowledge.passages import Unit
from storage.parsing.document import Document
from storage.parsing.limits import Limits, ParseFailure

_NEEDS_PASSWORD = (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY)
_FEW_LETTERS = 10  # a scan often carries a stamp or a page number as real text
_SCANNED_SHARE = 0.9
_LINE_END_HYPHEN = "\x02"


def read(data: bytes, limits: Limits, progress: Callable[[float], None]) -> Document:
    """The pages' text as it stands in their text layer, table rows on one line.

    PDFium joins a line that ends in a hyphen to the next and puts a control character in the hyphen's place;
    both are put back, since they stand on the page. Glyphs that the file gives no letter are left out,
    as in other readers. Raises ParseFailure with `needs_ocr` where nine of ten pages are pictures.
    """
    try:
        pdf = pypdfium2.PdfDocument(data)
        count = len(pdf)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in _NEEDS_PASSWORD:
            raise ParseFailure("encrypted_file", "The PDF is protected with a password.") from error
        raise ParseFailure("invalid_file", "The PDF is damaged.") from error
    if count > limits.pages:
        raise ParseFailure("too_large", f"The PDF has more than {limits.pages} pages.")
    if not count:
        raise ParseFailure("empty_file", "The PDF has no pages.")
    pages: list[Unit] = []
    scanned = broken = characters = 0
    for index in range(count):
        try:
            page = pdf[index]
            textpage = page.get_textpage()
            text = textpage.get_text_bounded().replace(_LINE_END_HYPHEN, "-\n")
        except pypdfium2.PdfiumError:
            # One damaged page does not take the others from their reader; its number stays.
            broken += 1
            pages.append(Unit(index + 1, "page", None, ""))
            continue
        text = clean(text)
        characters += len(text)
        if characters > limits.characters:
            raise ParseFailure("too_large", f"The PDF has more than {limits.characters} characters.")
        if sum(map(str.isalnum, text)) < _FEW_LETTERS and _has_picture(page):
            scanned += 1
        pages.append(Unit(index + 1, "page", None, text))
        textpage.close()
        page.close()
        progress((index + 1) / count)
    if broken == count:
        raise ParseFailure("invalid_file", "No page of the PDF can be read.")
    if scanned > _SCANNED_SHARE * count or not any(page.text.strip() for page in pages):
        raise ParseFailure("needs_ocr", "The PDF holds pictures of pages and no text; it needs OCR first.")
    return Document(list(cut_pages(pages)), count, _title(pdf))


def _has_picture(page: pypdfium2.PdfPage) -> bool:
    return any(True for _ in page.get_objects(filter=(pdfium.FPDF_PAGEOBJ_IMAGE,), max_depth=3))


def _title(pdf: pypdfium2.PdfDocument) -> str | None:
    try:
        title = pdf.get_metadata_value("Title")
    except UnicodeDecodeError:
        return None  # a title in no known encoding is as good as none
    return clean(title).strip() or None

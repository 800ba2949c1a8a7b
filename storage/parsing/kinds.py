"""Which format a file is: its extension says what it claims, its first bytes whether that is true."""

from collections.abc import Mapping
from pathlib import PurePath

from storage.parsing.limits import ParseFailure

WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
SPREADSHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

MEDIA_TYPES: Mapping[str, str] = {
    "pdf": "application/pdf",
    "docx": WORD,
    "xlsx": SPREADSHEET,
    "csv": "text/csv",
    "html": "text/html",
    "htm": "text/html",
    "md": "text/markdown",
    "markdown": "text/markdown",
    "txt": "text/plain",
    "text": "text/plain",
}
"""Extensions that can be read, without the dot, and their media types."""

_PDF_WINDOW = 1024  # readers accept a header within the first kilobyte
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_BINARY_MAGIC = (
    b"%PDF-",
    b"PK\x03\x04",
    b"PK\x05\x06",
    _OLE,
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"\x7fELF",
    b"\x1f\x8b",
    b"7z\xbc\xaf",
    b"Rar!",
    b"SQLite format 3\x00",
    b"{\\rtf",
)


def media_type(name: str, data: bytes) -> str:
    """The media type of a file called `name` with this content.

    Raises ParseFailure: `empty_file` without content, `encrypted_file` for an Office document behind a
    password, `invalid_file` where the extension is unknown or the content is something else.
    """
    extension = PurePath(name).suffix.lstrip(".").lower()
    claimed = MEDIA_TYPES.get(extension)
    if claimed is None:
        known = ", ".join(sorted(MEDIA_TYPES))
        raise ParseFailure("invalid_file", f"Files of this type cannot be read; these can: {known}.")
    if not data.strip(b"\x00 \t\r\n"):
        raise ParseFailure("empty_file", "The file has no content.")
    if data.startswith(_OLE) and claimed in (WORD, SPREADSHEET):
        if _ENCRYPTED_PACKAGE in data:
            raise ParseFailure("encrypted_file", "The document is protected with a password.")
        raise ParseFailure("invalid_file", "The file is in an old Office format; save it as .docx or .xlsx.")
    if not _agrees(claimed, data):
        raise ParseFailure("invalid_file", f"The content is not what the extension .{extension} says.")
    return claimed


def _agrees(claimed: str, data: bytes) -> bool:
    if claimed == "application/pdf":
        return b"%PDF-" in data[:_PDF_WINDOW]
    if claimed in (WORD, SPREADSHEET):
        return data.startswith(b"PK\x03\x04")
    return not data.startswith(_BINARY_MAGIC)

"""A word that stands in every text of one tenant, the canary's, and that nobody else may ever be shown.

``tests.canary_rows`` plants the tenant in every server; ``tests.ears`` listens to whatever a test is
answered, and the fakes to what they are sent. What was heard is kept in ``overheard``, and fails the test at
its end: no test can forget to listen, and none can swallow it.
"""

from __future__ import annotations

import gzip
import io
import re
import secrets
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WORD = f"canary{secrets.token_hex(8)}"
"""In every text that the tenant keeps. Another in each run."""
NAME = f"tenant{secrets.token_hex(8)}"
"""In the tenant's own name, which operators see, too."""
MARK = secrets.token_hex(6)
"""At the end of the ids of its rows. Operators, and whoever writes a log, name things by their ids."""
FIGURE = 1_979_000_000 + secrets.randbelow(900_000)
"""In its counts. A sum over tenants begins like it, as long as the others' stay below a hundred thousand."""
keys: set[str] = set()
"""Credentials of the canary's own people."""
overheard: list[str] = []
"""Where any of these was heard."""
_SUM = re.compile(rb"(?<![\w.-])1979\d{6}(?![\w-]|\.\d*[1-9])")
_singing = 0


class Heard(AssertionError):
    """Somebody was shown what another tenant keeps."""


def in_text(content: bytes, *, to_operators: bool = False) -> str | None:
    """A piece of the content around what the canary keeps; archives are opened.

    Operators know tenants by name, id and size, and nobody's texts.
    """
    for text in _texts(content):
        lower = text.lower()
        places = [lower.find(word.encode()) for word in ((WORD,) if to_operators else (WORD, NAME, MARK))]
        if not to_operators and b"1979" in text and (figure := _SUM.search(text)):
            places.append(figure.start())
        for at in places:
            if at >= 0:
                return repr(text[max(0, at - 100) : at + 100])
    return None


def _texts(content: bytes) -> Iterator[bytes]:
    yield content
    try:
        if content.startswith(b"\x1f\x8b"):
            yield from _texts(gzip.decompress(content))
        elif content.startswith(b"PK\x03\x04") and zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in archive.namelist():
                    yield name.encode()
                    yield from _texts(archive.read(name))
    except (EOFError, OSError, zlib.error, zipfile.BadZipFile):
        return  # a broken archive is read by nobody


@contextmanager
def singing() -> Iterator[None]:
    """While the canary itself is busy, and nobody else: answers, and what a provider is sent, may be its."""
    global _singing
    _singing += 1
    try:
        yield
    finally:
        _singing -= 1


def is_singing() -> bool:
    """Whether the canary itself is busy."""
    return _singing > 0


def overhear(content: bytes, where: str, *, serves_all: bool = False, to_operators: bool = False) -> None:
    """Look at what came to somebody. ``serves_all``: the canary's own comes there, too."""
    piece = in_text(content, to_operators=to_operators)
    if piece is not None and not (serves_all and _singing):
        overheard.append(f"{where}: {piece}")


def in_files(log: Path, mails: Path) -> list[str]:
    """Lines of a log that hold the word or the name, and mails to others that do."""
    with log.open("rb") as lines:
        found = [repr(line) for line in lines if _is_named(line)]
    for mail in mails.glob("*.eml"):
        content = mail.read_bytes()
        is_its_own = re.search(rb"^To: .*" + WORD.encode(), content, re.MULTILINE)
        piece = in_text(content) if not is_its_own else None
        found += [f"{mail}: {piece}"] if piece is not None else []
    return found


def _is_named(line: bytes) -> bool:
    return any(word.encode() in line.lower() for word in (WORD, NAME))

"""A word that stands in every text of one tenant, the canary's, and that nobody else may ever be shown.

Listened to: every answer that any client of httpx gets in this process, what the fakes are sent, the logs and
the mails of servers. What a test cannot be told at once is kept in ``overheard``, and fails it at its end.
"""

from __future__ import annotations

import gzip
import io
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

WORD = f"canary{secrets.token_hex(8)}"
"""In every text that the tenant keeps. Another in each run."""
NAME = f"tenant{secrets.token_hex(8)}"
"""In the tenant's own name, which operators see, too."""
keys: set[str] = set()
"""Credentials of the canary's own people."""
overheard: list[str] = []
"""Where the word was heard, by somebody who cannot fail a test: a thread of a fake's."""
_singing = 0


class Heard(AssertionError):
    """Somebody was shown what another tenant keeps."""


def in_text(content: bytes, words: tuple[str, ...] = (WORD, NAME)) -> str | None:
    """A piece of the content around one of the words; archives are opened."""
    for text in _texts(content):
        for word in words:
            at = text.lower().find(word.encode())
            if at >= 0:
                return repr(text[max(0, at - 100) : at + 100])
    return None


def _texts(content: bytes) -> Iterator[bytes]:
    yield content
    if content.startswith(b"\x1f\x8b"):
        yield from _texts(gzip.decompress(content))
    elif content.startswith(b"PK\x03\x04") and zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from _texts(archive.read(name))


@contextmanager
def singing() -> Iterator[None]:
    """While the canary itself is busy, and nobody else: what a provider is sent may be its own."""
    global _singing
    _singing += 1
    try:
        yield
    finally:
        _singing -= 1


def overhear(content: bytes, where: str, *, serves_all: bool = False) -> None:
    """Look at what came to a fake. ``serves_all``: the canary's own comes there, too."""
    piece = in_text(content)
    if piece is not None and not (serves_all and _singing):
        overheard.append(f"{where}: {piece}")


def check() -> None:
    """Raise what was overheard since."""
    told = "\n".join(overheard)
    overheard.clear()
    if told:
        raise Heard(told)


def _credential(request: httpx.Request) -> str:
    key = request.headers.get("x-api-key") or request.headers.get("authorization") or ""
    return str(key).removeprefix("Bearer ")


class _Listened(httpx.SyncByteStream):
    """A body that is looked at when it is whole, or left."""

    def __init__(self, stream: httpx.SyncByteStream, look: Callable[[bytes], None]) -> None:
        self.stream, self.look, self.parts = stream, look, bytearray()

    def __iter__(self) -> Iterator[bytes]:
        for part in self.stream:
            self.parts += part
            yield part

    def close(self) -> None:
        self.stream.close()
        self.look(bytes(self.parts))


@contextmanager
def listening() -> Iterator[None]:
    """Look at every answer that httpx gets, whichever client asks: no test can forget to."""
    ask = httpx.HTTPTransport.handle_request

    def ask_and_look(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        response = ask(transport, request)
        credential = _credential(request)
        if credential not in keys:
            words = (WORD,) if credential.startswith("bk_oper_") else (WORD, NAME)
            where = f"{request.method} {request.url.path} -> {response.status_code}"

            def look(content: bytes) -> None:
                piece = in_text(content, words)
                if piece is not None:
                    raise Heard(f"{where} shows another tenant's text: {piece}")

            look(repr(response.headers.raw).encode())
            assert isinstance(response.stream, httpx.SyncByteStream)
            response.stream = _Listened(response.stream, look)
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", ask_and_look)
        yield


def in_files(log: Path, mails: Path) -> list[str]:
    """Lines of a log that hold the word, and mails to others that do."""
    with log.open("rb") as lines:
        found = [piece for line in lines if (piece := in_text(line)) is not None]
    for mail in mails.glob("*.eml"):
        content = mail.read_bytes()
        is_its_own = re.search(rb"^To: .*" + WORD.encode(), content, re.MULTILINE)
        piece = in_text(content) if not is_its_own else None
        found += [f"{mail}: {piece}"] if piece is not None else []
    return found

"""Bodies that somebody might send to break something, each with the one answer that it deserves."""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.servers import Server

JSON = "application/json"
DEEP = 100_000


@dataclass(frozen=True, slots=True)
class Hostile:
    """``body`` may be made from a valid body. ``kind`` is the Content-Type, None for no such header.

    ``sound``: well formed, and refused only for a field that nobody knows.
    """

    name: str
    body: bytes | Callable[[bytes], bytes]
    kind: str | None = JSON
    status: int = 400
    sound: bool = False

    def of(self, valid: bytes) -> bytes:
        """The body to send."""
        return self.body(valid) if callable(self.body) else self.body


def _first_value(text: bytes) -> Callable[[bytes], bytes]:
    """The valid body with one more field in it, whose value is this text."""
    return lambda valid: b'{"surprise":' + text + b"," + valid.lstrip()[1:]


JSON_BODIES = (
    Hostile("not UTF-8", _first_value(b'"\xff\xfe"')),
    Hostile("overlong UTF-8", _first_value(b'"\xc0\xaf"')),
    Hostile("a surrogate in UTF-8", _first_value(b'"\xed\xa0\x80"')),
    Hostile("UTF-16", lambda valid: valid.decode().encode("utf-16")),
    Hostile("UTF-16, said so", lambda valid: valid.decode().encode("utf-16"), f"{JSON}; charset=utf-16", 415),
    Hostile("UTF-32", lambda valid: valid.decode().encode("utf-32")),
    Hostile("a byte order mark", lambda valid: b"\xef\xbb\xbf" + valid),
    Hostile("Latin-1, said so", lambda valid: valid, f"{JSON}; charset=latin-1", 415),
    Hostile("an unheard-of charset", lambda valid: valid, f"{JSON}; charset=x-klingon", 415),
    Hostile("an escaped NUL", _first_value(b'"a\\u0000b"')),
    Hostile("a NUL byte", _first_value(b'"a\x00b"')),
    Hostile("a NUL in a key", lambda valid: b'{"a\\u0000b":1,' + valid.lstrip()[1:]),
    Hostile("a lone high surrogate", _first_value(b'"\\ud800"')),
    Hostile("a lone low surrogate", _first_value(b'"\\udc00 text"')),
    Hostile("NaN", _first_value(b"NaN")),
    Hostile("Infinity", _first_value(b"Infinity")),
    Hostile("-Infinity", _first_value(b"-Infinity")),
    Hostile("1e999", _first_value(b"1e999")),
    Hostile("-1e999", _first_value(b"-1e999")),
    Hostile("an integer of 5,000 digits", _first_value(b"9" * 5000)),
    Hostile("a fraction of 5,000 digits", _first_value(b"0." + b"1" * 5000), sound=True),
    Hostile("a key twice", _first_value(b'{"a":1,"a":2}')),
    Hostile("its first key twice", lambda valid: b"{" + valid.strip()[1:-1] + b"," + valid.lstrip()[1:]),
    Hostile("deep arrays", b"[" * DEEP + b"]" * DEEP),
    Hostile("deep objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    Hostile("deep, inside a field", _first_value(b"[" * DEEP + b"]" * DEEP)),
    Hostile("opened and never closed", b"[" * DEEP),
    Hostile("empty", b""),
    Hostile("a blank", b" "),
    Hostile("null", b"null"),
    Hostile("an array", b"[]"),
    Hostile("an array around it", lambda valid: b"[" + valid + b"]"),
    Hostile("a string", b'"text"'),
    Hostile("a number", b"1"),
    Hostile("true", b"true"),
    Hostile("cut off", lambda valid: valid[:-1]),
    Hostile("something behind it", lambda valid: valid + b"x"),
    Hostile("twice", lambda valid: valid + valid),
    Hostile("a comment", lambda valid: b"/* */" + valid),
    Hostile("single quotes", b"{'a': 1}"),
    Hostile("10,000 unknown fields", json.dumps({f"field-{n}": n for n in range(10_000)}).encode()),
    Hostile("half a megabyte of text", _first_value(b'"' + b"x" * 500_000 + b'"'), sound=True),
    Hostile("gzip, not said", lambda valid: gzip.compress(valid)),
    Hostile("no type", lambda valid: valid, None, 415),
    Hostile("plain text", lambda valid: valid, "text/plain", 415),
    Hostile("XML", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "application/xml", 415),
    Hostile("a form", b"a=1&b=2", "application/x-www-form-urlencoded", 415),
    Hostile("a type that is none", lambda valid: valid, "/;;=", 415),
    Hostile("more than a megabyte", _first_value(b'"' + b"x" * 1_100_000 + b'"'), JSON, 413),
)

FORM = "multipart/form-data; boundary=edge"


def _part(head: bytes, body: bytes = b"text", end: bytes = b"--edge--\r\n") -> bytes:
    return b"--edge\r\n" + head + b"\r\n\r\n" + body + b"\r\n" + end


FILE = b'Content-Disposition: form-data; name="file"; filename="note.txt"\r\nContent-Type: text/plain'
FIELD = b'Content-Disposition: form-data; name="surprise"'

FORM_BODIES = (
    Hostile("no boundary", _part(FILE), "multipart/form-data"),
    Hostile("an empty boundary", _part(FILE), "multipart/form-data; boundary="),
    Hostile("another boundary", _part(FILE), "multipart/form-data; boundary=other"),
    Hostile("a boundary of 10,000", _part(FILE), "multipart/form-data; boundary=" + "e" * 10_000),
    Hostile("a boundary outside ASCII", _part(FILE), "multipart/form-data; boundary=\xe9dge"),
    Hostile("nothing", b"", FORM),
    Hostile("no part", b"--edge--\r\n", FORM),
    Hostile("cut off in the head", _part(FILE)[:40], FORM),
    Hostile("cut off in the body", _part(FILE)[:-12], FORM),
    Hostile("a part without a name", _part(b"Content-Disposition: form-data"), FORM),
    Hostile("a part without a disposition", _part(b"Content-Type: text/plain"), FORM),
    Hostile("a part without a head", b"--edge\r\n\r\ntext\r\n--edge--\r\n", FORM),
    Hostile("a file that is none", _part(b'Content-Disposition: form-data; name="file"'), FORM),
    Hostile("two files", _part(FILE, end=_part(FILE)), FORM),
    Hostile("a NUL in the name", _part(FILE.replace(b"note", b"no\x00te")), FORM),
    Hostile("a name that is not UTF-8", _part(FILE.replace(b"note", b"\xff\xfe")), FORM),
    Hostile("a field that is not UTF-8", _part(FIELD, b"\xff\xfe"), FORM),
    Hostile("a NUL in a field", _part(FIELD, b"a\x00b"), FORM),
    Hostile("an unknown field", _part(FIELD), FORM),
    Hostile("a head of 100,000", _part(FILE + b"\r\nX-Long: " + b"x" * 100_000), FORM),
    Hostile("1,000 heads", _part(FILE + b"\r\nX-More: x" * 1000), FORM),
    Hostile("1,000 fields", b"".join(_part(FIELD, end=b"") for _ in range(1000)) + b"--edge--\r\n", FORM),
    Hostile("a field of two megabytes", _part(FIELD, b"x" * 2_000_000), FORM),
    Hostile("an unheard-of charset", _part(FIELD + b"\r\nContent-Type: text/plain; charset=x-klingon"), FORM),
    Hostile("JSON under that name", b"{}", FORM),
    Hostile("mixed", _part(FILE), "multipart/mixed; boundary=edge", 415),
)


def exchange(server: Server, *pieces: bytes, ends: bool = False) -> bytes:
    """The first whole answer to these bytes, or what came of it. ``ends``: our side stops sending first."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break  # refused before the end, which is its right
        if ends:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        for part in _received(connection):
            received += part
            if _is_whole(received):
                break
        return received


def _received(connection: socket.socket) -> Iterator[bytes]:
    try:
        while part := connection.recv(65_536):
            yield part
    except ConnectionResetError:
        return  # what came before it counts


def _is_whole(answer: bytes) -> bool:
    """Whether the answer has all of its body. 100 is no answer yet."""
    top, blank, body = answer.partition(b"\r\n\r\n")
    if blank and status_of(top) == 100:
        return _is_whole(body)
    length = re.search(rb"\r\ncontent-length: (\d+)", top, re.IGNORECASE)
    return bool(blank) and length is not None and len(body) >= int(length[1])


def head(server: Server, path: str, *lines: str, method: str = "POST", key: str | None = None) -> bytes:
    """A request's head with our key (another, or with "" none); the connection closes after the answer."""
    known = server.api_key if key is None else key
    fixed = ["Host: localhost", "Connection: close", *([f"X-API-Key: {known}"] if known else [])]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fixed, *lines, "", ""]).encode("latin-1")


def status_of(answer: bytes) -> int:
    """The status of the first answer; 0 when none came."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0

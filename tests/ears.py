"""Ears for the canary: on every socket of this process that calls somebody, whichever library uses it, and on
what child processes print to us. A child that speaks to a server by itself does it through ``tests.relay``.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from tests import canary

_KEY = re.compile(rb"bk_(live|oper)_\w{38}")
_ID = re.compile(rb"[0-9a-f-]{24}" + canary.MARK.encode(), re.IGNORECASE)
_HEAD = 16_384
"""So much is kept of what was asked: the key that it was asked with stands there."""


class _Talk:
    """What was asked on a connection, and what came of it."""

    def __init__(self) -> None:
        self.asked, self.got, self.is_own = bytearray(), bytearray(), False

    def ask(self, data: Any) -> None:
        """Note what is sent; the answer to what was sent before is whole."""
        if self.got:
            self.hear()
            self.asked.clear()
        self.asked += memoryview(data)[: _HEAD - len(self.asked)]
        self.is_own = canary.is_singing()

    def hear(self) -> None:
        """Look at what came, unless the canary itself asked."""
        got = bytes(self.got)
        self.got.clear()
        key = _KEY.search(self.asked)
        if not got or self.is_own or (key and key[0].decode() in canary.keys):
            return
        line = self.asked.partition(b"\r\n")[0][:200].decode("latin-1")
        to_operators = key is not None and key[1] == b"oper"
        named = {*_ID.findall(self.asked)}
        for content in (got, _body(got)):
            for id in named:  # nobody is told what they asked for by name
                content = content.replace(id, b"")
            before = len(canary.overheard)
            canary.overhear(content, f"{line} was answered", to_operators=to_operators)
            if len(canary.overheard) > before:
                return


class _Recorded:
    """A connection as ``http.client`` reads it."""

    def __init__(self, got: bytes) -> None:
        self.got = got

    def makefile(self, mode: str) -> io.BytesIO:
        """What came."""
        return io.BytesIO(self.got)


def _body(got: bytes) -> bytes:
    """The body of an answer, where its bytes are not in it as they stand: in chunks, or an archive."""
    head, _, rest = got.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower() and not rest.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        return b""
    response = http.client.HTTPResponse(cast(socket.socket, _Recorded(got)))
    try:
        response.begin()
        return response.read()
    except http.client.IncompleteRead as cut:
        return cut.partial
    except http.client.HTTPException:
        return b""  # no HTTP; its bytes were looked at


_talks: weakref.WeakKeyDictionary[socket.socket, _Talk] = weakref.WeakKeyDictionary()
_adding = threading.Lock()


def check() -> None:
    """Raise what was heard since."""
    with _adding:
        talks = list(_talks.values())
    for talk in talks:
        talk.hear()
    told = "\n".join(canary.overheard)
    canary.overheard.clear()
    if told:
        raise canary.Heard(f"another tenant's is shown:\n{told}")


@contextmanager
def listening() -> Iterator[None]:
    """From here on nothing is answered unheard."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _calling(getattr(socket.socket, name)))
        patch.setattr(ssl.SSLSocket, "do_handshake", _enciphering(ssl.SSLSocket.do_handshake))
        for kind in (ssl.SSLSocket, socket.socket):
            for name in ("send", "sendall"):
                patch.setattr(kind, name, _asking(getattr(kind, name)))
            patch.setattr(kind, "recv", _receiving(kind.recv))
            patch.setattr(kind, "recv_into", _filling(kind.recv_into))
        patch.setattr(socket.socket, "close", _closing(socket.socket.close))
        patch.setattr(subprocess.Popen, "communicate", _printing(subprocess.Popen.communicate))
        yield
        check()


def _calling(connect: Callable[..., Any]) -> Callable[..., Any]:
    def call(to: socket.socket, address: Any) -> Any:
        with _adding:
            _talks[to] = _Talk()
        return connect(to, address)

    return call


def _enciphering(handshake: Callable[..., None]) -> Callable[..., None]:
    """A socket of TLS is another one than that which connected, and of that only ciphers come."""

    def shake(with_it: ssl.SSLSocket, *arguments: Any) -> None:
        handshake(with_it, *arguments)
        with _adding:
            _talks[with_it] = _Talk()

    return shake


def _asking(send: Callable[..., Any]) -> Callable[..., Any]:
    def ask(to: socket.socket, data: Any, *flags: int) -> Any:
        if (talk := _talks.get(to)) is not None:
            talk.ask(data)
        return send(to, data, *flags)

    return ask


def _receiving(recv: Callable[..., bytes]) -> Callable[..., bytes]:
    def receive(of: socket.socket, size: int, *flags: int) -> bytes:
        data = recv(of, size, *flags)
        if (talk := _talks.get(of)) is not None:
            talk.got += data
        return data

    return receive


def _filling(recv_into: Callable[..., int]) -> Callable[..., int]:
    def fill(of: socket.socket, buffer: Any, *more: int) -> int:
        size = recv_into(of, buffer, *more)
        if (talk := _talks.get(of)) is not None:
            talk.got += memoryview(buffer).cast("B")[:size]
        return size

    return fill


def _closing(close: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def end(of: socket.socket) -> None:
        if (talk := _talks.get(of)) is not None:
            talk.hear()
        close(of)

    return end


def _printing(communicate: Callable[..., Any]) -> Callable[..., Any]:
    def listen(child: subprocess.Popen[Any], *arguments: Any, **named: Any) -> Any:
        said = communicate(child, *arguments, **named)
        for text in filter(None, said):
            # Whoever runs commands of the host is an operator.
            content = text.encode() if isinstance(text, str) else text
            canary.overhear(content, f"{child.args!r} printed", to_operators=True)
        return said

    return listen

"""A door before a server for clients that are no part of this process: what they are answered is heard."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Relay(socketserver.ThreadingTCPServer):
    """Hands every connection on to ``to``, the URL of a server, byte for byte."""

    daemon_threads = True
    request_queue_size = 128
    to = ""
    cut_behind = b""
    """Where what comes back holds this, the line breaks; the first time alone."""
    cuts = 0

    @property
    def url(self) -> str:
        """Its own address, in place of the server's."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        at = urlsplit(self.server.to)
        with socket.create_connection((at.hostname, at.port)) as onward:
            for end in (self.request, onward):  # small pieces are not held back until others are confirmed
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asking = threading.Thread(target=_hand_on, args=(self.request, onward), daemon=True)
            asking.start()
            _hand_on(onward, self.request, self.server)
            asking.join()


def _hand_on(source: socket.socket, target: socket.socket, back_over: Relay | None = None) -> None:
    try:
        while data := source.recv(65_536):
            if back_over and back_over.cut_behind and not back_over.cuts:
                head, mark, _ = data.partition(back_over.cut_behind)
                if mark:
                    back_over.cuts += 1
                    target.sendall(head + mark)
                    raise ConnectionAbortedError
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # Either end has left: the other one learns of it.
        for end in (source, target):
            _leave(end)


def _leave(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has left already


@contextmanager
def relay(to: str = "") -> Iterator[Relay]:
    """Take connections until the end of the block. ``to`` may be set later, before the first one comes."""
    with Relay(("127.0.0.1", 0), _Connection) as made:
        made.to = to
        serving = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield made
        finally:
            made.shutdown()
            serving.join()

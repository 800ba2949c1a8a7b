"""A receiver of webhooks on loopback: keeps what it is sent, and answers as its path says."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests import canary

PATIENCE = 30.0


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


class Receiver:
    """``url("a", status=503)``: an address that answers so; ``sent("a")``: what came there."""

    def __init__(self) -> None:
        self._received: list[Received] = []
        self.released = threading.Event()
        """Lets go what came to an address with ``hang=1``."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(asked.query).items()}
                told = {name.lower(): value for name, value in self.headers.items()}
                canary.overhear(body, f"{asked.path} was sent a webhook")
                outer._received.append(Received(asked.path, told, body))
                if "hang" in query:
                    outer.released.wait(PATIENCE)
                answer = query.get("answer", "thank you").encode() * int(query.get("times", 1))
                try:
                    self.send_response(int(query.get("status", 200)))
                    for name in ("Location", "Retry-After"):
                        if name in query:
                            self.send_header(name, query[name])
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    self.close_connection = True  # the sender left

            def log_message(self, format: str, *args: object) -> None:
                """Not onto the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def url(self, name: str, **answers: Any) -> str:
        """An address of the receiver's."""
        query = "&".join(f"{key.replace('_', '-')}={value}" for key, value in answers.items())
        return f"http://127.0.0.1:{self._server.server_port}/{name}?{query}"

    def sent(self, name: str) -> list[Received]:
        """What came to that address so far."""
        return [received for received in self._received if received.path == f"/{name}"]

    def wait(self, name: str, count: int = 1) -> list[Received]:
        """The same, once so many came."""
        deadline = time.monotonic() + PATIENCE
        while len(self.sent(name)) < count:
            assert time.monotonic() < deadline, f"{len(self.sent(name))} of {count} came to {name}"
            time.sleep(0.02)  # another process sends
        return self.sent(name)

    def close(self) -> None:
        """End."""
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

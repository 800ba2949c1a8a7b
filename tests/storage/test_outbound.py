"""Requests to addresses that a tenant names: what is refused, and that only the checked address is asked."""

from __future__ import annotations

import dataclasses
import io
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models.errors import TooLarge
from storage import outbound
from storage.outbound import OutboundRefused
from storage.settings import read

PUBLIC = ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.0.1", "2606:4700::1111"]
TRANSLATED_PUBLIC = ["::ffff:1.1.1.1", "64:ff9b::101:101"]
OWN_NETWORK = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
]
NOWHERE = [
    "0.0.0.0",  # noqa: S104 - nothing binds to it
    "169.254.169.254",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::7f00:1",
    "::ffff:0:7f00:1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:101:101::",
    "3fff::1",
    "2606:4700::5efe:7f00:1",
    "4000::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


DISGUISED = [
    "https://localhost/",
    "https://localhost./",
    "https://127.0.0.1/",
    "https://127.0.0.1./",
    "https://127.1/",
    "https://0/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001:0:7f00:1::]/",
    "https://[fe80::1]/",
    "https://[ff02::1]/",
    "https://224.0.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://0.0.0.0/",
    "https://1.1.1.1@127.0.0.1/",
    "https://1.1.1.1\\@127.0.0.1/",
    "https://\u2460\u2461\u2466.0.0.1/",
    "http://1.1.1.1/",
    "https://1.1.1.1/#/private",
]
"""Addresses that must not be told anything, however they are written; none is let in as a receiver's."""


@pytest.mark.parametrize("url", DISGUISED)
def test_a_disguised_address_is_no_receiver(url: str, allow: Callable[[bool], None]) -> None:
    allow(False)
    with pytest.raises(OutboundRefused):
        outbound.check_receiver(url)
    with pytest.raises(OutboundRefused):
        outbound.post(url.partition("#")[0], b"{}", {}, seconds=0.1, limit=1)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::1", "64:ff9b::a00:1", "2002:a00:1::"])
def test_a_name_that_leads_there_is_none_either(
    address: str, allow: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(False)
    entry = (socket.AF_INET6 if ":" in address else socket.AF_INET, 1, 6, "", (address, 443))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry])
    with pytest.raises(OutboundRefused, match="public internet"):
        outbound.check_receiver("https://hooks.example/")
    with pytest.raises(OutboundRefused, match="public internet"):
        outbound.post("https://hooks.example/", b"{}", {}, seconds=1, limit=1)


class TestAddresses:
    @pytest.mark.parametrize("text", PUBLIC + TRANSLATED_PUBLIC)
    def test_public(self, text: str) -> None:
        assert outbound.is_allowed(ipaddress.ip_address(text))

    @pytest.mark.parametrize("text", OWN_NETWORK)
    def test_of_the_host_s_own_network(self, text: str) -> None:
        address = ipaddress.ip_address(text)
        assert not outbound.is_allowed(address)
        assert outbound.is_allowed(address, private=True)

    @pytest.mark.parametrize("text", NOWHERE)
    def test_never(self, text: str) -> None:
        address = ipaddress.ip_address(text)
        assert not outbound.is_allowed(address)
        assert not outbound.is_allowed(address, private=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:7f00:1]/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://0/",
        "https://127.0.0.1./",
        "https://1.1.1.1@127.0.0.1/",
        "https://user:word@1.1.1.1/",
        "https://1.1.1.1\\@127.0.0.1/",
        "https://1.1.1.1:99999/",
        "https://1.1.1.1/a b",
        "https://1.1.1.1/\u00e9",
        "https://\u2460.1.1.1/",
        "https://1.1.1.1/\r\nX: y",
        "https:///path",
        "//1.1.1.1/",
        "file:///etc/passwd",
        "ftp://1.1.1.1/",
        "http://1.1.1.1/",
        "https://[::1",
        "",
    ],
)
def test_a_url_that_is_never_asked(url: str) -> None:
    with pytest.raises(OutboundRefused):
        outbound.check(url)


@pytest.mark.parametrize("url", ["https://1.1.1.1/", "https://[2606:4700::1111]:8443/hook?x=1"])
def test_a_url_that_may_be_asked(url: str) -> None:
    outbound.check(url)


class Site(BaseHTTPRequestHandler):
    """A web server with good and bad manners."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []
    stop: threading.Event

    def do_GET(self) -> None:
        Site.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/report.txt")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/packed":
            self._give(b"xxx", ("Content-Encoding", "gzip"))
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            while not Site.stop.wait(0.05):  # the pace at which the body drips
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
        elif self.path.partition("?")[0].endswith("/annual%20report.txt"):
            self._give(b"Revenue was 12.", ("X-Any", "thing"))
        else:
            self.send_error(404)

    def _give(self, body: bytes, header: tuple[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not onto the terminal."""


@pytest.fixture
def site() -> Iterator[str]:
    Site.asked, Site.stop = [], threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Site.stop.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bool], None]:
    """Sets whether the host lets tenants reach its own network."""
    monkeypatch.setenv("BOOGA_DATA_DIR", str(tmp_path))

    def set_to(private: bool) -> None:
        changed = dataclasses.replace(read(), allow_private_addresses=private)
        monkeypatch.setattr(outbound, "settings", lambda: changed)

    return set_to


class TestFetch:
    def test_a_document(self, site: str, allow: Callable[[bool], None]) -> None:
        allow(True)
        into = io.BytesIO()
        fetched = outbound.fetch(f"{site}/x/annual%20report.txt?a=1", into, limit=100)
        assert into.getvalue() == b"Revenue was 12."
        assert fetched == outbound.Fetched("text/plain", "annual report.txt", 15)

    def test_not_from_the_own_network(self, site: str, allow: Callable[[bool], None]) -> None:
        allow(False)
        with pytest.raises(OutboundRefused, match="public internet"):
            outbound.fetch(f"{site}/annual%20report.txt", io.BytesIO(), limit=100)
        assert Site.asked == []

    @pytest.mark.parametrize(("path", "told"), [("/moved", "302"), ("/none", "404"), ("/packed", "encoding")])
    def test_nothing_usable(self, site: str, allow: Callable[[bool], None], path: str, told: str) -> None:
        allow(True)
        with pytest.raises(OutboundRefused, match=told):
            outbound.fetch(site + path, io.BytesIO(), limit=100)
        assert Site.asked == [path]

    def test_more_than_the_limit(self, site: str, allow: Callable[[bool], None]) -> None:
        allow(True)
        with pytest.raises(TooLarge):
            outbound.fetch(f"{site}/annual%20report.txt", io.BytesIO(), limit=14)

    def test_one_that_drips_for_ever(self, site: str, allow: Callable[[bool], None]) -> None:
        allow(True)
        with pytest.raises(OutboundRefused, match="in time"):
            outbound.fetch(f"{site}/drip", io.BytesIO(), limit=1_000_000, seconds=0.4)

    def test_nobody_there(self, allow: Callable[[bool], None]) -> None:
        allow(True)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(OutboundRefused, match="did not answer"):
                outbound.fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/", io.BytesIO(), limit=1)

    def test_a_name_with_one_bad_address_is_refused_whole(
        self, monkeypatch: pytest.MonkeyPatch, allow: Callable[[bool], None]
    ) -> None:
        allow(False)
        answers = [(2, 1, 6, "", ("1.1.1.1", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
        with pytest.raises(OutboundRefused, match="public internet"):
            outbound.check("https://two-faced.example/")

    def test_the_checked_address_is_the_one_asked(
        self, site: str, monkeypatch: pytest.MonkeyPatch, allow: Callable[[bool], None]
    ) -> None:
        # A resolver that changes its mind between the check and the connection (DNS rebinding).
        allow(True)
        real, asked = socket.getaddrinfo, []

        def changing(host: str, port: int, *more: object, **options: object) -> list[tuple[object, ...]]:
            if host != "rebound.example":
                return list(real(host, port, *more, **options))  # type: ignore[arg-type] # passed on as it came
            asked.append(host)
            return [(2, 1, 6, "", ("127.0.0.1" if len(asked) == 1 else "127.0.0.9", port))]

        monkeypatch.setattr(socket, "getaddrinfo", changing)
        port = site.rpartition(":")[2]
        into = io.BytesIO()
        outbound.fetch(f"http://rebound.example:{port}/annual%20report.txt", into, limit=100)
        assert asked == ["rebound.example"]
        assert into.getvalue() == b"Revenue was 12."

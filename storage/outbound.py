"""Requests to addresses that a tenant names: only to the public internet, only to what was checked.

Python 3.11's ``ipaddress`` calls several translated and reserved ranges global, so the ranges stand here
(IANA's special-purpose registries, RFC 6890). A name is resolved once; every address that it has must be
allowed, and the connection goes to one of exactly these, while TLS still verifies the name. Redirects are
never followed.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import httpcore

from models.errors import RuleBroken, TooLarge
from storage.settings import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_OWN_NETWORK = [
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
]
"""What ``BOOGA_ALLOW_PRIVATE_ADDRESSES`` allows. Link-local ones, where clouds serve credentials, are not."""

_NOWHERE_V4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NOWHERE_V6 = [
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries any IPv4 address
        "3fff::/20",
    )
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


class OutboundRefused(RuleBroken):
    """The address may not be asked, or did not give what was wanted."""


def is_allowed(address: Address, *, private: bool = False) -> bool:
    """Whether a tenant's request may go there. ``private``: the host lets tenants reach its own network."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_allowed(address.ipv4_mapped, private=private)
        if address in _NAT64:
            return is_allowed(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF), private=private)
    if any(address in network for network in _OWN_NETWORK if network.version == address.version):
        return private
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOWHERE_V4)
    embeds_v4 = (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP
    return address in _UNICAST_V6 and not embeds_v4 and not any(address in network for network in _NOWHERE_V6)


def _host_of(url: str, schemes: Iterable[str]) -> tuple[str, int]:
    """Host and port of a URL that is worth resolving."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as fault:
        raise OutboundRefused("This is not a URL.") from fault
    if parts.scheme not in schemes or not host or not re.fullmatch(r"[!-\[\]-~]+", url):
        raise OutboundRefused(f"Give an absolute URL that begins with {' or '.join(schemes)}.")
    if parts.username is not None or parts.password is not None:
        raise OutboundRefused("A URL with credentials in it is not asked.")
    last = host.rstrip(".").rpartition(".")[2]
    if ":" not in host and re.fullmatch(r"\d+|0x[0-9a-f]*", last):
        # Resolvers take 2130706433, 0x7f.1 and 0177.0.0.1 for addresses; they are written so to disguise one.
        try:
            ipaddress.IPv4Address(host)
        except ValueError as fault:
            raise OutboundRefused("Write the address as four decimal numbers.") from fault
    return host.rstrip("."), port or {"https": 443, "http": 80}[parts.scheme]


def resolve(host: str, port: int, *, private: bool) -> list[str]:
    """The addresses of ``host``, all of which may be asked; one that may not refuses the host."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as fault:
        raise OutboundRefused("The host of this URL is not known.") from fault
    texts = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not texts or not all(is_allowed(ipaddress.ip_address(text), private=private) for text in texts):
        raise OutboundRefused("The host of this URL is not on the public internet.")
    return texts


def check(url: str, schemes: Iterable[str] = ("https",)) -> None:
    """Refuse a URL that would not be asked now, so that whoever enters it learns at once."""
    host, port = _host_of(url, tuple(schemes))
    resolve(host, port, private=settings().allow_private_addresses)


def may_be_provider(address: Address, scheme: str) -> bool:
    """Whether a tenant's server (a provider, a receiver of webhooks) may be asked there; in plain text only
    within the host's own network.
    """
    private = settings().allow_private_addresses
    return is_allowed(address, private=private) and (scheme == "https" or not is_allowed(address))


_lookups = ThreadPoolExecutor(2, thread_name_prefix="lookup")
LOOKUP_SECONDS = 2.0


def check_provider(url: str) -> None:
    """Refuse the base URL of a provider that would not be asked."""
    _host_of(url, ("https", "http"))
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise OutboundRefused("A base URL ends with its path.")
    _check_entered(url)


def check_receiver(url: str) -> None:
    """Refuse the address of a webhook that would not be told anything."""
    _host_of(url, ("https", "http"))
    if urlsplit(url).fragment:
        raise OutboundRefused("A fragment is not sent: leave out what begins with #.")
    _check_entered(url)


def _check_entered(url: str) -> None:
    """Refuse a tenant's own server that would not be asked now.

    A name that nobody knows just now is let pass: a server without a network can be set up, too, and each
    connection is checked again when it is made.
    """
    host, port = _host_of(url, ("https", "http"))
    parts = urlsplit(url)
    if parts.scheme == "http" and not settings().allow_private_addresses:
        raise OutboundRefused("Give an address that begins with https://.")
    try:
        # The resolver's own patience may be half a minute, and a transaction may be open.
        found = _lookups.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(
            LOOKUP_SECONDS
        )
    except (OSError, UnicodeError, TimeoutError):
        return
    if not all(may_be_provider(ipaddress.ip_address(str(entry[4][0])), parts.scheme) for entry in found):
        raise OutboundRefused(
            "Plain http is for the host's own network only."
            if parts.scheme == "http"
            else "The host of this URL is not on the public internet."
        )


class _Timed(httpcore.NetworkStream):
    """A connection that ends at a moment, however slowly the other side drips."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for this request is over")
        return left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Bytes, as long as there is time."""
        return self._stream.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send, as long as there is time."""
        self._stream.write(buffer, self._left())

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same line, encrypted; the certificate has to be the name's, not the address's."""
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._left()), self._deadline)

    def get_extra_info(self, info: str) -> object:
        """What the connection tells of itself."""
        return self._stream.get_extra_info(info)


class _CheckedAddresses(httpcore.NetworkBackend):
    """Connects to the addresses that were checked, whatever a resolver would say by now."""

    def __init__(self, addresses: list[str], deadline: float) -> None:
        self._addresses, self._deadline = addresses, deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first address that takes one."""
        for position, address in enumerate(self._addresses, 1):
            left = self._deadline - time.monotonic()
            try:
                stream = self._sockets.connect_tcp(
                    address, port, max(0.1, left / 2), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if position == len(self._addresses):
                    raise
            else:
                return _Timed(stream, self._deadline)
        raise httpcore.ConnectError("no address")


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


@contextmanager
def request(
    method: str,
    url: str,
    *,
    schemes: Iterable[str] = ("https",),
    headers: dict[str, str] | None = None,
    content: bytes | None = None,
    seconds: float = 10.0,
    inside: bool = False,
) -> Iterator[httpcore.Response]:
    """One request to a tenant's URL, its answer as a stream. Everything together takes at most ``seconds``.

    ``inside``: plain http only within the host's own network.

    Raises ``OutboundRefused`` for an address that may not be asked, and for one that does not answer.
    """
    host, port = _host_of(url, tuple(schemes))
    deadline = time.monotonic() + seconds
    addresses = resolve(host, port, private=settings().allow_private_addresses)
    if inside and not all(
        may_be_provider(ipaddress.ip_address(text), urlsplit(url).scheme) for text in addresses
    ):
        raise OutboundRefused("Plain http is for the host's own network only.")
    backend = _CheckedAddresses(addresses, deadline)
    try:
        with (
            httpcore.ConnectionPool(ssl_context=_trust(), network_backend=backend) as pool,
            pool.stream(
                method,
                url,
                headers=[("Accept-Encoding", "identity"), *(headers or {}).items()],
                content=content,
            ) as answer,
        ):
            yield answer
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as fault:
        raise OutboundRefused("The address did not answer in time, or not as a web server does.") from fault


@dataclass(slots=True)
class Answered:
    """What a receiver said: status, headers (names in lower case) and the beginning of the body."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


def post(url: str, content: bytes, headers: dict[str, str], *, seconds: float, limit: int) -> Answered:
    """Send something to a tenant's server, which may be asked in plain text only within the host's network.

    At most ``limit`` bytes of the answer are read; what breaks off after its status is an answer, too.
    Raises ``OutboundRefused``.
    """
    schemes = ("https", "http") if settings().allow_private_addresses else ("https",)
    answered: Answered | None = None
    try:
        with request(
            "POST", url, schemes=schemes, headers=headers, content=content, seconds=seconds, inside=True
        ) as answer:
            told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
            answered = Answered(answer.status, told)
            for part in answer.iter_stream():
                answered.body += part[: limit - len(answered.body)]
                if len(answered.body) >= limit:
                    break
    except OutboundRefused:
        if answered is None:
            raise
    return answered


@dataclass(frozen=True, slots=True)
class Fetched:
    """What stood at a URL. ``name`` is the last part of its path, or empty; ``size`` is in bytes."""

    media_type: str
    name: str
    size: int


def fetch(url: str, into: BinaryIO, *, limit: int, seconds: float = 30.0) -> Fetched:
    """Write what stands at ``url`` into a file, at most ``limit`` bytes.

    Raises ``OutboundRefused`` where nothing usable stands there, ``TooLarge`` beyond the limit.
    """
    size = 0
    with request("GET", url, schemes=("https", "http"), seconds=seconds) as answer:
        if answer.status != 200:
            raise OutboundRefused(f"The address answered with status {answer.status}, not with a document.")
        headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
        if headers.get(b"content-encoding", "identity").lower() != "identity":
            raise OutboundRefused("The address answered in an encoding that was not asked for.")
        for part in answer.iter_stream():
            size += len(part)
            if size > limit:
                raise TooLarge(f"The document is larger than {limit} bytes.")
            into.write(part)
    media_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    return Fetched(media_type, unquote(urlsplit(url).path).rpartition("/")[2][:200], size)

"""Clients with their pools, one for each server and key: whom they reach, what they send, what they take."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiohttp
import httpx2
from openai import AsyncOpenAI, DefaultAioHttpClient

# The official client's own transport; it has no public name, and its client takes no connector.
from openai._vendor.httpx_aiohttp import AiohttpTransport

from models.chat.ports import ProviderError
from storage.outbound import may_be_provider
from storage.providers.faults import NotAllowed

MAX_ERROR_BODY: Final = 64 * 1024
MAX_CLIENTS: Final = 128
MAX_CONNECTIONS: Final = 4096
"""Of one client at a time. aiohttp reads "no limit" as its default of 100."""

# The client's debug lines tell URLs and request ids; nothing of a tenant's call belongs in the log.
for _noisy in ("openai", "httpx2"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)


@dataclass(slots=True, eq=False)
class Connection:
    """A client with its pool, shared by all calls to one base URL with one key in one event loop.

    `refused` remembers which parameters a model's server has turned down.
    """

    client: AsyncOpenAI
    base_url: str
    active: int = 0
    refused: set[tuple[str, str]] = field(default_factory=set)

    def url(self, path: str) -> str:
        """The whole address, which the client would put together anew, part by part, for each call."""
        return self.base_url.rstrip("/") + path


_Pool = OrderedDict[tuple[str, str, bool], Connection]
_connections: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()
_closing: set[asyncio.Task[None]] = set()


def shared(base_url: str, api_key: str, is_tenants: bool) -> Connection:
    """The shared client, made at first use. Of more than `MAX_CLIENTS`, those longest idle are closed."""
    pool = _connections.setdefault(asyncio.get_running_loop(), OrderedDict())
    place = base_url, api_key, is_tenants
    found = pool.get(place)
    if found is None:
        found = pool[place] = Connection(_client(base_url, api_key, is_tenants), base_url)
        idle = [key for key, other in pool.items() if not other.active and other is not found]
        for key in idle[: max(0, len(pool) - MAX_CLIENTS)]:
            closing = asyncio.ensure_future(pool.pop(key).client.close())
            _closing.add(closing)
            closing.add_done_callback(_closing.discard)
    pool.move_to_end(place)
    return found


async def aclose_all() -> None:
    """Close every connection of the running event loop, at the end of a process or of a test."""
    for connection in _connections.pop(asyncio.get_running_loop(), {}).values():
        await connection.client.close()


def _client(base_url: str, api_key: str, is_tenants: bool) -> AsyncOpenAI:
    http = DefaultAioHttpClient(
        # A given transport also keeps the client from a proxy of the environment, which would resolve names
        # anew, out of our sight.
        transport=_checked_transport(base_url) if is_tenants else None,
        verify=_tls(),
        follow_redirects=False,  # the credential is for this host and no other
        limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=30.0),
        event_hooks={"request": [_Only(api_key)], "response": [_bounded]},
    )
    # Empty strings, not None: for None the client would look into the environment.
    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or "none",
        admin_api_key="",
        organization="",
        project="",
        webhook_secret="",
        max_retries=0,
        http_client=http,
    )


def _checked_transport(base_url: str) -> httpx2.AsyncBaseTransport:
    """A transport whose every socket is for an address that was checked, however the name came to it."""
    scheme = httpx2.URL(base_url).scheme

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=_tls(),
            limit=MAX_CONNECTIONS,
            keepalive_timeout=30.0,
            socket_factory=partial(_checked_socket, scheme),
        )
        return aiohttp.ClientSession(connector=connector)

    return AiohttpTransport(verify=_tls(), client=session)


def _checked_socket(scheme: str, target: Any) -> socket.socket:
    family, kind, protocol, _, address = target
    if not may_be_provider(ipaddress.ip_address(address[0].partition("%")[0]), scheme):
        raise NotAllowed("not allowed")
    return socket.socket(family, kind, protocol)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """One context for all: each would cost some 20 ms and the parsed root certificates again."""
    return httpx2.create_ssl_context()


class _Only:
    """Sends the headers that the call needs and no other, whatever the environment told the client to add."""

    needed = frozenset({b"host", b"accept", b"content-type", b"content-length", b"user-agent", b"connection"})

    def __init__(self, api_key: str) -> None:
        # A compressed stream is held back until a block is full, and may unpack without bound.
        self._added = [(b"Accept-Encoding", b"identity")]
        if api_key:
            self._added.append((b"Authorization", f"Bearer {api_key}".encode()))

    async def __call__(self, request: httpx2.Request) -> None:
        headers = [pair for pair in request.headers.raw if pair[0].lower() in self.needed]
        request.headers = httpx2.Headers(headers + self._added)


async def _bounded(response: httpx2.Response) -> None:
    """Refuse a compressed body, and read no more of an error's body than an error needs."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ProviderError("provider_malformed", "The provider compressed its answer, unasked.")
    if not response.is_success:
        response.stream = _Head(response.stream)


class _Head(httpx2.AsyncByteStream):
    """The first `MAX_ERROR_BODY` bytes of a body, about."""

    def __init__(self, body: Any) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ERROR_BODY
        async for data in self._body:
            yield data
            left -= len(data)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._body.aclose()

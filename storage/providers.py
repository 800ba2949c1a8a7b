"""Calls to OpenAI-compatible servers, through the official client.

The client's own retries and chunk objects are not used: it would wait up to two minutes for a `Retry-After`,
and its objects cost several times what the text costs to relay. It builds the request, sends it over its
aiohttp transport and judges the status; the events of the body are read here.

A stream is server-sent events (WHATWG HTML, section 9.2) whose data are JSON, ended by `data: [DONE]`.
"""

import asyncio
import codecs
import ipaddress
import logging
import math
import random
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from time import time
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiohttp
import httpx2
import orjson
from openai import (
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AsyncStream,
    DefaultAioHttpClient,
    OpenAIError,
)

# The official client's own transport; it has no public name, and its client takes no connector.
from openai._vendor.httpx_aiohttp import AiohttpTransport

from models.chat.ports import (
    ErrorCode,
    Finished,
    Prompt,
    ProviderError,
    ReplyPart,
    TextDelta,
    UsageReport,
    estimated_usage,
)
from storage.outbound import may_be_provider

RETRIES: Final = 2
LONGEST_WAIT: Final = 5.0
"""Seconds: a provider that asks for more is given up, so that a fallback may answer instead."""

MAX_BODY: Final = 2 * 1024 * 1024
"""Bytes of one event, or of a whole answer that is not streamed."""
MAX_REPLY: Final = 4 * 1024 * 1024
"""Characters of a reply: a server that goes on for ever is stopped."""
MAX_ERROR_BODY: Final = 64 * 1024
MODERATION_SECONDS: Final = 5.0
"""How long a text waits for the server's moderation."""
MAX_CLIENTS: Final = 128
MAX_CONNECTIONS: Final = 4096
"""Of one client at a time. aiohttp reads "no limit" as its default of 100."""
DRAIN: Final = 0.05
"""Seconds to wait for the end of the body after the reply is whole: then the connection serves again."""

_NO_MODERATION: Final = ("", "moderations")
"""Among what a server has refused: that it moderates nothing."""

# The client's debug lines tell URLs and request ids; nothing of a tenant's call belongs in the log.
for _noisy in ("openai", "httpx2"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)


class OpenAIProvider:
    """A server that speaks OpenAI's chat completions, at any base URL; `api_key` may be empty.

    Timeouts are seconds: to connect, until the first event of the reply, and between its events (comments do
    not count; until there is text, the shorter of the two). A call that fails before its first event is
    repeated at most twice when that may help. `is_tenants` says that a tenant named the address: then every
    connection is held against what tenants may reach, and goes there directly.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str,
        *,
        connect_timeout: float = 5.0,
        first_byte_timeout: float = 60.0,
        idle_timeout: float = 60.0,
        is_tenants: bool = False,
    ) -> None:
        self.name = name
        self.base_url = base_url
        self._api_key = api_key
        self._is_tenants = is_tenants
        self._first_byte_timeout = first_byte_timeout
        self._idle_timeout = idle_timeout
        # Reading is bounded by the deadlines of `stream`, since the transport has one limit for both waits.
        self._timeout = httpx2.Timeout(None, connect=connect_timeout, pool=connect_timeout)

    def __repr__(self) -> str:
        return f"OpenAIProvider({self.name!r}, {self.base_url!r})"

    async def stream(self, prompt: Prompt) -> AsyncGenerator[ReplyPart, None]:
        """The reply as it comes; events that wait together become one `TextDelta`.

        Closing the generator closes the connection, by which the server learns that nobody listens.
        Raises `ProviderError`; whatever text came before it was yielded.
        """
        connection = self._connection()
        connection.active += 1
        before_text = min(self._first_byte_timeout, self._idle_timeout)
        tries = 0
        try:
            while True:
                reply = _Reply()
                fault: ProviderError | None = None
                call = _Call(connection, prompt)
                try:
                    body = await call.open(self._timeout, self._first_byte_timeout)
                    async for data in body:
                        events, text = reply.events, reply.feed(data)
                        if text:
                            call.rest()
                            yield TextDelta(text)
                        if reply.ended:
                            break
                        if text or reply.events > events:
                            call.expect_within(self._idle_timeout if reply.begun else before_text)
                    else:
                        if text := reply.close():
                            yield TextDelta(text)
                    call.rest()
                    if reply.fault is None:
                        for part in reply.ending(prompt):
                            yield part
                        await call.drain(body)
                        return
                    fault = reply.fault
                except _FAULTS as error:
                    fault = _explained(error, late=call.late, begun=bool(reply.text))
                finally:
                    await call.close()
                # Outside of `except`: the client's error holds the request, and with it key and prompt.
                if not reply.text and call.amended(fault):
                    continue
                wait = None if reply.text else _wait_before_retry(fault, tries)
                if wait is None:
                    raise fault
                tries += 1
                await asyncio.sleep(wait)
        finally:
            connection.active -= 1

    async def count_models(self) -> int | None:
        """How many models the server lists; None where it keeps no list. Raises `ProviderError`."""
        connection = self._connection()
        body = await self._answer(connection.client.get, "/models", self._first_byte_timeout)
        return None if body is None else _counted_models(body)

    async def moderate(self, text: str) -> list[str] | None:
        """What the server's moderation (`/moderations`) objects to in a text, by its own names; None where it
        has none, which is remembered. Raises `ProviderError`.
        """
        connection = self._connection()
        if _NO_MODERATION in connection.refused:
            return None
        post = partial(connection.client.post, body={"input": text})
        body = await self._answer(post, "/moderations", MODERATION_SECONDS)
        if body is None:
            connection.refused.add(_NO_MODERATION)
            return None
        return _objections(body)

    async def _answer(self, ask: Callable[..., Awaitable[Any]], path: str, seconds: float) -> bytes | None:
        """What the server answers within that time; None where it serves no such path."""
        connection = self._connection()
        connection.active += 1
        try:
            async with asyncio.timeout(seconds):
                response = await ask(
                    path,
                    cast_to=httpx2.Response,
                    options={"timeout": self._timeout},
                    stream=True,
                    stream_cls=AsyncStream[Any],
                )
                try:
                    return await _whole(response)
                finally:
                    await response.aclose()
        except _FAULTS as error:
            fault = _explained(error, late=False, begun=False)
        finally:
            connection.active -= 1
        if fault.status in (404, 405, 501):
            return None
        raise fault

    def _connection(self) -> "_Connection":
        return _connection(self.base_url, self._api_key, self._is_tenants)


async def _whole(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for data in response.aiter_bytes():
        body += data
        if len(body) > MAX_BODY:
            raise ProviderError("provider_malformed", "The provider sent too much at once.")
    return bytes(body)


def _counted_models(body: bytes) -> int:
    try:
        return len(orjson.loads(body)["data"])
    except (ValueError, TypeError, LookupError) as fault:
        raise ProviderError(
            "provider_malformed", "The provider answered something that is no list of models."
        ) from fault


def _objections(body: bytes) -> list[str]:
    try:
        result = orjson.loads(body)["results"][0]
        named = sorted(name for name, caught in result["categories"].items() if caught is True)
        return named or ["flagged"] if result["flagged"] else []
    except (ValueError, TypeError, LookupError, AttributeError) as fault:
        raise ProviderError(
            "provider_malformed", "The provider answered something that is no moderation."
        ) from fault


async def aclose_all() -> None:
    """Close every connection of the running event loop, at the end of a process or of a test."""
    for connection in _connections.pop(asyncio.get_running_loop(), {}).values():
        await connection.client.close()


# -- clients, shared


@dataclass(slots=True, eq=False)
class _Connection:
    """A client with its pool, shared by all calls to one base URL with one key in one event loop.

    `refused` remembers which parameters a model's server has turned down.
    """

    client: AsyncOpenAI
    active: int = 0
    refused: set[tuple[str, str]] = field(default_factory=set)


_Pool = OrderedDict[tuple[str, str, bool], _Connection]
_connections: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()
_closing: set[asyncio.Task[None]] = set()


def _connection(base_url: str, api_key: str, is_tenants: bool) -> _Connection:
    """The shared client, made at first use. Of more than `MAX_CLIENTS`, those longest idle are closed."""
    pool = _connections.setdefault(asyncio.get_running_loop(), OrderedDict())
    place = base_url, api_key, is_tenants
    found = pool.get(place)
    if found is None:
        found = pool[place] = _Connection(_client(base_url, api_key, is_tenants))
        idle = [key for key, other in pool.items() if not other.active and other is not found]
        for key in idle[: max(0, len(pool) - MAX_CLIENTS)]:
            closing = asyncio.ensure_future(pool.pop(key).client.close())
            _closing.add(closing)
            closing.add_done_callback(_closing.discard)
    pool.move_to_end(place)
    return found


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


class _NotAllowed(OSError):
    """A tenant's provider is not to be asked at this address."""


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
        raise _NotAllowed("not allowed")
    return socket.socket(family, kind, protocol)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """One context for all: each would cost some 20 ms and the parsed root certificates again."""
    return httpx2.create_ssl_context()


class _Only:
    """Sends the headers that the call needs and no other, whatever the environment told the client to add."""

    needed = frozenset({"host", "accept", "content-type", "content-length", "user-agent", "connection"})

    def __init__(self, api_key: str) -> None:
        self._authorization = f"Bearer {api_key}" if api_key else None

    async def __call__(self, request: httpx2.Request) -> None:
        for name in set(request.headers) - self.needed:
            del request.headers[name]
        # A compressed stream is held back until a block is full, and may unpack without bound.
        request.headers["Accept-Encoding"] = "identity"
        if self._authorization:
            request.headers["Authorization"] = self._authorization


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


# -- one call


class _Call:
    """One request and the body of its answer, which is expected by a deadline that moves.

    The deadline is an attribute that one timer looks at when it fires: a timer set anew for every token would
    cost as much as reading the token.
    """

    def __init__(self, connection: _Connection, prompt: Prompt) -> None:
        self._connection, self._prompt = connection, prompt
        self._loop = asyncio.get_running_loop()
        self._response: httpx2.Response | None = None
        self._deadline = math.inf
        self._watch: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self.late = False

    def _parameters(self) -> dict[str, Any]:
        """The request's body, less what this server has refused."""
        prompt = self._prompt
        body: dict[str, Any] = {
            "model": prompt.chat_model,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "stream": True,
        }
        if not self._was_refused("stream_options"):
            body["stream_options"] = {"include_usage": True}
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        if prompt.max_output_tokens is not None:
            # The older name is the one that every server knows; OpenAI's newest models take only the other.
            name = "max_completion_tokens" if self._was_refused("max_tokens") else "max_tokens"
            body[name] = prompt.max_output_tokens
        return body

    def _was_refused(self, parameter: str) -> bool:
        return (self._prompt.chat_model, parameter) in self._connection.refused

    async def open(self, timeout: httpx2.Timeout, patience: float) -> AsyncIterator[bytes]:
        """Send the request; the body of a good answer. `patience` is for both, its first bytes included."""
        deadline = self._loop.time() + patience
        async with asyncio.timeout_at(deadline):
            response: Any = await self._connection.client.post(
                "/chat/completions",
                body=self._parameters(),
                cast_to=httpx2.Response,
                # The client would draw a key at random for each call, and it is not sent (see `_Only`).
                options={"timeout": timeout, "idempotency_key": "unused"},
                stream=True,
                stream_cls=AsyncStream[Any],
            )
        self._response, self._deadline = response, deadline
        self._watch = self._loop.call_at(deadline, self._look)
        return aiter(response.stream)

    def expect_within(self, seconds: float) -> None:
        """More must come in so many seconds, or the call is `late` and its connection closed."""
        self._deadline = self._loop.time() + seconds
        if self._watch is None or self._watch.when() > self._deadline:
            self._look()

    def rest(self) -> None:
        """Nothing is awaited of the server now: the time that our reader takes is not its fault."""
        self._deadline = math.inf

    def _look(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._deadline <= self._loop.time():
            self.late = True
            self._closing = self._loop.create_task(self.close())
        elif self._deadline < math.inf:
            self._watch = self._loop.call_at(self._deadline, self._look)

    async def drain(self, body: AsyncIterator[bytes]) -> None:
        """Wait shortly for the end of the body."""
        with suppress(*_FAULTS):  # the reply is whole: only the connection is lost
            async with asyncio.timeout(DRAIN):
                async for _ in body:
                    continue

    async def close(self) -> None:
        """Give the connection back, or close it when the body is not over. What waits for it then fails."""
        if self._watch is not None:
            self._watch.cancel()
        if self._response is not None:
            await self._response.aclose()

    def amended(self, fault: ProviderError) -> bool:
        """Was it a parameter that the server does not know? Then it is left out from now on."""
        if not isinstance(fault, _Rejected) or self._was_refused(fault.parameter):
            return False
        self._connection.refused.add((self._prompt.chat_model, fault.parameter))
        return True


# -- the body


class _Reply:
    """Reads the bytes of an answer: events, or one JSON document from a server that does not stream.

    `ended` says that nothing more is to be read: the reply is whole, or `fault` says what is wrong with it.
    A fault is kept, not raised, so that the text which came before it is not lost.
    """

    def __init__(self) -> None:
        self.ended = False
        self.fault: ProviderError | None = None
        self.events = 0
        self._pieces: list[str] = []
        self._length = 0
        self._fresh: list[str] = []
        self._tail = b""
        self._data: list[bytes] = []
        self._document: bool | None = None
        self._finish: str | None = None
        self._usage: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._pieces)

    @property
    def begun(self) -> bool:
        """Whether there is text."""
        return bool(self._pieces)

    def feed(self, data: bytes) -> str:
        """Take bytes as they came off the wire; the text that they complete."""
        if self._tail:
            data = self._tail + data
        if self._document is None:
            self._sniff(data)
        if self._document:
            self._tail = data
        else:
            lines = data.split(b"\n")
            self._tail = lines.pop()
            self._read(lines)
        if len(self._tail) > MAX_BODY:
            self._broken("The provider sent too much at once.")
        return self._taken()

    def _sniff(self, data: bytes) -> None:
        """Servers label their answers wrongly; the first character tells."""
        start = data.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        if start == b"<":
            self._broken("The provider answered with a web page.")
        elif start:
            self._document = start == b"{"

    def _read(self, lines: list[bytes]) -> None:
        """Lines of the stream. An empty one ends an event; comments and other fields say nothing to us."""
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif self._data and not line.rstrip(b"\r"):
                data = b"\n".join(self._data).strip()
                self._data.clear()
                if data == b"[DONE]":
                    self.ended = True
                else:
                    self._event(data)
            if self.ended:
                return

    def close(self) -> str:
        """The body is over; the text that was still to come. A reply that is not whole gets its fault."""
        if self._document:
            self._event(self._tail)
        elif self._tail.strip() in (b"data: [DONE]", b"data:[DONE]"):
            self.ended = True
        if not self.ended and self._finish is None:
            if self._pieces:
                self.fault = ProviderError("provider_interrupted", "The provider ended the reply half way.")
            elif self.events and not self._document:
                self.fault = ProviderError("provider_unavailable", "The provider hung up before it replied.")
            elif not self._fresh:
                self._broken("The provider's answer holds no reply.")
        self.ended = True
        return self._taken()

    def ending(self, prompt: Prompt) -> list[ReplyPart]:
        """What follows the last text: usage, counted by the server or estimated, and why the reply ended."""
        usage = UsageReport(*self._usage, "provider") if self._usage else estimated_usage(prompt, self.text)
        return [usage, Finished(self._finish or "stop")]

    def _taken(self) -> str:
        text = "".join(self._fresh)
        if text:
            self._pieces.append(text)
            self._length += len(text)
            self._fresh.clear()
            if self._length > MAX_REPLY and not self.ended:
                self._broken("The reply does not end.")
        if self.ended and self.fault is None and not self._pieces:
            self.fault = _without_text(self._finish)
        return text

    def _broken(self, detail: str) -> None:
        self.fault, self.ended = ProviderError("provider_malformed", detail), True

    def _event(self, data: bytes) -> None:
        """One JSON object: a chunk, a whole completion, an error, or something that we need not know."""
        self.events += 1
        try:
            event = orjson.loads(data)
            if error := event.get("error"):
                self.fault, self.ended = _told(error), True
                return
            if choices := event.get("choices"):
                choice = choices[0]
                text = (choice.get("delta") or choice.get("message") or {}).get("content")
                if text:
                    # NUL is the one character that PostgreSQL cannot keep, and no text needs it.
                    self._fresh.append(text.replace("\0", ""))
                self._finish = choice.get("finish_reason") or self._finish
            if usage := event.get("usage"):
                self._usage = _counted(usage)
        except (ValueError, TypeError, AttributeError, LookupError):
            self._broken("The provider sent an event that is not of a chat completion.")


def _counted(usage: dict[str, Any]) -> tuple[int, int] | None:
    """The server's counts, if they are counts."""
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    whole = all(type(count) is int and 0 <= count < 2**31 for count in counts)
    return counts if whole else None  # type: ignore[return-value]  # checked in the line above


# -- faults


_FAULTS = (ProviderError, OpenAIError, httpx2.HTTPError, httpx2.StreamError, aiohttp.ClientError, OSError)
"""All that a call may raise, `TimeoutError` (an `OSError`) and TLS errors among them."""


class _Rejected(ProviderError):
    """A 400 or 422 whose words name a parameter that the call can do without: `parameter`."""

    parameter: str


def _explained(error: BaseException, *, late: bool, begun: bool) -> ProviderError:
    """The fault in our own words: the server's may quote the prompt, or the key."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, APIStatusError):
        return _status_fault(error)
    if any(isinstance(cause, _NotAllowed) for cause in _causes(error)):
        return ProviderError(
            "provider_unavailable", "The provider's address is not one that may be asked.", retryable=False
        )
    if late or _is_timeout(error):
        return ProviderError("provider_timeout", "The provider took too long.")
    if begun:
        return ProviderError("provider_interrupted", "The connection to the provider broke half way.")
    return ProviderError("provider_unavailable", "The provider cannot be reached.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_timeout(error: BaseException) -> bool:
    """The transport calls a lost connection a timeout too; aiohttp's own error, its cause, knows better."""
    for cause in _causes(error):
        if isinstance(cause, aiohttp.ClientError):
            return isinstance(cause, TimeoutError)
    return isinstance(error, TimeoutError | APITimeoutError | httpx2.TimeoutException)


def _status_fault(error: APIStatusError) -> ProviderError:
    status = error.status_code
    if status < 400:
        return ProviderError(
            "provider_malformed", "The provider redirects elsewhere, which is not followed.", status=status
        )
    known = _known(error.code) or _known(error.type)
    unknown = _unknown_parameter(str(error.body), known) if status in (400, 422) else None
    fault = (_Rejected if unknown else ProviderError)(
        _code_of(status),
        f"The provider answered {status}{f' ({known})' if known else ''}.",
        status=status,
        retry_after=_retry_after(error.response.headers),
        # A spent quota answers 429 as well, and stays spent.
        retryable=False if known == "insufficient_quota" else None,
    )
    if isinstance(fault, _Rejected) and unknown:
        fault.parameter = unknown
    return fault


def _unknown_parameter(told: str, known: str | None) -> str | None:
    """Which of the parameters that can be left out the server does not know, as far as its words tell."""
    if "stream_options" in told:
        return "stream_options"
    # Without such a code it may as well be the value that is refused.
    return "max_tokens" if "max_tokens" in told and known in _NOT_KNOWN else None


def _code_of(status: int) -> ErrorCode:
    if status in (401, 403):
        return "provider_refused"
    if status == 429:
        return "provider_rate_limited"
    if status in (408, 504):
        return "provider_timeout"
    return "provider_rejected" if status < 500 else "provider_unavailable"


_KNOWN: Final = frozenset(
    {
        "billing_hard_limit_reached",
        "content_filter",
        "content_policy_violation",
        "context_length_exceeded",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_request_error",
        "invalid_value",
        "model_not_found",
        "not_found_error",
        "overloaded_error",
        "rate_limit_exceeded",
        "server_error",
        "string_above_max_length",
        "tokens_limit_reached",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
    }
)
"""Codes that OpenAI and its kin are known to send, which may be repeated as they are."""


_NOT_KNOWN: Final = frozenset({"unknown_parameter", "unsupported_parameter"})


def _known(code: object) -> str | None:
    return code if isinstance(code, str) and code in _KNOWN else None


def _told(error: object) -> ProviderError:
    """The fault of an error object in an answer whose status was 200."""
    fields = error if isinstance(error, dict) else {}
    words = [_known(fields.get("code")), _known(fields.get("type"))]
    known = next((word for word in words if word), None)
    status = next((fields[key] for key in ("status", "code") if type(fields.get(key)) is int), 0)
    code: ErrorCode = "provider_unavailable"
    if 400 <= status < 600:
        code = _code_of(status)
    elif known and known.startswith(("rate_limit", "insufficient")):
        code = "provider_rate_limited"
    elif known and known not in ("server_error", "overloaded_error"):
        code = "provider_rejected"
    detail = f"The provider reported an error{f' ({known})' if known else ''} in place of a reply."
    return ProviderError(code, detail, retryable=False if known == "insufficient_quota" else None)


def _without_text(finish: str | None) -> ProviderError:
    if finish == "content_filter":
        return ProviderError("provider_rejected", "The provider's content filter withheld the reply.")
    if finish == "length":
        return ProviderError("provider_rejected", "The limit of output tokens was spent before any text.")
    return ProviderError("provider_malformed", "The provider's reply is empty.")


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that the server asks us to wait: a number, or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value) if value[:1].isdigit() else parsedate_to_datetime(value).timestamp() - time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), 86_400.0)


def _wait_before_retry(fault: ProviderError, tries: int) -> float | None:
    """Seconds until the call is worth repeating, None when it is not.

    A call that timed out has had its time, and is not given it thrice over.
    """
    if tries >= RETRIES or not fault.retryable or fault.code == "provider_timeout":
        return None
    wait = max(0.25 * 2**tries, fault.retry_after or 0.0)
    jitter = random.uniform(0.8, 1.2)  # noqa: S311  # spreads callers, guards nothing
    return wait * jitter if wait <= LONGEST_WAIT else None

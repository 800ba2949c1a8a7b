"""The innermost layer: calls the handler of an operation and turns what it gives into an answer.

Plain functions run in a sized thread pool, ``async`` ones (which stream) on the event loop. Here, too,
stand the HTTP semantics that no handler should repeat: ETags and preconditions (RFC 9110, 13), replays of
idempotent POSTs, CSV of lists.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

import anyio
import orjson
import structlog
from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers import auth
from handlers.problems import Problem
from handlers.replies import Events, Fresh, Listing, Parts, StoredFile, Text, with_query
from models.errors import Stale
from openapi import exchange as exchanges
from openapi import ranges, readers, replays
from openapi.contract import Contract, Operation
from openapi.exchange import Exchange
from openapi.sending import Headers, send_empty, send_stream, send_whole
from storage import audit
from storage.database import reading, transaction
from storage.settings import settings
from storage.threads import in_thread

log = structlog.get_logger("booga.dispatch")
FILE_PART = 262_144


def dumps(value: Any) -> bytes:
    """JSON with times as the contract shows them (RFC 3339, UTC, ``Z``)."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def etag_of(body: bytes) -> str:
    """A strong validator: it changes exactly when the representation does."""
    return '"' + hashlib.blake2b(body, digest_size=12).hexdigest() + '"'


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    wanted = [tag.strip() for tag in header.split(",")]
    if "*" in wanted:
        return True
    if weak:
        wanted = [tag.removeprefix("W/") for tag in wanted]
    return etag in wanted


def _bind_act(exchange: Exchange) -> None:
    audit.bind(
        exchange.caller,
        address=exchange.client,
        request_id=exchange.request_id,
        operation=exchange.operation.id if exchange.operation else None,
    )


def _unpack(result: Any) -> tuple[Any, int, dict[str, str]]:
    if isinstance(result, tuple):
        body, status, *rest = result
        return body, status, rest[0] if rest else {}
    return result, 204 if result is None else 200, {}


def _url_with(scope: Scope) -> Callable[[dict[str, Any]], str]:
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    base = settings().public_url + quote(scope["path"])

    def url(changes: dict[str, Any]) -> str:
        return with_query(base, {**query, **changes})

    return url


class DispatchOperation:
    """Serves one operation."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.is_item_write = operation.getter is not None and operation.method != "get"
        signature = inspect.signature(operation.function)
        self.accepts = set(signature.parameters)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the handler and answer."""
        exchange = exchanges.of(scope)
        if exchange.caller is not None:
            auth.bind(exchange.caller)
        _bind_act(exchange)
        arguments = {
            name: value
            for name, value in exchange.arguments.items()
            if name in self.accepts or name == "body"
        }
        if "exchange" in self.accepts:
            arguments["exchange"] = exchange
        if self.operation.is_async:
            key = exchange.preconditions.get("Idempotency-Key") if self.operation.idempotent else None
            if key:
                arguments["replay"] = replays.Replay(exchange, key)
            result: Any = _LEFT
            with _while_reading(exchange, receive) as reader:
                result = await self.operation.function(**arguments)
            if reader.is_refused:
                raise _refusal(exchange)
        else:
            result = await in_thread(self._call, arguments, exchange, _url_with(scope))
        if result is not _LEFT:
            await self._answer(result, exchange, receive, send)

    def _call(
        self, arguments: dict[str, Any], exchange: Exchange, url: Callable[[dict[str, Any]], str]
    ) -> Any:
        """The handler in its thread, inside the transaction that its guards need."""
        caller = exchange.caller
        key = exchange.preconditions.get("Idempotency-Key")
        if key and self.operation.idempotent and caller is not None:
            with transaction(caller) as db:
                kept = replays.Replay(exchange, key)
                first = kept.answered(db)
                if first is not None:
                    return first
                result = self.operation.function(**arguments)
                body, status, headers = _unpack(result)
                if not isinstance(body, Fresh):
                    kept.keep(db, status, headers, dumps(body) if body is not None else b"")
                return result
        wanted = exchange.preconditions.get("If-Match")
        if self.is_item_write and wanted is not None and caller is not None:
            with transaction(caller, serializable=True):
                getter = self.operation.getter
                assert getter is not None  # noqa: S101 - is_item_write says so
                present = dumps(_unpack(getter.function(**exchange.path_values))[0])
                if not _matches(wanted, etag_of(present), weak=False):
                    raise Stale("The resource was changed since you read it.")
                return self.operation.function(**arguments)
        result = self.operation.function(**arguments)
        if isinstance(result, Listing):
            if result.paging.whole:
                return Parts(
                    result.csv(),
                    "text/csv; charset=utf-8",
                    {"Content-Disposition": 'attachment; filename="export.csv"'},
                )
            with reading(result.of) as db:
                return result.page(db, url)
        return result

    async def _answer(self, result: Any, exchange: Exchange, receive: Receive, send: Send) -> None:
        body, status, headers = _unpack(result)
        extra: Headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]
        if isinstance(body, Fresh):
            body = body.body
        if body is None:
            await send_empty(send, status, exchange, extra)
        elif isinstance(body, Text):
            content = body.body.encode() if isinstance(body.body, str) else body.body
            extra += [
                (name.lower().encode(), value.encode("latin-1")) for name, value in body.headers.items()
            ]
            await send_whole(send, status, exchange, content, body.media_type, extra)
        elif isinstance(body, Parts):
            extra += [
                (name.lower().encode(), value.encode("latin-1")) for name, value in body.headers.items()
            ]
            await send_stream(send, status, exchange, _from_thread(body.parts), body.media_type, extra)
        elif isinstance(body, StoredFile):
            await self._send_file(body, exchange, send, extra)
        elif isinstance(body, Events):
            await _send_events(body, exchange, receive, send, extra)
        else:
            await self._send_json(body, status, exchange, send, extra)

    async def _send_json(
        self, body: Any, status: int, exchange: Exchange, send: Send, extra: Headers
    ) -> None:
        content = body if isinstance(body, bytes) else dumps(body)
        is_item = self.operation.getter is not None and self.operation.method != "delete"
        if is_item or any(name == b"location" for name, _ in extra):
            etag = etag_of(content)
            extra.append((b"etag", etag.encode()))
            known = exchange.preconditions.get("If-None-Match")
            if self.operation.method == "get" and known is not None and _matches(known, etag, weak=True):
                await send_empty(send, 304, exchange, extra)
                return
        await send_whole(send, status, exchange, content, "application/json", extra)

    async def _send_file(self, stored: StoredFile, exchange: Exchange, send: Send, extra: Headers) -> None:
        etag = f'"{stored.etag}"'
        extra += [
            (b"etag", etag.encode()),
            (b"content-disposition", f"inline; filename*=UTF-8''{quote(stored.name)}".encode()),
            (b"content-security-policy", b"sandbox; default-src 'none'"),
            (b"cache-control", b"private, no-cache"),
        ]
        known = exchange.preconditions.get("If-None-Match")
        if known is not None and _matches(known, etag, weak=True):
            await send_empty(send, 304, exchange, extra)
            return
        async with await anyio.open_file(stored.path, "rb") as file:
            size = await file.seek(0, os.SEEK_END)
            part = ranges.wanted(exchange, etag, size)
            start, end = part or (0, size)
            await file.seek(start)

            async def parts() -> AsyncIterator[bytes]:
                left = end - start
                while piece := await file.read(min(left, FILE_PART)):
                    left -= len(piece)
                    yield piece

            extra += [(b"accept-ranges", b"bytes"), (b"content-length", str(end - start).encode())]
            if part:
                extra.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
            await send_stream(send, 206 if part else 200, exchange, parts(), stored.media_type, extra)


async def _from_thread(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (part := await in_thread(next, parts, None)) is not None:
        yield part


@dataclass(slots=True)
class _Reader:
    """Whether who reads an answer has left it, or may no longer have it."""

    has_left: bool = False
    is_refused: bool = False


@contextmanager
def _while_reading(exchange: Exchange, receive: Receive) -> Iterator[_Reader]:
    """Ends what is awaited inside, without a word, when the client leaves before it is done, or may no longer
    have it.

    With asyncio alone: a task group of anyio takes as long as several tokens of a reply.
    """
    inside, reader = asyncio.current_task(), _Reader()
    assert inside is not None  # noqa: S101 - a request is served by a task

    def end() -> None:
        if not (reader.has_left or reader.is_refused):
            inside.cancel()

    async def watch() -> None:
        with suppress(Problem):  # of a body without an end, which ends the answer as well
            while (await receive())["type"] != "http.disconnect":
                pass
        end()
        reader.has_left = True

    async def ask() -> None:
        await readers.refused(exchange)
        end()
        reader.is_refused = True

    loop = asyncio.get_running_loop()
    watching = [loop.create_task(watch()), loop.create_task(ask())]
    try:
        yield reader
    except asyncio.CancelledError:
        if not (reader.has_left or reader.is_refused):
            raise
        inside.uncancel()
    finally:
        for task in watching:
            task.cancel()


_LEFT = object()
"""In place of a result: nobody is there to read one."""


async def _send_events(
    events: Events, exchange: Exchange, receive: Receive, send: Send, extra: Headers
) -> None:
    """Server-sent events until they end, the reader leaves or may no longer read, whichever comes first."""
    extra += [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    try:
        with _while_reading(exchange, receive) as reader:
            await send_stream(send, 200, exchange, events.parts, "text/event-stream; charset=utf-8", extra)
    finally:
        close = getattr(events.parts, "aclose", None)
        if close is not None:
            await close()
    if reader.is_refused and not reader.has_left:
        await send({"type": "http.response.body", "body": _last_event(exchange)})


def _refusal(exchange: Exchange) -> Problem:
    which = "visitor's token" if exchange.visit else "credential"
    return Problem("unauthorized", f"The {which} is no longer good for this.")


def _last_event(exchange: Exchange) -> bytes:
    """What ends a stream whose reader may no longer read. It has no id: who signs in again takes the stream
    up behind the event before it.
    """
    problem = _refusal(exchange)
    if exchange.path.startswith("/openai/"):
        return b"data: %b\n\n" % dumps(problem.openai_body(exchange.request_id))
    told = problem.body(exchange.path, exchange.request_id)
    return b"event: message.failed\ndata: %b\n\n" % dumps(told)


class DispatchAPI(RoutedAPI[DispatchOperation]):
    """Makes a call for each operation of the contract."""

    contract: Contract

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> DispatchOperation:
        """Connexion's operation to ours, by id."""
        return DispatchOperation(self.contract.operations[operation.operation_id])


def dispatch_middleware(contract: Contract) -> Callable[[ASGIApp], RoutedMiddleware[DispatchAPI]]:
    """The middleware that answers every operation of the contract; anything else goes on to Flask."""

    class BoundAPI(DispatchAPI):
        pass

    BoundAPI.contract = contract

    class Dispatch(RoutedMiddleware[DispatchAPI]):
        api_cls = BoundAPI

    return Dispatch

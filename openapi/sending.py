"""Answers onto the wire: whole, empty, streamed, problems. Adds the headers that every answer carries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from starlette.types import Send

from handlers.problems import Problem, dumps
from openapi.exchange import Exchange

Headers = list[tuple[bytes, bytes]]

SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"private, no-cache"),
]


def _head(exchange: Exchange, extra: Iterable[tuple[bytes, bytes]]) -> Headers:
    headers: Headers = [
        (b"x-request-id", exchange.request_id.encode("latin-1")),
        *exchange.rate_headers,
        *exchange.extra_headers,
        *extra,
    ]
    given = {name for name, _ in headers}
    return headers + [pair for pair in SECURITY if pair[0] not in given]


async def send_whole(
    send: Send,
    status: int,
    exchange: Exchange,
    body: bytes,
    media_type: str,
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """A complete body; for HEAD its headers alone."""
    headers = [
        (b"content-type", media_type.encode("latin-1")),
        (b"content-length", str(len(body)).encode()),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": _head(exchange, headers)})
    await send({"type": "http.response.body", "body": b"" if exchange.method == "HEAD" else body})


async def send_empty(
    send: Send, status: int, exchange: Exchange, extra: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """No body at all (204, 304)."""
    await send({"type": "http.response.start", "status": status, "headers": _head(exchange, extra)})
    await send({"type": "http.response.body", "body": b""})


async def send_stream(
    send: Send,
    status: int,
    exchange: Exchange,
    parts: AsyncIterator[bytes],
    media_type: str,
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """A body of unknown length, part by part as it comes."""
    headers = [(b"content-type", media_type.encode("latin-1")), *extra]
    await send({"type": "http.response.start", "status": status, "headers": _head(exchange, headers)})
    if exchange.method != "HEAD":
        async for part in parts:
            if part:
                await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def send_problem(send: Send, exchange: Exchange, problem: Problem) -> None:
    """A problem, in OpenAI's shape at its door and ours elsewhere."""
    extra = [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in problem.headers.items()
    ]
    if exchange.path.startswith("/openai/"):
        await send_whole(
            send,
            problem.status,
            exchange,
            dumps(problem.openai_body(exchange.request_id)),
            "application/json",
            extra,
        )
        return
    body = dumps(problem.body(exchange.path, exchange.request_id))
    await send_whole(send, problem.status, exchange, body, "application/problem+json", extra)

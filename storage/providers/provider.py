"""A server that speaks OpenAI's chat completions: its replies, its list of models, its moderation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any, Final

import httpx2
import orjson
from openai import AsyncStream

from models.chat.ports import Prompt, ProviderError, ReplyPart, TextDelta
from storage.providers.body import MAX_BODY, Reply
from storage.providers.call import Call
from storage.providers.connections import Connection, shared
from storage.providers.faults import FAULTS, explained, wait_before_retry

MODERATION_SECONDS: Final = 5.0
"""How long a text waits for the server's moderation."""
_NO_MODERATION: Final = ("", "moderations")
"""Among what a server has refused: that it moderates nothing."""


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
                reply = Reply()
                fault: ProviderError | None = None
                call = Call(connection, prompt)
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
                except FAULTS as error:
                    fault = explained(error, late=call.late, begun=bool(reply.text))
                finally:
                    await call.close()
                # Outside of `except`: the client's error holds the request, and with it key and prompt.
                if not reply.text and call.amended(fault):
                    continue
                wait = None if reply.text else wait_before_retry(fault, tries)
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
        except FAULTS as error:
            fault = explained(error, late=False, begun=False)
        finally:
            connection.active -= 1
        if fault.status in (404, 405, 501):
            return None
        raise fault

    def _connection(self) -> Connection:
        return shared(self.base_url, self._api_key, self._is_tenants)


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

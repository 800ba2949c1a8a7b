"""One request for a reply, and the deadline of its answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import httpx2
import orjson
from openai import AsyncStream

from models.chat.ports import Prompt, ProviderError
from storage.providers.connections import Connection
from storage.providers.faults import FAULTS, Rejected

DRAIN: Final = 0.05
"""Seconds to wait for the end of the body after the reply is whole: then the connection serves again."""


class Call:
    """One request and the body of its answer, which is expected by a deadline that moves.

    The deadline is an attribute that one timer looks at when it fires: a timer set anew for every token would
    cost as much as reading the token.
    """

    def __init__(self, connection: Connection, prompt: Prompt) -> None:
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
                self._connection.url("/chat/completions"),
                content=orjson.dumps(self._parameters()),
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
        with suppress(*FAULTS):  # the reply is whole: only the connection is lost
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
        if not isinstance(fault, Rejected) or self._was_refused(fault.parameter):
            return False
        self._connection.refused.add((self._prompt.chat_model, fault.parameter))
        return True

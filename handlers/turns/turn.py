"""One reply while this process writes it: question -> passages -> prompt -> deltas -> answer."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

import structlog

from handlers.turns.order import UNSEARCHED, Order
from models.base import now
from models.chat import engine, rewriting
from models.chat.context import Room
from models.chat.conversations import MessageStatus
from models.chat.engine import Reply
from models.chat.moderation import Filtered, Guard
from models.chat.ports import (
    Attempt,
    Prompt,
    ProviderError,
    ReplyPart,
    TextDelta,
    UsageReport,
    estimated_usage,
    stream_with_fallback,
)
from models.chat.prompts import UNSEARCHABLE, Evidence, Fitted, compose
from models.chat.rewriting import Rewriting
from models.knowledge.figures import figures_in
from storage import metrics, tokenizing
from storage.admission import Place
from storage.conversations import Ending
from storage.provision import BUILT_IN
from storage.threads import in_thread

log = structlog.get_logger("booga.turns")

FLUSH_SECONDS = 0.5
"""How often what arrived of all turns is written to SQL."""
LEAVING_SECONDS = 1.0
"""How long a reply goes on without a reader, so that one who lost the line can come back."""


class Keeper(Protocol):
    """What a turn needs of the process that it runs in."""

    def room(self, order: Order) -> Room:
        """What the prompt of a turn may take."""

    def learn(self, turn: Turn, counted: int) -> None:
        """Hold our count of a prompt against that of the model that answered."""

    def retrieved(self, turn: Turn) -> None:
        """The passages of a turn are known: to be written."""

    def ended(self, turn: Turn) -> None:
        """A turn is over: to be written at once."""


class Turn:
    """One reply while this process writes it."""

    def __init__(self, order: Order, keeper: Keeper) -> None:
        self.order = order
        self.reply = Reply(order.reply_id, order.began)
        self.started = asyncio.Event()
        self.stored = asyncio.Event()
        self.read_elsewhere_until: datetime | None = None
        self._keeper = keeper
        self._readers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self.prompt = Prompt(order.instructions.chat_model, ())
        self._ending = MessageStatus.INTERRUPTED

    @property
    def place(self) -> Place:
        """Who asked, and in which stack."""
        return self.order.user_id, self.order.stack_id

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"reply {self.order.reply_id}")

    def end(self, status: MessageStatus) -> None:
        """Stop writing and close the provider's call; what arrived is kept under ``status``."""
        if self.reply.is_running and self._task is not None and not self._task.done():
            self._ending = status
            self._task.cancel()

    def attach(self) -> asyncio.Event:
        """Add a reader; the event is set at every change."""
        changed = asyncio.Event()
        changed.set()
        self._readers.add(changed)
        return changed

    def detach(self, reader: asyncio.Event) -> None:
        """A reader left. When none is left the reply ends soon, unless it runs in the background."""
        self._readers.discard(reader)
        if not self._readers and not self.order.background and self.reply.is_running:
            asyncio.get_running_loop().call_later(LEAVING_SECONDS, self._end_if_alone)

    def _end_if_alone(self) -> None:
        if self._readers:
            return
        if self.read_elsewhere_until is not None and self.read_elsewhere_until > now():
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._end_if_alone)
            return
        self.end(MessageStatus.INTERRUPTED)

    def kept(self) -> None:
        """All of it is written: readers may be told the end."""
        self.stored.set()
        self._wake()

    def _wake(self) -> None:
        for reader in self._readers:
            reader.set()

    async def _run(self) -> None:
        metrics.RUNNING.inc()
        try:
            await self._write()
            self.reply.end(MessageStatus.COMPLETE, time.monotonic())
        except Filtered as fault:
            self.reply.finish_reason = "content_filter"
            self.reply.filtered = str(fault)
            self.reply.end(MessageStatus.FILTERED, time.monotonic())
        except asyncio.CancelledError:
            self.reply.end(self._ending, time.monotonic())
        except ProviderError as error:
            self.reply.end(MessageStatus.FAILED, time.monotonic(), error)
        except Exception as fault:
            log.error("a reply failed", reply=self.order.reply_id, exc_info=fault)
            ours = ProviderError("provider_unavailable", "The server failed to write this reply.")
            self.reply.end(MessageStatus.FAILED, time.monotonic(), ours)
        finally:
            metrics.RUNNING.dec()
            self.started.set()
            self._keeper.ended(self)

    async def _write(self) -> None:
        guard = Guard(level, self.order.candidates) if (level := self.order.filter_level) else None
        if guard is not None:
            self.order.facts["filtering"] = guard.facts
            await guard.check(self.order.question)
        if self.order.asks_first:
            await self._rewrite()
        evidence, fitted, facts = await in_thread(self._prepare)
        self.prompt = fitted.prompt
        self.order.facts |= facts
        self.reply.answer_status = evidence.answer_status
        self.reply.retrieved = {
            "searched": evidence.searched,
            "degraded": evidence.degraded,
            "answer_status": evidence.answer_status,
            "timings": facts.get("timings", {}),
        }
        self._keeper.retrieved(self)
        self._wake()
        parts = stream_with_fallback(self.order.candidates, self.prompt, self._attempted)
        try:
            async with aclosing(parts):
                async for part in parts:
                    if evidence.away and isinstance(part, TextDelta) and not self.reply.text:
                        self._take(TextDelta(UNSEARCHABLE))
                    if guard is not None and isinstance(part, TextDelta):
                        self._show(guard, await guard.feed(part.text))
                    else:
                        self._take(part)
        except ProviderError:
            await self._finish(guard)
            raise
        await self._finish(guard)
        self._keeper.learn(self, fitted.counted)
        await self._check_figures()

    def _prepare(self) -> tuple[Evidence, Fitted, dict[str, Any]]:
        """Search, and make the prompt of what was found and fits. In a thread: both compute."""
        order, rewritten = self.order, self.reply.rewriting
        evidence, facts = Evidence(), dict(UNSEARCHED)
        if order.search is not None:
            evidence, self.reply.citations, facts = order.search(rewritten.question if rewritten else None)
        room = self._keeper.room(order)
        fitted = compose(order.instructions, order.history, order.question, evidence, room)
        given = len(fitted.prompt.sources)
        self.reply.citations = self.reply.citations[:given]
        facts["hits"] = [hit for hit in facts.get("hits", []) if hit["number"] <= given]
        facts["prompt"] = {**fitted.facts(), "counted_by": tokenizing.name() if room.window else "estimate"}
        if rewritten is not None:
            facts["rewriting"] = rewritten.facts()
        return replace(evidence, sources=fitted.prompt.sources), fitted, facts

    async def _rewrite(self) -> None:
        """Ask the first provider for the question as it stands alone. Its faults leave that to the rule."""
        first = self.order.candidates[0]
        chat_model = first.chat_model or self.order.instructions.chat_model
        prompt = rewriting.prompt_for(chat_model, self.order.question, self.order.history)
        answer, began = "", time.monotonic()
        usage: UsageReport | None = None
        error: str | None = None
        is_whole = is_charged = False
        try:
            async with asyncio.timeout(rewriting.SECONDS), aclosing(first.provider.stream(prompt)) as parts:
                is_charged = True
                async for part in parts:
                    if isinstance(part, TextDelta):
                        answer += part.text
                    elif isinstance(part, UsageReport):
                        usage = part
                    else:
                        is_whole = part.reason == "stop"
        except TimeoutError:
            error = "provider_timeout"
        except ProviderError as fault:
            error, is_charged = fault.code, bool(answer)
        finally:
            question = rewriting.usable(answer) if is_whole else None
            if usage is None and is_charged:
                usage = estimated_usage(prompt, answer)
            self.reply.rewriting = Rewriting(
                first.provider.name,
                chat_model,
                (time.monotonic() - began) * 1000,
                question,
                error or (None if question else "provider_malformed"),
                usage,
                first.price,
            )

    async def _check_figures(self) -> None:
        cited = self.reply.cited()
        if cited and self.order.pages is not None and next(figures_in(self.reply.text), None):
            self.reply.pages = await in_thread(self.order.pages, cited)

    async def _finish(self, guard: Guard | None) -> None:
        """Take what the guard still held back of the text that arrived."""
        if guard is not None:
            self._show(guard, await guard.end())

    def _take(self, part: ReplyPart) -> None:
        self.reply.take(part, time.monotonic())
        if not self.started.is_set() and self.reply.text:
            self.started.set()
        self._wake()

    def _show(self, guard: Guard, text: str) -> None:
        """Take what the guard let go of; end the reply where it found something."""
        if text:
            self._take(TextDelta(text))
        if guard.reason is not None:
            raise Filtered(guard.reason)

    def _attempted(self, attempt: Attempt) -> None:
        self.reply.attempts.append(attempt)

    def usage(self) -> dict[str, Any]:
        """The tokens spent, by the provider's count or our estimate."""
        return engine.usage_of(self.reply, estimated_usage(self.prompt, self.reply.text))

    def ending(self) -> Ending:
        """What is kept of the reply, now that it ended."""
        reply, order = self.reply, self.order
        provider = reply.attempts[-1] if reply.attempts else None
        name = provider.provider if provider else None
        usage = self.usage() if provider or reply.rewriting else None
        # Metrics are the host's: what a tenant calls its own providers is not told there.
        label = name if name in BUILT_IN else "own" if name else "none"
        metrics.REPLIES.labels(label, reply.status.value).inc()
        if usage:
            metrics.TOKENS.labels(label, "prompt").inc(usage["prompt_tokens"])
            metrics.TOKENS.labels(label, "completion").inc(usage["completion_tokens"])
        if reply.first_text_at is not None:
            metrics.FIRST_TOKEN.labels(label).observe(reply.first_text_at - reply.began)
        values: dict[str, Any] = {
            "status": reply.status.value,
            "content": reply.text,
            "usage": usage,
            "cost": engine.cost_of(reply, estimated_usage(self.prompt, reply.text)),
            "model": provider.chat_model if provider else None,
            "provider": name,
            "latency_ms": reply.latency_ms,
            "first_token_ms": reply.first_token_ms,
            "numeric_checks": reply.numeric_checks(),
            "trace": engine.trace_of(reply, order.facts, [c.provider.name for c in order.candidates]),
            "error": reply.fault,
        }
        cited = [citation["number"] for citation in reply.citations if citation["cited"]]
        of = (order.session_id, order.tenant_id, order.user_id, order.persona_id)
        if order.search is not None:
            values["answer_status"] = reply.answer_status
        cut = order.facts.get("filtering", {}).get("cut")
        return Ending(
            reply.message_id,
            *of,
            values,
            cited,
            order.bot_id,
            order.is_first,
            order.is_new,
            is_refused=order.is_new and cut == "question",
        )

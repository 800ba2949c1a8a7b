"""Replies being written by this process: one task each, any number of readers, one writer to SQL for all.

A turn goes question -> passages -> prompt -> deltas -> answer. Readers follow a turn by position, so that
sending, streaming and resuming are the same thing; a reader on another process, or after a restart, follows
the row in SQL instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from handlers.problems import Problem
from handlers.replies import event
from models.base import now
from models.chat import engine, rewriting
from models.chat.context import Calibration, Room
from models.chat.conversations import MessageStatus
from models.chat.engine import Reply
from models.chat.extractive import ExtractiveProvider
from models.chat.moderation import Filtered, Guard
from models.chat.ports import (
    Attempt,
    Candidate,
    Message,
    Prompt,
    ProviderError,
    ReplyPart,
    Source,
    TextDelta,
    UsageReport,
    estimate_tokens,
    estimated_usage,
    stream_with_fallback,
)
from models.chat.prompts import UNSEARCHABLE, Evidence, Fitted, Instructions, compose
from models.chat.rewriting import Rewriting
from models.knowledge.numbers import figures_in
from storage import admission, configurations, conversations, metrics, tokenizing
from storage.admission import Place
from storage.conversations import Ending, Progress, Retrieval
from storage.provision import BUILT_IN
from storage.threads import in_thread

log = structlog.get_logger("booga.turns")

FLUSH_SECONDS = 0.5
HEARTBEAT_SECONDS = 10.0
LEAVING_SECONDS = 1.0
"""How long a reply goes on without a reader, so that one who lost the line can come back."""
ADMITTED_SECONDS = 1.0
"""How often those for whom replies are written are asked whether they may still chat."""
FIRST_WAIT_SECONDS = 1.0
"""How long a stream's status waits for the provider's, so that a call refused at once is a proper problem."""
COMMENT = b": still here\n\n"

Search = Callable[[str | None], tuple[Evidence, list[dict[str, Any]], dict[str, Any]]]
"""Retrieval of a turn, run in a thread: evidence, citations as the contract shows them, facts for the
trace. It is given the question as the provider made it stand alone; None leaves that to the rule.
"""
Pages = Callable[[Sequence[dict[str, Any]]], dict[int, str]]
"""The text of the pages that citations lead to, by number, read in a thread, for its figures."""
UNSEARCHED: dict[str, Any] = {"timings": {"retrieval_ms": 0.0}}
"""The facts of a turn that had nothing to search."""


PASSAGES_TOKENS, ANSWER_TOKENS = 2_000, 500
"""What passages and an answer without a limit of its own are taken to cost until they are known."""


@dataclass(slots=True)
class Order:
    """All that a turn needs. ``session_id`` None: nothing is stored (the OpenAI-compatible door).

    ``search`` None: there is nothing to search. ``cites``: how citations are shown to who asked.
    """

    tenant_id: str
    user_id: str | None
    persona_id: str | None
    stack_id: str
    session_id: str | None
    question_id: str
    reply_id: str
    question: str
    history: Sequence[Message]
    instructions: Instructions
    candidates: Sequence[Candidate]
    search: Search | None
    pages: Pages | None = None
    rewrites: bool = False
    """Whether the provider is to make the question stand alone, if it is a language model."""
    background: bool = False
    bot_id: str | None = None
    cites: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    is_first: bool = False
    is_new: bool = True
    is_whole: bool = False
    """Whether readers are told the text at its end, in one piece."""
    filter_level: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def tokens(self) -> int:
        """What it may spend, estimated before anything was searched or written."""
        said = sum(estimate_tokens(message.content) for message in self.history)
        asked = estimate_tokens(self.instructions.system_prompt) + estimate_tokens(self.question)
        passages = PASSAGES_TOKENS if self.search is not None else 0
        first = rewriting.most_tokens(self.question, self.history) if self.asks_first else 0
        return first + said + asked + passages + (self.instructions.max_output_tokens or ANSWER_TOKENS)

    @property
    def asks_first(self) -> bool:
        """Whether the provider makes this question stand alone before anything is searched."""
        return (
            self.rewrites
            and self.search is not None
            and not isinstance(self.candidates[0].provider, ExtractiveProvider)
        )


def problem_of(error: ProviderError, message_id: str | None = None) -> Problem:
    """A provider's fault as a problem: 503 when it asks for patience, else 502."""
    meta: dict[str, Any] = {"provider_error": error.code}
    if message_id is not None:
        meta["message_id"] = message_id
    if error.code == "provider_rate_limited":
        wait = str(max(1, round(error.retry_after or 5)))
        return Problem("unavailable", error.detail, headers={"Retry-After": wait}, meta=meta)
    if error.code == "provider_timeout":
        return Problem("provider-timeout", error.detail, meta=meta)
    return Problem("provider-error", error.detail, meta=meta)


class Turn:
    """One reply while this process writes it."""

    def __init__(self, order: Order, house: House) -> None:
        self.order = order
        self.reply = Reply(order.reply_id, order.began)
        self.started = asyncio.Event()
        self.stored = asyncio.Event()
        self.read_elsewhere_until: datetime | None = None
        self._house = house
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
            self._house.ended(self)

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
        self._house.retrieved(self)
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
        self._house.learn(self, fitted.counted)
        await self._check_figures()

    def _prepare(self) -> tuple[Evidence, Fitted, dict[str, Any]]:
        """Search, and make the prompt of what was found and fits. In a thread: both compute."""
        order, rewritten = self.order, self.reply.rewriting
        evidence, facts = Evidence(), dict(UNSEARCHED)
        if order.search is not None:
            evidence, self.reply.citations, facts = order.search(rewritten.question if rewritten else None)
        room = self._house.room(order)
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
        return Ending(reply.message_id, *of, values, cited, order.bot_id, order.is_first, order.is_new)


class House:
    """All turns of this process, and the one task that writes them to SQL."""

    def __init__(self) -> None:
        self.turns: dict[str, Turn] = {}
        self.draining = False
        self._retrievals: list[Retrieval] = []
        self._endings: list[Turn] = []
        self._work = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._calibration = Calibration()

    def room(self, order: Order) -> Room:
        """What the prompt of a turn may take."""
        model = order.instructions.chat_model
        return self._calibration.room(order.tenant_id, order.candidates, tokenizing.count, model)

    def learn(self, turn: Turn, counted: int) -> None:
        """Hold our count of a prompt against that of the model that answered."""
        usage, by = turn.reply.usage, turn.reply.attempts[-1]
        if usage is not None and usage.source == "provider":
            model = (turn.order.tenant_id, by.provider, by.chat_model)
            self._calibration.learn(model, counted, usage.prompt_tokens)

    def open(self) -> None:
        """Begin to write behind, to sweep and to watch."""
        loop = asyncio.get_running_loop()
        self._writer = loop.create_task(self._write_behind(), name="reply writer")
        self._sweeper = loop.create_task(self._sweep(), name="reply sweeper")
        self._watcher = loop.create_task(self._watch(), name="reply watcher")

    def begin(self, order: Order) -> Turn:
        """Start a turn."""
        if self.draining:
            raise Problem("unavailable", "The server is being restarted.", headers={"Retry-After": "2"})
        turn = Turn(order, self)
        self.turns[order.reply_id] = turn
        turn.start()
        return turn

    def retrieved(self, turn: Turn) -> None:
        """The passages of a turn are known: to be written."""
        order, reply = turn.order, turn.reply
        if order.session_id is None:
            return
        self._retrievals.append(
            Retrieval(
                reply.message_id, order.tenant_id, reply.retrieved or {}, reply.answer_status, reply.citations
            )
        )

    def ended(self, turn: Turn) -> None:
        """A turn is over: to be written at once."""
        self._endings.append(turn)
        self._work.set()

    async def _write_behind(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._work.wait(), FLUSH_SECONDS)
            self._work.clear()
            await self._flush()

    async def _flush(self) -> None:
        endings, self._endings = self._endings, []
        retrievals, self._retrievals = self._retrievals, []
        ending_ids = {turn.order.reply_id for turn in endings}
        running = [turn for id, turn in self.turns.items() if id not in ending_ids and turn.reply.is_running]
        if not endings and not retrievals and not running:
            return
        progress = [
            # What is told at its end is not there before, for readers of the row either.
            Progress(turn.order.reply_id, "" if turn.order.is_whole else turn.reply.text)
            for turn in running
            if turn.order.session_id
        ]
        try:
            # What a reply comes to is computed there, too: its figures take a while to check.
            wishes = await in_thread(
                lambda: conversations.record(progress, retrievals, [turn.ending() for turn in endings])
            )
        except Exception as fault:
            log.error("replies could not be written", exc_info=fault)
            self._endings[:0], self._retrievals[:0] = endings, retrievals
            await asyncio.sleep(FLUSH_SECONDS)  # the database is away; readers wait for the last event
            self._work.set()
            return
        for turn in endings:
            self.turns.pop(turn.order.reply_id, None)
            turn.stored.set()
            turn._wake()
        for turn in running:
            wish = wishes.get(turn.order.reply_id)
            if wish is not None:
                turn.read_elsewhere_until = wish.read_until
                if wish.stop:
                    turn.end(MessageStatus.STOPPED)

    async def _sweep(self) -> None:
        while True:
            try:
                swept = await in_thread(conversations.sweep)
                if swept:
                    log.info("abandoned replies marked as interrupted", count=swept)
                await in_thread(configurations.expire)
            except Exception as fault:
                log.error("sweeping failed", exc_info=fault)
            await asyncio.sleep(5)

    async def _watch(self) -> None:
        """End the turns of those who may not chat any more."""
        while True:
            await asyncio.sleep(ADMITTED_SECONDS)
            running = [turn for turn in self.turns.values() if turn.reply.is_running]
            if not running:
                continue
            try:
                gone = await in_thread(admission.ended, {turn.place for turn in running})
            except Exception as fault:
                log.error("watching failed", exc_info=fault)
                continue
            for turn in running:
                if turn.place in gone:
                    turn.end(MessageStatus.INTERRUPTED)

    def drain(self) -> None:
        """End every turn: the server is about to stop. Readers get their last event."""
        self.draining = True
        for turn in self.turns.values():
            turn.end(MessageStatus.INTERRUPTED)

    async def close(self) -> None:
        """End every turn and write the last of them."""
        self.drain()
        deadline = time.monotonic() + 5
        while self.turns and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for task in (self._writer, self._sweeper, self._watcher):
            if task is not None:
                task.cancel()
        await self._flush()


_house: House | None = None


def house() -> House:
    """This process's turns."""
    global _house
    if _house is None:
        _house = House()
    return _house


@dataclass(slots=True)
class Stored:
    """A reply as SQL holds it: what the contract shows, and what was retrieved for it."""

    message: dict[str, Any]
    retrieved: dict[str, Any] | None


Shown = Callable[[str], Awaitable[Stored]]
"""Reads a stored reply by its id."""


def _created(order_ids: tuple[str, str, str]) -> bytes:
    session_id, question_id, reply_id = order_ids
    data = {"session_id": session_id, "question_id": question_id, "message_id": reply_id}
    return event("message.created", f"{reply_id}:{engine.CREATED}", data)


def _retrieved(reply_id: str, retrieved: dict[str, Any], citations: list[dict[str, Any]]) -> bytes:
    data = {**retrieved, "citations": citations}
    return event("retrieval.completed", f"{reply_id}:{engine.RETRIEVED}", data)


def _delta(reply_id: str, end: int, text: str) -> bytes:
    return event("message.delta", f"{reply_id}:{engine.TEXT + end}", {"text": text})


def _last(message: dict[str, Any], request_path: str) -> bytes:
    """The event that ends a stream, from the stored message."""
    id = f"{message['id']}:{engine.end_position(len(message['content']))}"
    if message["status"] != MessageStatus.FAILED:
        return event("message.completed", id, message)
    error = message["error"] or {"code": "provider_unavailable", "detail": "The reply failed."}
    problem = problem_of(ProviderError(error["code"], error["detail"]), message["id"])
    return event("message.failed", id, problem.body(request_path, message["id"]))


class Reading:
    """The events that one reader is told of a turn.

    The reader counts from the moment this is made, before the first event is asked for, until ``aclose``.
    """

    def __init__(self, turn: Turn, parts: Callable[[asyncio.Event], AsyncGenerator[bytes, None]]) -> None:
        self._turn = turn
        self._reader = turn.attach()
        self._parts = parts(self._reader)

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._parts)

    async def aclose(self) -> None:
        """The reader leaves."""
        await self._parts.aclose()
        self._turn.detach(self._reader)


async def changes(turn: Turn, reader: asyncio.Event) -> AsyncGenerator[bool, None]:
    """True whenever there is more of a turn, False after each quiet while; ends when the turn is stored."""
    ended = False
    while not ended:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await reader.wait()
        except TimeoutError:
            yield False
            continue
        reader.clear()
        ended = turn.stored.is_set()
        yield True


def follow(turn: Turn, position: int, shown: Shown, path: str) -> Reading:
    """The events of a running turn behind ``position`` (-1: all)."""
    return Reading(turn, partial(_told, turn, position, shown, path))


async def _told(
    turn: Turn, position: int, shown: Shown, path: str, reader: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    order, reply = turn.order, turn.reply
    sent = max(0, position - engine.TEXT)
    if position < engine.CREATED:
        yield _created((order.session_id or "", order.question_id, order.reply_id))
    told_retrieval = position >= engine.RETRIEVED
    async with aclosing(changes(turn, reader)) as changed:
        async for more in changed:
            if not more:
                yield COMMENT
                continue
            if not told_retrieval and reply.retrieved is not None:
                told_retrieval = True
                shows = order.cites or dict
                told = [shows(citation) for citation in reply.citations]
                yield _retrieved(order.reply_id, reply.retrieved, told)
            if len(reply.text) > sent and not (order.is_whole and reply.is_running):
                text, sent = reply.text[sent:], len(reply.text)
                yield _delta(order.reply_id, sent, text)
    yield _last((await shown(order.reply_id)).message, path)


async def follow_stored(
    stored: Stored, position: int, shown: Shown, path: str, reads: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[bytes]:
    """The events of a reply from what SQL holds, until it ended: for readers elsewhere, or later.

    ``reads`` tells the writer, wherever it is, that the reply has a reader.
    """
    id = stored.message["id"]
    sent = max(0, position - engine.TEXT)
    if position < engine.CREATED:
        yield _created((stored.message["session_id"], stored.message["parent_id"], id))
    told_retrieval = position >= engine.RETRIEVED
    quiet_since = time.monotonic()
    while True:
        content = stored.message["content"]
        if not told_retrieval and stored.retrieved is not None:
            told_retrieval = True
            yield _retrieved(id, stored.retrieved, stored.message["citations"])
        if len(content) > sent:
            text, sent = content[sent:], len(content)
            quiet_since = time.monotonic()
            yield _delta(id, sent, text)
        if stored.message["status"] != MessageStatus.STREAMING:
            break
        if time.monotonic() - quiet_since > HEARTBEAT_SECONDS:
            quiet_since = time.monotonic()
            yield COMMENT
        if reads is not None:
            await reads()
        await poll()
        stored = await shown(id)
    yield _last(stored.message, path)


async def poll() -> None:
    """Wait before the next look at a row that another process writes: SQL does not call back."""
    await asyncio.sleep(0.25)


async def whole(turn: Turn) -> None:
    """Wait until the turn ended and is stored; leaving counts as a reader who left."""
    reader = turn.attach()
    try:
        await turn.stored.wait()
    finally:
        turn.detach(reader)


async def begun(turn: Turn, reading: Reading) -> Reading:
    """The reading, once the provider began or a moment went by; its problem if it was refused at once."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WAIT_SECONDS):
                await turn.started.wait()
        if turn.reply.status == MessageStatus.FAILED and not turn.reply.text and turn.reply.error is not None:
            await turn.stored.wait()
            raise problem_of(turn.reply.error, turn.reply.message_id)
    except BaseException:
        await reading.aclose()
        raise
    return reading


def numbered_pages(citations: Sequence[dict[str, Any]]) -> list[Source]:
    """Pages of the web as passages of a prompt."""
    return [
        Source(c["number"], c["document_name"], None, None, None, c["url"], c["quote"], c["score"])
        for c in citations
    ]


def numbered(hits: Sequence[Any]) -> list[Source]:
    """Search hits as the passages of a prompt."""
    return [
        Source(
            hit.number, hit.document_name, hit.page, hit.sheet, hit.cell, hit.heading, hit.quote, hit.score
        )
        for hit in hits
    ]

"""All turns of this process: who begins and ends them, and the one task that writes them to SQL."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog

from handlers.problems import Problem
from handlers.turns.order import Order
from handlers.turns.turn import FLUSH_SECONDS, Turn
from models.chat.context import Calibration, Room
from models.chat.conversations import MessageStatus
from storage import admission, configurations, conversations, tokenizing
from storage.conversations import Progress, Retrieval
from storage.threads import in_thread

log = structlog.get_logger("booga.turns")

ADMITTED_SECONDS = 1.0
"""How often those for whom replies are written are asked whether they may still chat."""


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
            turn.kept()
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

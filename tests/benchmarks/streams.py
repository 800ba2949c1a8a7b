"""Stored replies as they stream, beside the same client calling the fake provider directly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

import httpx
import orjson

from tests.benchmarks import machine, pace, table
from tests.benchmarks.installation import API, client_of, default_persona, fake_provider, serving
from tests.benchmarks.load import Answer, Load, Slot, Step, request
from tests.servers import Server

CONCURRENT = (1, 100, 300)
ROUNDS = 3
TOKENS, GAP = 200, 0.05
"""A reply: 20 tokens a second for ten seconds."""
SHORT = 4
"""Tokens of a reply of which only the first matters."""
ALONE = 20
"""Replies one after another, for the first token of a single stream."""
QUESTION = "How did revenue develop, and what does the company say about the reasons?"
OUR_FIRST = "event: message.delta"
ITS_FIRST = '"content":"r'
"""Its very first event has empty text."""


@dataclass
class Sides:
    """The server, the provider behind it, and who asks."""

    server: Server
    provider: str
    load: Load
    persona: str
    client: httpx.Client

    @classmethod
    @contextmanager
    def ready(cls) -> Iterator[Self]:
        """All of them, started."""
        with ExitStack() as stack:
            provider = stack.enter_context(fake_provider())
            server = stack.enter_context(serving({"OPENAI_BASE_URL": provider, "OPENAI_API_KEY": "any"}))
            client = stack.enter_context(client_of(server))
            load = stack.enter_context(Load.started())
            yield cls(server, provider, load, default_persona(client), client)

    @property
    def headers(self) -> dict[str, str]:
        """The owner's credential."""
        return {"X-API-Key": self.server.api_key}

    def new_session(self, tokens: int = TOKENS) -> str:
        """The request that makes a session."""
        body = {"persona_id": self.persona, "model": _model(tokens)}
        return request("POST", f"{API}/sessions", self.headers, body)

    def question(self, session: str) -> Step:
        """The request that asks in a session."""
        body = {"content": QUESTION}
        return Step(
            request("POST", f"{API}/sessions/{session}/messages/stream", self.headers, body), OUR_FIRST
        )

    def direct(self) -> Step:
        """The same question to the provider."""
        body = {
            "model": _model(SHORT),
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return Step(request("POST", "/v1/chat/completions", {"Authorization": "Bearer any"}, body), ITS_FIRST)

    def sessions(self, count: int, tokens: int = TOKENS) -> list[str]:
        """New sessions, made before the clock runs."""
        steps = [Step(self.new_session(tokens))] * count
        answers = self.load.run(self.server.url, [Slot(steps[at::8]) for at in range(min(8, count))]).answers
        return [orjson.loads(answer.body)["id"] for answer in answers]


def _model(tokens: int) -> str:
    """The fake provider answers as its model's name asks."""
    return f"fake-small?tokens={tokens}&gap={GAP}"


def run() -> None:
    """Stored streams: what the server adds to the first token, and its CPU for each token relayed."""
    with Sides.ready() as sides:
        _ask(sides, sides.sessions(8), spread=0.0)  # warms up
        _streams(sides)
        _new_chats(sides)


def _streams(sides: Sides) -> None:
    rows: list[list[table.Cell]] = []
    for count in CONCURRENT:
        for spread, how in ((0.0, "at once"), (TOKENS * GAP, "one by one")):
            if count == 1 and spread:
                continue
            ours, direct, cpu = [], [], []
            for _ in pace.rounds(ROUNDS, f"{count} streams {how}"):
                before = machine.cpu_seconds(sides.server.process.pid)
                answers = _ask(sides, sides.sessions(count), spread)
                cpu.append((machine.cpu_seconds(sides.server.process.pid) - before) / (count * TOKENS))
                direct.append(_direct(sides, count, spread) if count > 1 else alone(sides, is_direct=True))
                ours.append(_firsts(answers) if count > 1 else alone(sides, is_direct=False))
            if not ours:
                continue
            first, base = (table.median([table.median(times) for times in side]) for side in (ours, direct))
            last = table.median([max(times) for times in ours])
            figures = [first, base, first - base, last, table.median(cpu)]
            rows.append([f"{count} {how}" if count > 1 else "1", *(figure * 1000 for figure in figures)])
    print(
        f"  replies of {TOKENS} tokens, one each {GAP * 1000:.0f} ms; all of a turn's CPU is in its tokens'"
    )
    head = ["streams", "first token ms", "direct ms", "added ms", "last one's first ms", "CPU ms per token"]
    table.show(head, rows)


def alone(sides: Sides, *, is_direct: bool) -> list[float]:
    """Seconds to the first token of short replies, one after another."""
    if is_direct:
        steps, url = [sides.direct()] * ALONE, sides.provider
    else:
        steps, url = [sides.question(session) for session in sides.sessions(ALONE, SHORT)], sides.server.url
    return _firsts(sides.load.run(url, [Slot(steps)]).answers)


def _ask(sides: Sides, sessions: Sequence[str], spread: float) -> list[Answer]:
    """A question in each session, all at once or spread evenly over the seconds; every reply whole."""
    slots = [
        Slot([sides.question(session)], at=spread * number / len(sessions))
        for number, session in enumerate(sessions)
    ]
    answers = sides.load.run(sides.server.url, slots).answers
    faults = [answer for answer in answers if not is_whole(answer)]
    assert not faults, f"{len(faults)} of {len(answers)} replies are not whole: {faults[0]}"
    return answers


def _direct(sides: Sides, count: int, spread: float) -> list[float]:
    slots = [Slot([sides.direct()], at=spread * number / count) for number in range(count)]
    return _firsts(sides.load.run(sides.provider, slots).answers)


def _firsts(answers: Sequence[Answer]) -> list[float]:
    """Seconds from sending to the first token, or from connecting where the question came first."""
    return [answer.first - answer.began for answer in answers if answer.first is not None]


def is_whole(answer: Answer) -> bool:
    """Whether a stream ended with all of its text, and the deltas made that text."""
    if answer.status != 200 or answer.first is None:
        return False
    deltas = [
        orjson.loads(data)["text"] for data in re.findall(r"event: message.delta\ndata: (.*)", answer.body)
    ]
    ended = re.search(r"event: message.completed\ndata: (.*)", answer.body)
    if ended is None:
        return False
    message = orjson.loads(ended[1])
    counted = message["usage"]["completion_tokens"]
    return bool(
        message["status"] == "complete" and counted == TOKENS and message["content"] == "".join(deltas)
    )


def _new_chats(sides: Sides, count: int = 300) -> None:
    """New clients, each of which makes a session and asks in it."""
    rows: list[list[table.Cell]] = []
    for number in pace.rounds(ROUNDS, f"{count} new chats"):
        asking = sides.question("{id}")
        before = machine.cpu_seconds(sides.server.process.pid)
        outcome = sides.load.run(sides.server.url, [Slot([Step(sides.new_session()), asking])] * count)
        cpu = machine.cpu_seconds(sides.server.process.pid) - before
        replies = [slot[-1] for slot in outcome.slots]
        # Since the chat began, not since its question was sent.
        firsts = sorted(reply.first for reply in replies if reply.first is not None)
        failed = sum(not is_whole(reply) for reply in replies)
        if not firsts:
            raise AssertionError(f"no chat had a first token: {replies[0]}")
        middle, late = table.percentile(firsts, 0.5), table.percentile(firsts, 0.95)
        times = [middle, late, firsts[-1], outcome.seconds]
        rows.append([f"round {number + 1}", failed, *times, cpu / count * 1000])
    print(f"  {count} new stored chats at the same moment: connect, make a session, ask, stream")
    head = ["", "failed", "first token p50 s", "p95 s", "last s", "all ended s", "CPU ms per chat"]
    table.show(head, rows)

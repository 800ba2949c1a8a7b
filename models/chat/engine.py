"""One reply while it is written: what has arrived, where each position stands, and how it ended. Pure.

Positions order the events of a reply, so that a reader who lost the stream can say where to go on: 0 the
reply was made, 1 the passages were found, ``1 + n`` the first ``n`` characters (code points) are there, ``2
+ length`` it ended. The text at a position never changes, whoever serves it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from models.chat.conversations import MessageStatus
from models.chat.ports import Attempt, Finished, ProviderError, ReplyPart, TextDelta, UsageReport
from models.chat.rewriting import Rewriting
from models.knowledge import numbers

CREATED, RETRIEVED, TEXT = 0, 1, 1
COUNTED = ("prompt_tokens", "completion_tokens")
_CITED = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


def end_position(length: int) -> int:
    """The position of the last event of a reply of ``length`` characters."""
    return TEXT + length + 1


def cited_numbers(text: str) -> set[int]:
    """The numbers that stand in the text as ``[1]`` or ``[1, 2]``."""
    return {int(number) for group in _CITED.findall(text) for number in group.split(",")}


@dataclass(slots=True)
class Reply:
    """What is known of a reply so far. Times are in seconds of one monotonic clock."""

    message_id: str
    began: float
    text: str = ""
    status: MessageStatus = MessageStatus.STREAMING
    citations: list[dict[str, Any]] = field(default_factory=list)
    pages: dict[int, str] = field(default_factory=dict)
    retrieved: dict[str, Any] | None = None
    answer_status: str | None = None
    rewriting: Rewriting | None = None
    usage: UsageReport | None = None
    finish_reason: str | None = None
    error: ProviderError | None = None
    filtered: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    first_text_at: float | None = None
    ended: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether more may come."""
        return self.status == MessageStatus.STREAMING

    def take(self, part: ReplyPart, at: float) -> None:
        """Add what a provider sent at that time."""
        if isinstance(part, TextDelta):
            if self.first_text_at is None:
                self.first_text_at = at
            self.text += part.text.replace("\0", "")
        elif isinstance(part, UsageReport):
            self.usage = part
        elif isinstance(part, Finished):
            self.finish_reason = part.reason

    def end(self, status: MessageStatus, at: float, error: ProviderError | None = None) -> None:
        """Close the reply; only the first call counts."""
        if not self.is_running:
            return
        self.status, self.ended, self.error = status, at, error
        present = cited_numbers(self.text)
        for citation in self.citations:
            citation["cited"] = citation["number"] in present

    def cited(self) -> list[dict[str, Any]]:
        """The passages whose numbers stand in the text so far."""
        present = cited_numbers(self.text)
        return [citation for citation in self.citations if citation["number"] in present]

    def numeric_checks(self) -> list[dict[str, Any]]:
        """The figures of the text, held against the pages that it cites; of a page not read, the passage."""
        evidence = {of["number"]: self.pages.get(of["number"]) or of["quote"] for of in self.cited()}
        return numbers.check(self.text, evidence)

    @property
    def fault(self) -> dict[str, str] | None:
        """Why it is not what was asked for, as the contract shows it."""
        if self.filtered is not None:
            return {"code": "content_filtered", "detail": self.filtered}
        return {"code": self.error.code, "detail": self.error.detail} if self.error else None

    @property
    def uncited(self) -> list[int]:
        """Numbers that the text cites although no such passage was given; told in the trace."""
        return sorted(cited_numbers(self.text) - {citation["number"] for citation in self.citations})

    @property
    def latency_ms(self) -> int | None:
        """From the question to the end."""
        return None if self.ended is None else round((self.ended - self.began) * 1000)

    @property
    def first_token_ms(self) -> int | None:
        """From the question to the first text."""
        return None if self.first_text_at is None else round((self.first_text_at - self.began) * 1000)


def usage_of(reply: Reply, estimated: UsageReport) -> dict[str, Any]:
    """The reply's tokens as the contract shows them: the provider's count, or our estimate and said so. Those
    of the call that made the question stand alone are among them.
    """
    calls = [reply.usage or estimated]
    if reply.rewriting is not None and reply.rewriting.usage is not None:
        calls.append(reply.rewriting.usage)
    prompt, completion = (sum(getattr(call, name) for call in calls) for name in COUNTED)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "source": "provider" if all(call.source == "provider" for call in calls) else "estimated",
    }


def cost_of(reply: Reply, estimated: UsageReport) -> float | None:
    """What the reply costs, where the prices of its models are known; nothing is asked for a call that failed
    before its first text.
    """
    calls = []
    if reply.attempts and (reply.text or reply.usage):
        calls.append((reply.attempts[-1].price, reply.usage or estimated))
    if reply.rewriting is not None and reply.rewriting.usage is not None:
        calls.append((reply.rewriting.price, reply.rewriting.usage))
    costs = [
        price.of(spent.prompt_tokens, spent.completion_tokens) for price, spent in calls if price is not None
    ]
    return sum(costs) if costs and len(costs) == len(calls) else None


def trace_of(reply: Reply, facts: dict[str, Any], providers: Iterable[str]) -> dict[str, Any]:
    """Why this answer: what was asked of whom, and what came of it."""
    return {
        **facts,
        "providers": list(providers),
        "attempts": [
            {
                "provider": attempt.provider,
                "model": attempt.chat_model,
                "error": attempt.error,
                "status": attempt.status,
                "first_text_ms": None if attempt.first_text_ms is None else round(attempt.first_text_ms, 1),
                "ms": round(attempt.ms, 1),
            }
            for attempt in reply.attempts
        ],
        "finish_reason": reply.finish_reason,
        "dropped_citations": reply.uncited,
        "first_token_ms": reply.first_token_ms,
        "latency_ms": reply.latency_ms,
    }

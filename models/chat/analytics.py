"""What is counted of conversations: sums by the hour, and histograms that percentiles are read from.

Counts are made when a reply ends and stay when its conversation is deleted. They are kept by hour (UTC), so
that what is asked for months costs a few thousand rows, however many messages there were.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Entity, Id, TenantOwned

NOBODY = ""
"""In a key, in place of what a reply does not have: databases hold no two nulls for the same."""

SUMS = (
    "sessions",
    "questions",
    "replies",
    "failed",
    "unanswered",
    "prompt_tokens",
    "completion_tokens",
    "citations",
    "helpful",
    "unhelpful",
)
"""Whole numbers that are added up; ``cost`` is added up beside them."""


class UsageHour(TenantOwned, Entity):
    """What one user (or bot) asked of one persona and model within one hour."""

    __tablename__ = "usage_hours"
    __table_args__ = (
        UniqueConstraint("tenant_id", "hour", "bot_id", "user_id", "persona_id", "model"),
        Index("usage_of_bot", "bot_id", "hour"),
    )

    hour: Mapped[datetime]
    bot_id: Mapped[str] = mapped_column(String(36), default=NOBODY)
    user_id: Mapped[str] = mapped_column(String(36), default=NOBODY)
    persona_id: Mapped[str] = mapped_column(String(36), default=NOBODY)
    model: Mapped[str] = mapped_column(String(200), default=NOBODY)
    sessions: Mapped[int] = mapped_column(default=0)
    questions: Mapped[int] = mapped_column(default=0)
    replies: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    unanswered: Mapped[int] = mapped_column(default=0)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    completion_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    citations: Mapped[int] = mapped_column(default=0)
    helpful: Mapped[int] = mapped_column(default=0)
    unhelpful: Mapped[int] = mapped_column(default=0)
    cost: Mapped[float] = mapped_column(default=0.0)


class LatencyHour(TenantOwned, Base):
    """How many replies of one hour took so long: one bar of a histogram."""

    __tablename__ = "latency_hours"
    __table_args__ = (Index("latency_of_tenant", "tenant_id", "hour"),)

    tenant_id: Mapped[str] = mapped_column(Id, ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    bot_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    measure: Mapped[str] = mapped_column(String(20), primary_key=True)
    bar: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    replies: Mapped[int]


WIDTH = math.log(1.05)
"""Each bar is 5 % wide, so that its middle is within 2.5 % of all that fell into it."""


def bar_of(milliseconds: int) -> int:
    """The bar that a latency falls into."""
    return math.floor(math.log(max(1, milliseconds)) / WIDTH)


def percentile(bars: Mapping[int, int], share: float) -> int | None:
    """The latency (ms) below which that share of replies lies; None where there are none."""
    wanted, seen = share * sum(bars.values()), 0
    for bar in sorted(bars):
        seen += bars[bar]
        if seen >= wanted:
            return round(math.exp((bar + 0.5) * WIDTH))
    return None


def hour_of(moment: datetime) -> datetime:
    """The hour (UTC) that a moment falls into."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
MOST_STEPS = 1000
"""Intervals that one answer may have."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time from ``start`` to before ``end``, cut into intervals; both stand on the border of one (UTC)."""

    start: datetime
    end: datetime
    interval: str

    @classmethod
    def around(cls, start: datetime, end: datetime, interval: str) -> Span:
        """The intervals that a time touches; weeks begin on Monday."""
        first = border(start, interval)
        last = border(end, interval)
        return cls(first, last if last >= end else last + STEPS[interval], interval)

    @property
    def steps(self) -> int:
        """How many intervals there are."""
        return round((self.end - self.start) / STEPS[self.interval])

    def __iter__(self) -> Iterator[datetime]:
        at = self.start
        while at < self.end:
            yield at
            at += STEPS[self.interval]


def border(moment: datetime, interval: str) -> datetime:
    """Where the interval begins that a moment falls into."""
    hour = hour_of(moment)
    if interval == "hour":
        return hour
    day = hour.replace(hour=0)
    return day if interval == "day" else day - timedelta(days=day.weekday())


def figures(sums: Mapping[str, Any], latency: Mapping[int, int], first: Mapping[int, int]) -> dict[str, Any]:
    """The figures of one interval or of all, as the contract shows them."""
    counted = {name: int(sums.get(name) or 0) for name in SUMS}
    return {
        **counted,
        "messages": counted["questions"] + counted["replies"],
        "total_tokens": counted["prompt_tokens"] + counted["completion_tokens"],
        "cost": round(float(sums.get("cost") or 0), 10),
        "p50_latency_ms": percentile(latency, 0.5),
        "p95_latency_ms": percentile(latency, 0.95),
        "p50_first_token_ms": percentile(first, 0.5),
        "p95_first_token_ms": percentile(first, 0.95),
    }


def histogram(values: Iterable[int | None]) -> dict[int, int]:
    """The bars of these latencies (ms)."""
    bars: dict[int, int] = {}
    for value in values:
        if value is not None:
            bars[bar_of(value)] = bars.get(bar_of(value), 0) + 1
    return bars


def most_asked(questions: Iterable[str], most: int = 10) -> list[dict[str, Any]]:
    """The questions asked most, of such that come newest first; each as it was worded last."""
    wordings: dict[str, str] = {}
    times: Counter[str] = Counter()
    for question in questions:
        plain = _plain(question)
        wordings.setdefault(plain, question)
        times[plain] += 1
    return [{"question": wordings[plain], "times": number} for plain, number in times.most_common(most)]


def _plain(question: str) -> str:
    words = " ".join(unicodedata.normalize("NFKC", question).casefold().split())
    return words.rstrip(" .?!") or words

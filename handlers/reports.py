"""How figures over a time are asked for and answered, of whomever they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from handlers.replies import Text, csv_rows
from handlers.requests import Exchange
from handlers.schemas import shown_time
from models.base import now
from models.chat.analytics import MOST_STEPS, STEPS, Span
from models.errors import RuleBroken

DEFAULT_DAYS = 30
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
"""Far from the ends of the calendar, so that an interval's border is always in it."""


def span_of(start: str | None, end: str | None, interval: str) -> Span:
    """The intervals that were asked for."""
    until = datetime.fromisoformat(end) if end else now()
    if not EARLIEST < until < LATEST:
        raise RuleBroken("There are no figures of such a time.", parameter="to")
    since = datetime.fromisoformat(start) if start else until - timedelta(days=DEFAULT_DAYS)
    if since >= until:
        raise RuleBroken("This is not after the beginning.", parameter="to")
    if (until - since) / STEPS[interval] > MOST_STEPS - 1:
        raise RuleBroken(
            f"These are more than {MOST_STEPS} intervals; take longer ones.", parameter="interval"
        )
    return Span.around(since, until, interval)


def answer(exchange: Exchange, span: Span, report: dict[str, Any]) -> dict[str, Any] | Text:
    """A report as the caller wants to read it: all of it as JSON, the series as CSV."""
    series = [{**row, "start": shown_time(row["start"])} for row in report["series"]]
    if exchange.media_type == "text/csv":
        names = [*series[0]]
        return Text(csv_rows([names, *(row.values() for row in series)]), "text/csv; charset=utf-8")
    about = {"from": shown_time(span.start), "to": shown_time(span.end), "interval": span.interval}
    return {**about, **report, "series": series}

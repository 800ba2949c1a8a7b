"""First pages and figures among a million messages: their times, and how the databases read them."""

from __future__ import annotations

import time

from storage.database import engine, reading
from tests import backends, scale
from tests.benchmarks.installation import in_this_process
from tests.benchmarks.table import median, show

LONG, SESSIONS, EACH = 100_000, 9_000, 100
NEIGHBOURS = 20
TIMES = 7


def run() -> None:
    """First pages and figures among 1,000,000 messages, 100,000 of them in one conversation; with plans."""
    for name in backends.available():
        with backends.backend(name) as backend, in_this_process(backend.fresh()):
            began = time.monotonic()
            small = scale.crowded(long=100, sessions=9, each=100)
            large = scale.crowded(LONG, SESSIONS, EACH)
            scale.neighbours(large, NEIGHBOURS)
            made = time.monotonic() - began
            print(f"  {name}: made in {made:.0f} s, with {NEIGHBOURS} more tenants' rows", flush=True)
            _compare(small, large)


def _compare(small: scale.Crowded, large: scale.Crowded) -> None:
    rows, plans = [], []
    for name in scale.reads(large):
        few, many = (_milliseconds(of, name) for of in (small, large))
        rows.append((name, few, many, many / few))
        with reading(large) as db, scale.statements() as sent:
            scale.reads(large)[name](db)
        with reading(large) as db:
            plans += [(name, line) for one in sent for line in scale.plan(db, *one)]
    show(("read", "ms among 1,000", "ms among 1,000,000", "ratio"), rows)
    print(f"  how {engine().dialect.name} reads:")
    for name, line in plans:
        if any(word in line for word in ("SEARCH", "SCAN", "Scan", "Cond")):
            print(f"    {name}: {line}")
    whole = scale.whole_tables([line for _, line in plans])
    print(f"  read from end to end: {', '.join(whole) or 'no table'}", flush=True)


def _milliseconds(of: scale.Crowded, name: str) -> float:
    taken = []
    for _ in range(TIMES):
        with reading(of) as db:
            began = time.perf_counter()
            scale.reads(of)[name](db)
            taken.append((time.perf_counter() - began) * 1000)
    return median(taken)

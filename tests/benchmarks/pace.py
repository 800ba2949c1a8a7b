"""How long a benchmark may take: rounds begin while there is time, and none goes on for ever."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SECONDS = 180.0
"""After so many no other round begins, which is said."""
LONGEST = 900
"""After so many seconds a benchmark is ended, whatever it does."""

_began = time.monotonic()


class TooLong(Exception):
    """A benchmark did not end in its time."""


@contextmanager
def bounded() -> Iterator[None]:
    """A benchmark runs inside."""
    global _began
    _began = time.monotonic()

    def end(signum: int, frame: Any) -> None:
        raise TooLong(f"it did not end within {LONGEST} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def note(doing: str) -> None:
    """Tell, beside the figures, what is being done."""
    print(f"  .. {time.monotonic() - _began:4.0f} s: {doing}", file=sys.stderr, flush=True)


def rounds(most: int, doing: str) -> Iterator[int]:
    """The numbers of ``most`` rounds, or of as many as begin in time."""
    for number in range(most):
        if time.monotonic() - _began > SECONDS:
            print(f"  {doing}: {number} of {most} rounds, for want of time")
            return
        note(f"{doing}, round {number + 1} of {most}")
        yield number

"""The machine and its processes, as the kernel counts them."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_CORES = sorted(os.sched_getaffinity(0))
SERVER = _CORES[:1]
"""The core of the server under test, or of its yardstick."""
OTHERS = _CORES[1:] or _CORES[:1]
"""Where the client and the fake provider run."""
ALL = _CORES


def facts() -> str:
    """What the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    shared = "" if len(_CORES) > 1 else "; ONE core for all: client and server disturb each other"
    return (
        f"{model}, {len(_CORES)} cores (number {_listed(SERVER)} for the server, {_listed(OTHERS)} for "
        f"client and fake provider{shared}), {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def _listed(cores: list[int]) -> str:
    return ", ".join(map(str, cores))


@contextmanager
def on(cores: list[int]) -> Iterator[None]:
    """What this thread starts inside stays on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants, those that ended included."""
    ticks = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # utime stime cutime cstime
    return ticks / _TICK


def memory(pid: int) -> dict[str, float]:
    """MB of a process and its descendants: ``rss``, and ``pss``, which counts what they share once."""
    found = {"rss": 0.0, "pss": 0.0}
    for member in family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name.lower() in found:
                found[name.lower()] += int(rest.split()[0]) * 1024 / 1e6
    return found

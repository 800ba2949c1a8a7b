"""How soon a server answers, and what it weighs while nobody asks."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import httpx

from tests.backends import free_port
from tests.benchmarks import machine, table
from tests.servers import BOOGA

ROUNDS = 5
PROBES = ("/livez", "/readyz", "/openapi.json")
SETTLED = 4.0
"""Seconds after which an idle server is weighed."""


def run() -> None:
    """Seconds from the command to the first 200, on one core and on all; memory of all processes at rest."""
    rows: list[list[table.Cell]] = []
    for name, cores in (("one core", machine.SERVER), ("all cores", machine.ALL)):
        for state, is_new in (("new data folder", True), ("used data folder", False)):
            with tempfile.TemporaryDirectory(prefix="booga-bench-") as folder:
                measured: list[tuple[float, ...]] = []
                for _ in range(ROUNDS):
                    data = Path(folder) / (f"data-{len(measured)}" if is_new else "data")
                    measured.append(_start(cores, data))
                if not is_new:
                    del measured[0]
            *columns, processes = (table.median(values) for values in zip(*measured, strict=True))
            rows.append([f"{name}, {state}", *columns, round(processes)])
    print(f"  median of {ROUNDS} starts; memory {SETTLED:.0f} s later, MB of all its processes")
    table.show(["", *(f"{probe} s" for probe in PROBES), "RSS MB", "PSS MB", "processes"], rows)


def _start(cores: list[int], data: Path) -> tuple[float, ...]:
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOOGA_", "OPENAI_"))}
    with machine.on(cores), (data.parent / "log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - our own program and arguments
            [BOOGA, "serve", "--port", str(port)],
            env={**kept, "BOOGA_DATA_DIR": str(data)},
            stdout=log,
            stderr=log,
            cwd=data.parent,
        )
    try:
        with machine.on(machine.OTHERS):
            times = [_first(f"http://127.0.0.1:{port}{probe}", process) - began for probe in PROBES]
        time.sleep(SETTLED)  # what it does after its start is over
        weight = machine.memory(process.pid)
        return (*times, weight["rss"], weight["pss"], len(machine.family(process.pid)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _first(url: str, process: subprocess.Popen[bytes]) -> float:
    """The moment of the first 200."""
    deadline = time.monotonic() + 60
    with httpx.Client(timeout=5) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if client.get(url).is_success:
                    return time.monotonic()
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.01)  # between two looks
    raise AssertionError(f"{url} did not answer")

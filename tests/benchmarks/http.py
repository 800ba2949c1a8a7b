"""List, get and create of sessions, beside bare Flask and FastAPI applications with the same SQL and JSON."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson

from tests.backends import free_port
from tests.benchmarks import machine, pace, table
from tests.benchmarks.installation import API, client_of, default_persona, serving
from tests.benchmarks.load import Load, Slot, Step, request

ROUNDS = 7
REQUESTS = 400
"""Of one operation, on one side, in one round."""
CONNECTIONS = 8
SESSIONS = 200
"""Rows that are there before."""
KEY = "bk_yardstick_0123456789abcdef0123456789abcdef"
WORKERS = {"flask": ["-k", "gthread", "--threads", "8"], "fastapi": ["-k", "uvicorn_worker.UvicornWorker"]}


@dataclass
class Side:
    """One of the servers that take turns."""

    name: str
    url: str
    pid: int
    requests: dict[str, str]


def run() -> None:
    """List (20 rows), get and create of sessions: CPU and throughput of one core, beside bare frameworks."""
    with ExitStack() as stack:
        sides = [stack.enter_context(_ours())]
        sides += [stack.enter_context(_yardstick(name)) for name in WORKERS]
        load = stack.enter_context(Load.started())
        _check_shapes(sides)
        spent: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
        for turn in pace.rounds(ROUNDS + 1, "requests"):
            for operation in sides[0].requests:
                for side in sides:
                    measured = _round(load, side, operation)
                    if turn:  # the first only warms up
                        spent[operation, side.name].append(measured)
    rows: list[list[table.Cell]] = []
    for operation in sides[0].requests:
        ours = table.median([cpu for cpu, _, _ in spent[operation, sides[0].name]])
        for side in sides:
            cpu, rate, latency = (
                table.median(values) for values in zip(*spent[operation, side.name], strict=True)
            )
            rows.append([f"{operation}  {side.name}", cpu, rate, latency, ours / cpu])
    print(f"  median of {ROUNDS} rounds of {REQUESTS} requests over {CONNECTIONS} connections")
    table.show(["", "CPU ms", "requests/s", "p50 ms", "our CPU to its"], rows)


def _round(load: Load, side: Side, operation: str) -> tuple[float, float, float]:
    step = Step(side.requests[operation])
    slots = [Slot([step] * (REQUESTS // CONNECTIONS)) for _ in range(CONNECTIONS)]
    before = machine.cpu_seconds(side.pid)
    outcome = load.run(side.url, slots)
    cpu = machine.cpu_seconds(side.pid) - before
    wanted = 201 if operation == "create" else 200
    wrong = [answer for answer in outcome.answers if answer.status != wanted]
    assert not wrong, f"{side.name} {operation}: {wrong[0]}"
    count = len(outcome.answers)
    latency = table.median([answer.ended - answer.began for answer in outcome.answers])
    return cpu / count * 1000, count / outcome.seconds, latency * 1000


@contextmanager
def _ours() -> Iterator[Side]:
    with serving() as server, client_of(server) as client:
        persona = default_persona(client)
        made = [
            client.post(f"{API}/sessions", json={"persona_id": persona, "title": f"Session {number}"}).json()
            for number in range(SESSIONS)
        ]
        headers = {"X-API-Key": server.api_key}
        yield Side(
            "booga",
            server.url,
            server.process.pid,
            _requests(f"{API}/sessions", headers, made[0]["id"], persona),
        )


@contextmanager
def _yardstick(name: str) -> Iterator[Side]:
    with tempfile.TemporaryDirectory(prefix=f"booga-bench-{name}-") as folder, machine.on(machine.SERVER):
        environment = {**os.environ, "YARDSTICK_DATABASE": f"sqlite:///{folder}/{name}.db"}
        made = _filled(environment)
        port = free_port()
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own program and arguments
                [
                    Path(sys.executable).parent / "gunicorn",
                    *WORKERS[name],
                    *("--keep-alive", "15", "--bind", f"127.0.0.1:{port}"),
                    f"tests.benchmarks.yardsticks.{name}_app:app",
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )
        with process:
            url = f"http://127.0.0.1:{port}"
            requests = _requests("/sessions", {"X-API-Key": KEY}, made["session"], made["persona"])
            try:
                _wait(url, process)
                with machine.on(machine.OTHERS):
                    yield Side(name, url, process.pid, requests)
            finally:
                process.terminate()


def _filled(environment: dict[str, str]) -> dict[str, str]:
    program = (
        "import sys, orjson; from tests.benchmarks.yardsticks import store;"
        "sys.stdout.buffer.write(orjson.dumps(store.fill(sys.argv[1], int(sys.argv[2]))))"
    )
    done = subprocess.run(  # noqa: S603 - our own program and arguments
        [sys.executable, "-c", program, KEY, str(SESSIONS)], env=environment, capture_output=True, check=True
    )
    made: dict[str, str] = orjson.loads(done.stdout)
    return made


def _requests(path: str, headers: dict[str, str], session: str, persona: str) -> dict[str, str]:
    return {
        "list": request("GET", f"{path}?page_size=20", headers),
        "get": request("GET", f"{path}/{session}", headers),
        "create": request("POST", path, headers, {"persona_id": persona, "title": "One more"}),
    }


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.05)  # it is still starting
        else:
            return
    raise AssertionError(f"the yardstick at {url} did not start")


def _check_shapes(sides: list[Side]) -> None:
    """A comparison of different answers would be none."""
    shapes = {}
    with Load.started() as load:
        for side in sides:
            steps = [Step(text) for text in side.requests.values()]
            found = [orjson.loads(answer.body) for answer in load.run(side.url, [Slot(steps)]).answers]
            rows = found[0]["results"]
            shapes[side.name] = (sorted(found[0]), len(rows), *(sorted(row) for row in (rows[0], *found[1:])))
    assert len({str(shape) for shape in shapes.values()}) == 1, f"the sides answer differently: {shapes}"

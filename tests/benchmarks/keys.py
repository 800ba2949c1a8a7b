"""What it costs to find out who calls."""

from __future__ import annotations

import time

import orjson

from tests.benchmarks import machine, pace, table
from tests.benchmarks.installation import API, serving
from tests.benchmarks.load import Answer, Load, Slot, Step, request
from tests.servers import Server

ROUNDS = 5
KEYS = 1000
LOGINS = 20
FORGOTTEN = 0.7
"""Seconds after which no verdict on a key is remembered (it is for half a second)."""


def run() -> None:
    """CPU of a key check (the same key again, another key each time) and of a sign-in and a refresh."""
    with serving() as server, Load.started() as load:
        keys = [server.issue_key() for _ in range(KEYS)]
        path = f"{API}/health"
        others = [request("GET", path, {"X-API-Key": key}) for key in keys]
        same = [request("GET", path, {"X-API-Key": keys[0]})] * KEYS
        body = {"email": server.tenant["email"], "password": server.tenant["password"]}
        sign_in = [request("POST", "/api/v1/auth/login", {}, body)] * LOGINS
        spent: dict[str, list[tuple[float, float]]] = {"same": [], "others": [], "sign in": [], "refresh": []}
        first, _ = _spend(server, load, others)  # writes down that each was used
        for _ in pace.rounds(ROUNDS, "keys"):
            for name, requests in (("same", same), ("others", others), ("sign in", sign_in)):
                time.sleep(FORGOTTEN)
                figures, answers = _spend(server, load, requests)
                spent[name].append(figures)
            devices = [orjson.loads(answer.body)["refresh_token"] for answer in answers]
            refresh = [
                request("POST", "/api/v1/auth/refresh", {}, {"refresh_token": token}) for token in devices
            ]
            time.sleep(FORGOTTEN)
            spent["refresh"].append(_spend(server, load, refresh)[0])
    middle = {name: [table.median(values) for values in zip(*v, strict=True)] for name, v in spent.items()}
    check = middle["others"][0] - middle["same"][0]
    print(f"  median of {ROUNDS} rounds of {KEYS} requests ({LOGINS} sign-ins, refreshes) on one connection")
    rows: list[list[table.Cell]] = [
        ["GET with a key seen a moment ago", *middle["same"]],
        ["GET with another key each time", *middle["others"]],
        ["  so the check of a key costs", check, None],
        ["GET with a key never used before", *first],
        ["sign in", *middle["sign in"]],
        ["refresh", *middle["refresh"]],
    ]
    table.show(["", "CPU ms", "ms"], rows)


def _spend(server: Server, load: Load, requests: list[str]) -> tuple[tuple[float, float], list[Answer]]:
    before = machine.cpu_seconds(server.process.pid)
    outcome = load.run(server.url, [Slot([Step(text) for text in requests])])
    cpu = machine.cpu_seconds(server.process.pid) - before
    wrong = [answer for answer in outcome.answers if answer.status != 200]
    assert not wrong, f"{wrong[0]}"
    times = [answer.ended - answer.began for answer in outcome.answers]
    return (cpu / len(requests) * 1000, table.median(times) * 1000), outcome.answers

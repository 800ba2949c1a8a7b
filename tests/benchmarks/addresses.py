"""Whether the time of an answer tells that an address has an account."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from itertools import count

import httpx

from models.tenancy import User
from storage import secrets
from tests.benchmarks import table
from tests.benchmarks.installation import serving
from tests.servers import PASSWORD, Server

EACH = 150
PAUSE = 0.05
"""Seconds until what is done after an answer is done, so that the next answer does not pay for it."""
AUTH = "/api/v1/auth"
Body = dict[str, str]
QUESTIONS: dict[str, tuple[str, Callable[[str], Body], int]] = {
    "login, a wrong password": (
        "login",
        lambda email: {"email": email, "password": "not the right one"},
        401,
    ),
    "ask for a new password": ("password/reset", lambda email: {"email": email}, 202),
    "register": ("register", lambda email: {"email": email, "tenant": "Company", "name": ""}, 202),
}
_numbers = count(1)


def run() -> None:
    """The same question for known and unknown addresses in turn: medians and their ratio."""
    settings = {"BOOGA_TRUSTED_PROXIES": "127.0.0.1", "BOOGA_OPEN_REGISTRATION": "true"}
    rows: list[list[table.Cell]] = []
    with serving(settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        for name, (path, body, status) in QUESTIONS.items():
            taken: dict[str, list[tuple[float, float]]] = {"known": [], "unknown": []}
            accounts = _accounts(server)
            for number, email in enumerate([accounts[0], *accounts]):
                for kind, asked in (("known", email), ("unknown", f"no-{email}")):
                    times = _ask(client, f"{AUTH}/{path}", body(asked), status)
                    if number:  # the first of each warms up
                        taken[kind].append(times)
            for what, part in ((name, 0), ("  the request right behind it", 1)):
                known, unknown = (table.median([times[part] for times in taken[kind]]) for kind in taken)
                rows.append([what, known, unknown, known / unknown])
    print(f"  medians of {EACH} each, asked in turn on one connection")
    table.show(["", "known ms", "unknown ms", "ratio"], rows)


def _accounts(server: Server) -> list[str]:
    """Addresses of people who can sign in, each asked about once."""
    hashed = secrets.hash_password(PASSWORD)
    emails = [f"{uuid.uuid4().hex}@example.com" for _ in range(EACH)]
    with server.database() as db:
        of = {"tenant_id": server.tenant["tenant_id"], "role": "member", "password_hash": hashed}
        db.add_all(User(**of, email=email) for email in emails)
    return emails


def _ask(client: httpx.Client, path: str, body: Body, status: int) -> tuple[float, float]:
    """Milliseconds of the answer, and of another that is asked for at once."""
    number = next(_numbers)
    headers = {"X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
    began = time.perf_counter()
    answer = client.post(path, json=body, headers=headers)
    ended = time.perf_counter()
    client.get(f"{AUTH}/me", headers=headers)
    behind = time.perf_counter()
    assert answer.status_code == status, answer.text
    time.sleep(PAUSE)
    return (ended - began) * 1000, (behind - ended) * 1000

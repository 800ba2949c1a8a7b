"""PostgreSQL goes away and comes back: every operation says so, and none of them breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.backends import POSTGRESQL, Backend
from tests.contract import conformance
from tests.contract.specimens import Operation, Specimens, operations
from tests.servers import Server, new_user, started

WITHOUT_DATABASE = {
    "system.livez": "the process answers",
    "system.metrics": "they are counted in files",
    "accounts.register": "the installation is closed, whatever becomes of the database",
}
"""What another answer is right for, and why. May only shrink."""
PATIENCE = 10.0
"""Seconds for any answer."""
BACK_WITHIN = 20.0

pytestmark = [pytest.mark.parametrize("backend", ["postgresql"], indirect=True)]


@pytest.fixture(scope="module")
def lost(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose database may be taken away."""
    given = {**backend.fresh(), "BOOGA_WORKERS": "1"}
    with started(tmp_path_factory.mktemp("lost"), backend.name, given) as made:
        yield made
        assert '"unforeseen"' not in made.log_path.read_text()


Administer = Callable[[str], object]
Calls = list[tuple[Operation, httpx.Client, dict[str, Any]]]


@pytest.fixture(scope="module")
def calls(lost: Server) -> Iterator[Calls]:
    """A valid call of each operation, made while there is a database."""
    with (
        conformance.client(lost.url, lost.api_key) as client,
        conformance.client(lost.url, None) as anonymous,
        conformance.client(lost.url, _operator(lost)) as operator,
    ):
        for each in (client, anonymous, operator):
            each.timeout = httpx.Timeout(PATIENCE)
        with lost.database() as db:
            person = new_user(db, lost.tenant, "member").id
        ours = Specimens(client, lost.tenant, {"user": person}, operator, anonymous)
        yield [(each, ours.client_for(each), ours.call(each)) for each in operations()]


def _operator(server: Server) -> str:
    return str(httpx.Response(200, text=server.booga("operator-key", "--json")).json()["api_key"])


@pytest.fixture
def administer(lost: Server) -> Iterator[Administer]:
    """Does something to the database from outside; ``{name}`` in the text is its name."""
    name = lost.environment["BOOGA_DATABASE_URL"].rpartition("/")[2]
    with psycopg.connect(f"{POSTGRESQL}/postgres", autocommit=True) as connection:
        yield lambda text: connection.execute(text.format(name=name))


CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"


@contextmanager
def away(administer: Administer) -> Iterator[None]:
    """Nobody gets to the database."""
    administer('ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    administer(CUT)
    try:
        yield
    finally:
        administer('ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def back(calls: Calls) -> None:
    """Wait until the server has noticed that all is well again."""
    client = next(client for operation, client, _ in calls if operation.id == "personas.list")
    deadline = time.monotonic() + BACK_WITHIN
    while client.get("/api/v1/chat/personas").status_code != 200:
        assert time.monotonic() < deadline, "it did not recover"
        time.sleep(0.1)  # its pool finds new connections


def test_every_operation_says_that_it_is_away_and_works_again(
    lost: Server, calls: Calls, administer: Administer
) -> None:
    wrong = {}
    with away(administer):
        time.sleep(1.1)  # who calls is remembered for a second; with that, most would get a step further
        for operation, client, call in calls:
            answer = client.request(**call)
            told = (answer.status_code, "retry-after" in answer.headers)
            if told != (503, True):
                wrong[operation.id] = f"{told}: {answer.text[:200]}"
    assert wrong.keys() == WITHOUT_DATABASE.keys(), wrong
    back(calls)


def fault_of(client: httpx.Client, call: dict[str, Any]) -> str | None:
    """What a server should never answer; None for all else."""
    try:
        answer = client.request(**call)
    except httpx.RemoteProtocolError as fault:
        # What had begun with 200 can only be cut, so that nobody takes it for the whole.
        return None if "without sending complete message body" in str(fault) else str(fault)
    return answer.text[:300] if answer.status_code == 500 else None


def test_connections_that_break_at_any_moment_are_no_fault_of_the_server(
    lost: Server, calls: Calls, administer: Administer
) -> None:
    ended = threading.Event()

    def cut() -> None:
        while not ended.wait(0.03):  # so that it hits requests at all of their stages
            administer(CUT)

    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        broken = {
            operation.id: told
            for operation, client, call in calls * 2
            if operation.method in ("get", "post", "put", "patch")
            if (told := fault_of(client, call))
        }
    finally:
        ended.set()
        cutting.join()
    assert not broken
    back(calls)

"""Schemathesis against the running server: every check and phase, sequences along the links included."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.backends import Backend
from tests.contract import conformance
from tests.relay import relay
from tests.servers import Server, running

PROGRAM = Path(sys.executable).parent / "schemathesis"
CONFIG = Path(__file__).with_name("schemathesis.toml")
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
SEED = "20260131"
ORIGIN = "https://www.tarnwick.example"


@pytest.fixture
def asked(backend: Backend, tmp_path: Path) -> Iterator[Server]:
    """A server of its own, behind a proxy that names each caller's address and open for registration."""
    given = {"BOOGA_TRUSTED_PROXIES": "127.0.0.1", "BOOGA_OPEN_REGISTRATION": "true"}
    with running(tmp_path, backend.name, {**backend.fresh(), **given}) as made:
        yield made


def question(server: Server, *options: str, timeout: float) -> None:
    """Run it; whatever it finds fails the test, with its own report as the message."""
    operator_key = json.loads(server.booga("operator-key", "--json"))["api_key"]
    owner, operator = (conformance.client(server.url, key) for key in (server.api_key, operator_key))
    with owner, operator, relay(server.url) as door:
        given = {
            "BOOGA_TEST_KEY": server.api_key,
            "BOOGA_TEST_OPERATOR_KEY": operator_key,
            "BOOGA_TEST_STANDING_ON": ",".join(standing_on(server, owner)),
            "SCHEMATHESIS_HOOKS": str(HOOKS),
            **visiting(server, owner),
        }
        done = subprocess.run(  # noqa: S603 - a program of the install, our own arguments
            [PROGRAM, "--no-color", "--config-file", CONFIG, "run", f"{door.url}/openapi.json", *options],
            cwd=server.data_dir.parent,  # where it keeps what it learns
            env={**server.environment, **given},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout[-30_000:] + done.stderr[-5_000:]
        # A run whose credentials were gone half way would find nothing, and say that all is well.
        assert owner.get("/api/v1/chat/personas").status_code == 200
        assert operator.get("/api/v1/tenants").status_code == 200


def standing_on(server: Server, owner: httpx.Client) -> list[str]:
    """The ids without which no call would get further than to 401 or 403."""
    paths = ("/api/v1/api-keys", "/api/v1/tenants/subscriptions")
    rows = [row for path in paths for row in owner.get(path).json()["results"]]
    return [server.tenant["tenant_id"], *(row["id"] for row in rows)]


def visiting(server: Server, owner: httpx.Client) -> dict[str, str]:
    """A bot, and a conversation of a visitor of its site."""
    persona = owner.get("/api/v1/chat/personas").json()["results"][0]["id"]
    body = {"name": "Desk", "persona_id": persona, "allowed_origins": [ORIGIN], "rate_limit_per_minute": 1000}
    bot = owner.post("/api/v1/chat/bots", json=body).json()
    with conformance.client(server.url, None) as visitor:
        sessions = f"/api/v1/embed/{bot['public_key']}/sessions"
        begun = visitor.post(sessions, headers={"Origin": ORIGIN}).json()
    return {
        "BOOGA_TEST_ORIGIN": ORIGIN,
        "BOOGA_TEST_PUBLIC_KEY": bot["public_key"],
        "BOOGA_TEST_VISITOR_SESSION": begun["session_id"],
        "BOOGA_TEST_VISITOR_TOKEN": begun["visitor_token"],
    }


@pytest.mark.contract_bounded
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_bounded(asked: Server) -> None:
    question(asked, "--seed", SEED, "--max-examples", "5", timeout=840)


@pytest.mark.contract
@pytest.mark.timeout(0)  # as long as it takes, within the bound below
def test_whole(asked: Server) -> None:
    question(asked, "--max-examples", "100", timeout=4 * 3600)

"""Schemathesis against the running server: every check and phase, sequences along the links included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import conformance
from tests.servers import Server

PROGRAM = Path(sys.executable).parent / "schemathesis"
CONFIG = Path(__file__).with_name("schemathesis.toml")
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
SEED = "20260131"


def question(server: Server, operator_key: str, folder: Path, *options: str, timeout: float) -> None:
    """Run it; whatever it finds fails the test, with its own report as the message."""
    owner, operator = (conformance.client(server.url, key) for key in (server.api_key, operator_key))
    with owner, operator:
        standing_on = [
            server.tenant["tenant_id"],
            *(key["id"] for key in owner.get("/api/v1/api-keys").json()["results"]),
            *(row["id"] for row in owner.get("/api/v1/tenants/subscriptions").json()["results"]),
        ]
        given = {
            "BOOGA_TEST_KEY": server.api_key,
            "BOOGA_TEST_OPERATOR_KEY": operator_key,
            "BOOGA_TEST_STANDING_ON": ",".join(standing_on),
            "SCHEMATHESIS_HOOKS": str(HOOKS),
        }
        done = subprocess.run(  # noqa: S603 - a program of the install, our own arguments
            [PROGRAM, "--no-color", "--config-file", CONFIG, "run", f"{server.url}/openapi.json", *options],
            cwd=folder,  # where it keeps what it learns
            env={**server.environment, **given},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout[-30_000:] + done.stderr[-5_000:]
        # A run whose credentials were gone half way would find nothing, and say that all is well.
        assert owner.get("/api/v1/chat/personas").status_code == 200
        assert operator.get("/api/v1/tenants").status_code == 200


@pytest.mark.contract_bounded
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_bounded(server: Server, operator_key: str, tmp_path: Path) -> None:
    question(server, operator_key, tmp_path, "--seed", SEED, "--max-examples", "5", timeout=840)


@pytest.mark.contract
@pytest.mark.timeout(0)  # as long as it takes, within the bound below
def test_whole(server: Server, operator_key: str, tmp_path: Path) -> None:
    question(server, operator_key, tmp_path, "--max-examples", "100", timeout=4 * 3600)

"""Schemathesis against the running server: every check and phase, sequences along the links included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Server

PROGRAM = Path(sys.executable).parent / "schemathesis"
CONFIG = Path(__file__).with_name("schemathesis.toml")
SEED = "20260131"


def question(server: Server, folder: Path, *options: str, timeout: float) -> None:
    """Run it; whatever it finds fails the test, with its own report as the message."""
    done = subprocess.run(  # noqa: S603 - a program of the install, our own arguments
        [PROGRAM, "--no-color", "--config-file", CONFIG, "run", f"{server.url}/openapi.json", *options],
        cwd=folder,  # where it keeps what it learns
        env={**server.environment, "BOOGA_TEST_KEY": server.api_key},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-30_000:] + done.stderr[-5_000:]


@pytest.mark.contract_bounded
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_bounded(server: Server, tmp_path: Path) -> None:
    question(server, tmp_path, "--seed", SEED, "--max-examples", "5", timeout=840)


@pytest.mark.contract
@pytest.mark.timeout(0)  # as long as it takes, within the bound below
def test_whole(server: Server, tmp_path: Path) -> None:
    question(server, tmp_path, "--max-examples", "100", timeout=4 * 3600)

"""``make run`` as the one at the keyboard sees it: a server with the demo, and what it printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests import canary, canary_rows
from tests.backends import free_port
from tests.servers import BOOGA, ENDS_WITHIN, FAULTY, STARTS_WITHIN

ROOT = Path(__file__).parents[2]


@dataclass
class Demo:
    """A server that was started with ``--demo``."""

    url: str
    data_dir: Path
    printed: str

    @property
    def variables(self) -> dict[str, str]:
        """What it tells to export for README's examples."""
        told = re.search(r"^ +export BOOGA=(\S+) BOOGA_KEY=(\S+)$", self.printed, re.M)
        assert told, f"no key was printed:\n{self.printed}"
        return {"BOOGA": told[1], "BOOGA_KEY": told[2]}

    @property
    def key(self) -> str:
        """The API key that it prints."""
        return self.variables["BOOGA_KEY"]

    @property
    def command(self) -> str:
        """The command that asks the first question, as it is printed."""
        return self.printed[self.printed.index("  curl ") :]


def start(data_dir: Path, log: Path, url: str) -> subprocess.Popen[bytes]:
    """``booga serve --demo``, with nothing else set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOOGA_", "OPENAI_"))}
    with log.open("wb") as printed, log.with_suffix(".log").open("wb") as told:
        return subprocess.Popen(  # noqa: S603 - our own program and arguments
            [BOOGA, "serve", "--demo", "--port", url.rpartition(":")[2]],
            env={**kept, "BOOGA_DATA_DIR": str(data_dir)},
            stdout=printed,
            stderr=told,
        )


@contextmanager
def serving(data_dir: Path) -> Iterator[Demo]:
    """The demo, served until the end of the block, the canary's tenant beside it. It has to end in order, and
    with a clean log.
    """
    url, log = f"http://127.0.0.1:{free_port()}", data_dir.with_suffix(".out")
    process = start(data_dir, log, url)
    try:
        _wait_until_up(process, url, log)
        canary_rows.plant(data_dir, {})
        yield Demo(url, data_dir, log.read_text())
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(ENDS_WITHIN)
    assert status == 0
    assert not canary.in_files(log, data_dir / "mail")
    assert not canary.in_files(log.with_suffix(".log"), data_dir / "mail")
    assert not FAULTY.findall(log.with_suffix(".log").read_text())


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/livez").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)  # it listens last
    told = log.read_text() + log.with_suffix(".log").read_text()
    raise AssertionError(f"the server did not start:\n{told[-4000:]}")

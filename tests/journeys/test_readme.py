"""README's examples, exactly as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.events import events
from tests.journeys.demo import ROOT, Demo, serving
from tests.relay import relay

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """What ``make run`` starts."""
    with serving(tmp_path_factory.mktemp("readme") / "data") as made:
        yield made


@pytest.fixture(scope="module")
def walked(demo: Demo) -> str:
    """What the walk as curl prints; the official client's example needs the persona that it makes."""
    (walk,) = blocks("bash")
    return run(["bash", "-eu", "-c", walk], demo)


def run(command: list[str], demo: Demo) -> str:
    """What a command prints where the exported line was pasted before it."""
    with relay(demo.url) as door:
        given = {**os.environ, **demo.variables, "BOOGA": door.url}
        done = subprocess.run(  # noqa: S603 - what README tells its readers to run
            command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_walk_streams_an_answer_that_cites_the_page(walked: str) -> None:
    told = list(events(walked[: walked.index("\n\n#") + 2].splitlines()))
    assert [event.name for event in told[:2]] == ["message.created", "retrieval.completed"]
    last = told[-1]
    assert last.name == "message.completed"
    cited = [citation for citation in last.data["citations"] if "(26,140)" in citation["quote"]]
    assert [(citation["page"], citation["cited"]) for citation in cited] == [(8, True)]


def test_the_walk_ends_with_the_history(walked: str) -> None:
    history = walked[walked.index("\n\n#") :]
    assert "How much did Tarnwick spend" in history
    assert "(26,140)" in history


def test_the_official_client_streams_from_the_persona(demo: Demo, walked: str) -> None:
    (example,) = blocks("python")
    printed = run([sys.executable, "-c", example], demo)
    assert "Earnings per share are EUR 2.00" in printed
    assert re.search(r"^\[\d\] tarnwick-annual-report-2025\.pdf, page 6$", printed, re.M)


def test_the_first_commands_are_there() -> None:
    (commands,) = blocks("sh")
    targets = re.findall(r"^make ([a-z-]+)", commands, re.M)
    assert targets == ["run", "test"]
    for target in {*targets, *re.findall(r"`make ([a-z-]+)`", README)}:
        planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)  # noqa: S603, S607 - whichever make is installed
        assert planned.returncode == 0, planned.stderr


def test_every_command_of_the_host_that_it_names_exists(demo: Demo) -> None:
    booga = str(Path(sys.executable).parent / "booga")
    named = set(re.findall(r"`\.venv/bin/booga ([a-z-]+)", README))
    assert {"serve", "bootstrap", "worker", "doctor", "migrate"} <= named
    for name in named:
        assert run([booga, name, "--help"], demo).startswith("Usage:")


def test_its_links_lead_somewhere() -> None:
    linked = set(re.findall(r"\]\(([^)#:]+)\)", README))
    assert {"DECISIONS.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", ".env.example"} <= linked
    assert all((ROOT / path).exists() for path in linked)


def test_its_settings_are_those_of_the_example() -> None:
    known = set(re.findall(r"^#((?:BOOGA|OPENAI)_[A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    assert set(re.findall(r"`((?:BOOGA|OPENAI)_[A-Z_]+)`", README)) <= known

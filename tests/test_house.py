"""The frame of the house: what its files promise about each other."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
PACKAGES = ("openapi", "handlers", "storage", "models")

# Who may touch the environment besides storage/settings.py, and why. This set may only shrink.
ALSO_TOUCH_THE_ENVIRONMENT = {
    "openapi/__main__.py",  # hands --host and --port on to the server process
}

# What the canary's ears (tests/ears.py) are deaf to: sockets that are not Python's own, and its rarer calls.
UNHEARD = {
    "_socket",
    "detach",
    "grpc",
    "pycurl",
    "recvfrom",
    "recvfrom_into",
    "recvmsg",
    "recvmsg_into",
    "uvloop",
}
USE_UNHEARD = {
    "tests/fakes/provider.py",  # it is asked, and looks at what it is asked
}
# Tests that start programs, which may speak to a server unheard: where they are heard, or why they need not.
START_PROGRAMS = {
    "tests/backends.py": "Chroma alone",
    "tests/clients/test_walk.py": "through a relay",
    "tests/contract/matrix.py": "a command of the host",
    "tests/contract/test_canary.py": "to show that they are heard",
    "tests/contract/test_schemathesis.py": "through a relay",
    "tests/handlers/jobs/test_ingest.py": "a worker",
    "tests/handlers/pages/test_docs.py": "nobody is asked",
    "tests/handlers/test_embed.py": "a command of the host",
    "tests/handlers/test_system.py": "a command of the host",
    "tests/journeys/demo.py": "a server",
    "tests/journeys/test_demo.py": "through a relay",
    "tests/journeys/test_full_disk.py": "nobody is asked",
    "tests/journeys/test_hosting.py": "a proxy, which our own client speaks to",
    "tests/journeys/test_integrating.py": "through a relay; a receiver of webhooks",
    "tests/journeys/test_readme.py": "through a relay",
    "tests/journeys/test_replies_survive.py": "nobody is asked",
    "tests/servers.py": "servers, and commands of the host",
    "tests/storage/test_backups.py": "commands of the host",
    "tests/storage/test_upkeep.py": "commands of the host",
    "tests/storage/test_vectors.py": "nobody is asked",
    "tests/test_house.py": "nobody is asked",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def test_env_example_names_every_setting_and_no_other() -> None:
    read = set(re.findall(r'"((?:BOOGA|OPENAI)_[A-Z_]+)"', (ROOT / "storage/settings.py").read_text()))
    named = set(re.findall(r"^#((?:BOOGA|OPENAI)_[A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    assert read == named, "storage/settings.py and .env.example disagree"


def test_only_settings_read_the_environment() -> None:
    touching = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv")
    }
    assert touching - {"storage/settings.py"} == ALSO_TOUCH_THE_ENVIRONMENT


def names(tree: ast.Module) -> Iterator[str]:
    """Every package that a module imports, and every attribute that it uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_the_canary_s_ears_hear_whatever_tests_ask_with() -> None:
    files = [file for file in sorted((ROOT / "tests").rglob("*.py")) if "benchmarks" not in file.parts]
    used = {str(file.relative_to(ROOT)): {*names(ast.parse(file.read_text()))} for file in files}
    deaf = {file for file, found in used.items() if found & UNHEARD}
    assert deaf == USE_UNHEARD, "tests/ears.py does not hear what comes this way"
    starting = {file for file, found in used.items() if "subprocess" in found} - {"tests/ears.py"}
    assert starting == START_PROGRAMS.keys(), "have programs ask through tests/relay.py; then name them here"


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_everything_by_hash_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[^ ]+ ", entry), f"not pinned: {entry.splitlines()[0]}"
        assert "--hash=sha256:" in entry, f"without a hash: {entry.splitlines()[0]}"


def test_locks_leave_out_what_is_not_needed() -> None:
    excluded = {
        line.split()[0]
        for line in (ROOT / "requirements-excluded.in").read_text().splitlines()
        if line and not line.startswith("#")
    }
    locked = {
        name for lock in LOCKS for name in re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), re.M)
    }
    assert excluded
    assert not excluded & locked


def test_make_alone_prints_every_target() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607 - whichever make is installed
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert targets == set(re.findall(r"^  make ([a-z-]+) +\S", printed, re.M))


def test_ci_calls_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    steps = re.findall(r"^step .* (?:make|both) (.+)$", (ROOT / ".ci/run").read_text(), re.M)
    called = {name for step in steps for name in step.split() if "/" not in name}
    assert "test" in called
    assert called <= targets

"""Fixtures of the whole suite: a real server on each backend, clients that hold answers to the contract."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import httpx
import pytest

from storage import database, identity, migrations, secrets, tokens
from storage.settings import settings
from tests import backends, ears
from tests.backends import Backend
from tests.contract import conformance, marked
from tests.fakes.provider import FakeProvider
from tests.servers import Server, Tenant, running

BACKENDS = backends.available()


@pytest.fixture(scope="session", autouse=True)
def _listening() -> Iterator[None]:
    """No answer may show what the canary's tenant keeps."""
    with ears.listening():
        yield


@pytest.fixture(autouse=True)
def _nothing_overheard() -> Iterator[None]:
    """Nor may anything be sent that does."""
    yield
    ears.check()


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """SQLite and, where it answers, PostgreSQL with the services beside it.

    One of them alone: ``@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)``.
    """
    with backends.backend(request.param) as made:
        yield made


@pytest.fixture(scope="session")
def server(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with nothing but its defaults: ``extractive`` answers. The canary was busy in it."""
    with running(tmp_path_factory.mktemp(f"server-{backend.name}"), backend.name, backend.fresh()) as made:
        marked.plant(made)
        yield made


@pytest.fixture(scope="session")
def live_server(server: Server) -> Server:
    """The server, as browser tests call it."""
    return server


@pytest.fixture(scope="session")
def fake_provider() -> Iterator[FakeProvider]:
    """An OpenAI-compatible provider on loopback. ``forget()`` what earlier tests left."""
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="session")
def server_with_provider(
    backend: Backend, fake_provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose environment configures the fake provider."""
    given = {"OPENAI_BASE_URL": fake_provider.base_url, "OPENAI_API_KEY": "sk-test"}
    folder = tmp_path_factory.mktemp(f"provided-{backend.name}")
    with running(folder, backend.name, {**backend.fresh(), **given}) as made:
        marked.plant(made)
        fake_provider.forget()
        yield made


@pytest.fixture(scope="session")
def other_tenant(server: Server) -> Tenant:
    """A second tenant of the server, which the first must never notice."""
    return server.bootstrap("Tenant B")


@pytest.fixture(scope="session")
def without_capability(server: Server) -> Tenant:
    """A tenant whose subscription does not grant ``chat_ai``."""
    return server.bootstrap("Tenant without chat", without_capability="chat_ai")


@pytest.fixture(scope="session")
def operator_key(server: Server) -> str:
    """The key of an operator of the server."""
    key: str = json.loads(server.booga("operator-key", "--json"))["api_key"]
    return key


class MakesClient(Protocol):
    """``connect()``: a client of a server; every answer is held against the contract."""

    def __call__(
        self, key: str | None = None, server: Server | None = None, *, checked: bool = True
    ) -> httpx.Client:
        """Without a key it sends no credentials."""


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Iterator[MakesClient]:
    """Makes clients of any server with any key, and closes them."""
    opened: list[httpx.Client] = []

    def make(key: str | None = None, server: Server | None = None, *, checked: bool = True) -> httpx.Client:
        at: Server = server or request.getfixturevalue("server")
        opened.append(conformance.client(at.url, key, checked=checked))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def client(server: Server, connect: MakesClient) -> httpx.Client:
    """The owner of tenant A."""
    return connect(server.api_key)


@pytest.fixture
def other(other_tenant: Tenant, connect: MakesClient) -> httpx.Client:
    """The owner of tenant B."""
    return connect(other_tenant["api_key"])


@pytest.fixture
def anonymous(server: Server, connect: MakesClient) -> httpx.Client:
    """Somebody without credentials."""
    return connect()


@pytest.fixture
def client_with(server: Server, connect: MakesClient) -> Callable[..., httpx.Client]:
    """``client_with(scopes=[...])``: the owner with a narrower key; ``(role="viewer")``: a new user.

    Also ``tenant=``, and any of these together.
    """

    def make(
        *, scopes: list[str] | None = None, role: str | None = None, tenant: Tenant | None = None
    ) -> httpx.Client:
        return connect(server.issue_key(scopes=scopes, role=role, tenant=tenant))

    return make


@pytest.fixture
def migrated(
    backend: Backend, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """This process itself with an empty, migrated database: for tests of ``storage`` without a server."""
    data_dir = tmp_path_factory.mktemp("data")
    if backend.name == "sqlite":
        backends.lay(data_dir)
    given = {"BOOGA_DATA_DIR": str(data_dir), **backend.fresh()}
    for name in (
        "BOOGA_DATABASE_URL",
        "BOOGA_SECRET_KEY",
        "BOOGA_CHROMA_URL",
        "BOOGA_REDIS_URL",
        "BOOGA_WORKERS",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    _forget_installation()
    migrations.upgrade()
    yield
    database.engine().dispose()
    _forget_installation()


def _forget_installation() -> None:
    for remembered in (settings, database.engine, secrets._fernet):
        remembered.cache_clear()
    identity._memory.clear()
    tokens._keys = (0.0, [])


def _backend_of(item: pytest.Item) -> str | None:
    chosen = (
        item.callspec.params.get("backend")
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else None
    )
    return chosen if isinstance(chosen, str) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side (``-n 2 --dist loadgroup``), each backend's servers are started by one process alone."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_backend_of(item) or item.location[0]))


def _is_whole_run(config: pytest.Config) -> bool:
    """Whether everything was asked for, so that what did not happen says something."""
    chosen = config.getoption("keyword") or config.getoption("collectonly") or config.getoption("lf", False)
    return config.args_source == pytest.Config.ArgsSource.TESTPATHS and not chosen


def _is_part(config: pytest.Config) -> bool:
    """Whether this process runs a share of the tests for another that tells of all."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What one process saw, added to what the others saw."""
    seen = getattr(node, "workeroutput", {})
    backends.left_out.update(seen.get("left_out", {}))
    for id, status, times in seen.get("exercised", []):
        conformance.exercised[id, status] += times


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Every operation has to have succeeded for some test, but for exemptions, which have to be needed."""
    if _is_part(session.config):
        session.config.workeroutput["left_out"] = backends.left_out  # type: ignore[attr-defined]  # xdist's own
        session.config.workeroutput["exercised"] = [  # type: ignore[attr-defined]  # likewise
            [id, status, times] for (id, status), times in conformance.exercised.items()
        ]
    elif (
        _is_whole_run(session.config)
        and exitstatus == pytest.ExitCode.OK
        and conformance.never_succeeded() != conformance.NOT_EXERCISED
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was not tested, and why."""
    for service, reason in backends.left_out.items():
        terminalreporter.write_line(f"left out: {service} ({reason})")
    if not _is_whole_run(config):
        return
    never = conformance.never_succeeded()
    for id in sorted(never):
        terminalreporter.write_line(f"never answered with 2xx: {id}")
    for id in sorted(conformance.NOT_EXERCISED - never):
        terminalreporter.write_line(f"take {id} out of NOT_EXERCISED in tests/contract/conformance.py")

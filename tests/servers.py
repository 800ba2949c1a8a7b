"""The server under test as its host runs it: a process of its own, spoken to over HTTP, ended by SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.access import ApiKey, effective_scopes
from models.tenancy import RegionAssignment, Role, Seat, Stack, Subscription, User
from tests import canary, canary_rows
from tests.backends import free_port, lay
from tests.canary_rows import PASSWORD, database_of

BOOGA = Path(sys.executable).parent / "booga"
STARTS_WITHIN = 60.0
ENDS_WITHIN = 30.0
FAULTY = re.compile(
    r'Traceback|"unforeseen"|"database (unavailable|refused)"|Task exception was never|WARNING:'
)
"""What no line of a server's log may hold, whatever a test sent."""

Tenant = dict[str, str]
_numbers = count(1)


@dataclass
class Server:
    """A running installation with one tenant in it, and beside it the canary's, which nobody may notice.

    ``tenant`` is what ``booga bootstrap --json`` printed; ``canary`` the same of the other.
    """

    url: str
    data_dir: Path
    log_path: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    backend: str
    tenant: Tenant = field(default_factory=dict)
    canary: Tenant = field(default_factory=dict)

    @property
    def api_key(self) -> str:
        """The key of the first tenant's owner."""
        return self.tenant["api_key"]

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return sorted(int(pid) for pid in children.split())

    def bootstrap(
        self, name: str, *, without_capability: str | None = None, email: str | None = None
    ) -> Tenant:
        """One more tenant, made as a host makes it: ``tenant_id user_id api_key stack_id email password``."""
        address = email or f"owner-{next(_numbers)}-{os.getpid()}@example.com"
        options = ["--without-capability", without_capability] if without_capability else []
        printed = self.booga(
            "bootstrap", "--tenant", name, "--email", address, "--password", PASSWORD, "--json", *options
        )
        return {**json.loads(printed), "email": address, "password": PASSWORD}

    def booga(self, *arguments: str) -> str:
        """What a command of the host prints, run beside the server with the same settings."""
        done = subprocess.run(  # noqa: S603 - our own program and arguments
            [BOOGA, *arguments], env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"booga {arguments[0]} failed: {done.stderr}"
        return done.stdout

    @contextmanager
    def database(self) -> Iterator[Session]:
        """The server's database, all tenants at once, for what no route of the contract can arrange."""
        with database_of(self.data_dir, self.environment) as session:
            yield session

    def settle(self) -> None:
        """Make the tenants that every server begins with."""
        self.tenant = self.bootstrap("Tenant A")
        self.canary = canary_rows.plant(self.data_dir, self.environment)

    def issue_key(
        self, *, scopes: Iterable[str] | None = None, role: str | None = None, tenant: Tenant | None = None
    ) -> str:
        """A key of the tenant's owner, or of a new user of that role with seat and region.

        ``scopes``: what the key is limited to; by default nothing beyond its maker's role.
        """
        of = tenant or self.tenant
        with self.database() as db:
            user = db.get_one(User, of["user_id"]) if role is None else new_user(db, of, role)
            held = effective_scopes(user.role, None if scopes is None else list(scopes))
            key, secret = ApiKey.issue(user_id=user.id, role=user.role, name="test", scopes=held)
            key.tenant_id = user.tenant_id
            db.add(key)
        return secret

    def faults(self) -> list[str]:
        """Lines of the log that tell of something unforeseen."""
        return [line for line in self.log_path.read_text().splitlines() if FAULTY.search(line)]

    def stop(self) -> int:
        """Send SIGTERM and wait; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"the server did not end on SIGTERM:\n{self.log_path.read_text()[-4000:]}"
            ) from None


def new_user(db: Session, tenant: Tenant, role: str, *, seated: bool = True) -> User:
    """A user of that role, with a seat and the region of the tenant's stack unless they are to have none."""
    address = f"{role}-{next(_numbers)}-{os.getpid()}@example.com"
    user = User(tenant_id=tenant["tenant_id"], email=address, role=Role(role))
    db.add(user)
    db.flush()
    if seated:
        seat(db, tenant, user.id)
    return user


def seat(db: Session, tenant: Tenant, user_id: str) -> None:
    """Give a user a seat and the region of the tenant's stack."""
    of = {"tenant_id": tenant["tenant_id"], "user_id": user_id}
    stack = db.get_one(Stack, tenant["stack_id"])
    subscription = db.scalars(
        select(Subscription).where(
            Subscription.tenant_id == stack.tenant_id, Subscription.product_id == stack.product_id
        )
    ).one()
    db.add(Seat(**of, subscription_id=subscription.id))
    db.add(RegionAssignment(**of, region_id=stack.region_id))
    db.flush()


@contextmanager
def running(folder: Path, backend: str, settings: dict[str, str]) -> Iterator[Server]:
    """A server with a tenant and nothing else in it. It has to end in order, and with a clean log."""
    server = _start(folder, backend, settings)
    try:
        server.settle()
        yield server
    except BaseException:
        if server.process.poll() is None:
            server.stop()
        raise
    log_path = server.log_path
    assert server.process.poll() is None, f"the server ended by itself:\n{log_path.read_text()[-4000:]}"
    status = server.stop()
    assert status == 0, f"the server ended with status {status}:\n{log_path.read_text()[-4000:]}"
    assert not canary.in_files(log_path, server.data_dir / "mail")
    assert not server.faults(), f"{log_path} tells of faults:\n" + "\n".join(server.faults())[:8000]


@contextmanager
def started(folder: Path, backend: str, settings: dict[str, str]) -> Iterator[Server]:
    """The same for a test that stops, kills or restarts the server itself."""
    server = _start(folder, backend, settings)
    try:
        server.settle()
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
    assert not canary.in_files(server.log_path, server.data_dir / "mail")


def restart(server: Server) -> None:
    """Start a server that ended again, with the same data and address."""
    server.process = _process(server.url, server.log_path, server.environment)
    _wait_until_ready(server)


def _process(url: str, log_path: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    port = url.rpartition(":")[2]
    with log_path.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own program and arguments
            [BOOGA, "serve", "--port", port], env=environment, stdout=log, stderr=log, cwd=log_path.parent
        )


def _start(folder: Path, backend: str, settings: dict[str, str]) -> Server:
    data_dir, log_path = folder / "data", folder / "server.log"
    # Nothing of the developer's own settings may decide how a test ends.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOOGA_", "OPENAI_"))}
    url = f"http://127.0.0.1:{free_port()}"
    environment = {
        **kept,
        "BOOGA_DATA_DIR": str(data_dir),
        "BOOGA_PUBLIC_URL": url,
        "BOOGA_RATE_LIMIT_PER_MINUTE": "1000000",
        "BOOGA_TRUSTED_PROXIES": "127.0.0.1",  # tests come from many addresses: each may ask so often
        **settings,
    }
    if "BOOGA_DATABASE_URL" not in settings:
        lay(data_dir)
    server = Server(url, data_dir, log_path, environment, _process(url, log_path, environment), backend)
    try:
        _wait_until_ready(server)
    except BaseException:
        server.process.kill()
        server.process.wait()
        raise
    return server


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        while time.monotonic() < deadline and server.process.poll() is None:
            try:
                if client.get("/openapi.yaml").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)  # it is still starting, and listens last
    raise AssertionError(f"the server did not start:\n{server.log_path.read_text()[-4000:]}")

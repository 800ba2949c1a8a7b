"""Liveness, readiness, metrics and signing keys."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey

from storage import health
from storage.health import Finding, Part, Probe, Status
from tests.backends import free_port
from tests.contract import conformance
from tests.installed import until
from tests.servers import BOOGA, Server, running

PARTS = {"database", "migrations", "secrets", "vector_store", "embeddings", "provider", "disk", "jobs"}


def own_requests(server: Server) -> float:
    """How often ``/auth/me`` answered, as a worker tells that this connection reached."""
    with conformance.client(server.url, None) as anew:
        shown = anew.get("/metrics").text
    line = 'booga_requests_total{method="GET",operation="sign_in.me",status="200"} '
    return float(shown.partition(line)[2].partition("\n")[0])


class TestWhole:
    def test_it_lives(self, anonymous: httpx.Client) -> None:
        assert anonymous.get("/livez").json() == {"status": "ok"}

    def test_it_is_ready(self, server: Server, anonymous: httpx.Client) -> None:
        ready = anonymous.get("/readyz")
        assert ready.status_code == 200, ready.text
        checks = {check["name"]: check for check in ready.json()["checks"]}
        assert checks.keys() - {"redis"} == PARTS
        assert ("redis" in checks) == ("BOOGA_REDIS_URL" in server.environment)
        assert checks["database"]["detail"].lower() == server.backend
        assert {check["status"] for check in checks.values()} == {"ok"}

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
    def test_nobody_keeps_or_limits_it(self, anonymous: httpx.Client, path: str) -> None:
        answer = anonymous.get(path)
        assert answer.headers["cache-control"] == "no-store"
        assert "ratelimit" not in answer.headers
        assert anonymous.head(path).status_code == 200

    def test_metrics_tell_of_requests_and_of_nobody(self, server: Server, client: httpx.Client) -> None:
        client.get("/api/v1/auth/me").raise_for_status()
        before = {own_requests(server) for _ in range(10)}
        for _ in range(20):
            with conformance.client(server.url, server.api_key) as anew:  # any worker's
                assert anew.get("/api/v1/auth/me").status_code == 200
        assert {own_requests(server) for _ in range(10)} == {before.pop() + 20}
        assert not before
        shown = client.get("/metrics")
        assert shown.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert server.tenant["tenant_id"] not in shown.text
        assert server.tenant["user_id"] not in shown.text

    def test_the_keys_check_a_token(self, server: Server, anonymous: httpx.Client) -> None:
        body = {"email": server.tenant["email"], "password": server.tenant["password"]}
        token = anonymous.post("/api/v1/auth/login", json=body).json()["access_token"]
        keys = anonymous.get("/.well-known/jwks.json").json()["keys"]
        public = KeySet([OKPKey.import_key(key) for key in keys])
        claims = jwt.decode(token, public, algorithms=["Ed25519"]).claims
        assert claims["sub"] == server.tenant["user_id"]

    def test_a_new_key_stands_beside_the_old_one(self, server: Server, anonymous: httpx.Client) -> None:
        body = {"email": server.tenant["email"], "password": server.tenant["password"]}
        token = anonymous.post("/api/v1/auth/login", json=body).json()["access_token"]
        before = kids(anonymous)
        server.booga("rotate-keys")
        deadline = time.monotonic() + 10
        while len(after := kids(anonymous)) == len(before):
            assert time.monotonic() < deadline
            time.sleep(0.1)  # a worker reads the keys at most once in a second
        assert after[1:] == before
        me = anonymous.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
        assert me.status_code == 200

    def test_the_doctor_is_content(self, server: Server) -> None:
        told = {line.split()[1] for line in server.booga("doctor").splitlines()}
        assert told - {"redis"} == PARTS


def kids(client: httpx.Client) -> list[str]:
    return [key["kid"] for key in client.get("/.well-known/jwks.json").json()["keys"]]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose Chroma server and Redis are away and that was told to do without embeddings."""
    given = {
        "BOOGA_CHROMA_URL": f"http://127.0.0.1:{free_port()}",
        "BOOGA_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "BOOGA_EMBEDDINGS": "none",
    }
    with running(tmp_path_factory.mktemp("broken"), "sqlite", given) as made:
        yield made


class TestBroken:
    def test_it_is_ready_to_serve_with_less(self, broken: Server) -> None:
        with conformance.client(broken.url, None) as client:
            answer = client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json()["status"] == "degraded"
        statuses = {check["name"]: check["status"] for check in answer.json()["checks"]}
        assert {name for name, status in statuses.items() if status == "down"} == {"vector_store", "redis"}
        assert statuses["embeddings"] == "degraded"

    def test_without_what_it_needs_it_lives_but_is_not_ready(self, broken: Server) -> None:
        with closing(sqlite3.connect(broken.data_dir / "booga.db", isolation_level=None)) as other:
            (head,) = other.execute("SELECT version_num FROM alembic_version").fetchone()
            other.execute("UPDATE alembic_version SET version_num = 'another'")
            try:
                with conformance.client(broken.url, broken.api_key) as client:
                    assert client.get("/livez").status_code == 200
                    until(lambda: client.get("/readyz").status_code == 503)
                    answer = client.get("/readyz")
                    health = client.get("/api/v1/chat/health")
            finally:
                other.execute("UPDATE alembic_version SET version_num = ?", (head,))
        assert answer.json()["status"] == "down"
        statuses = {check["name"]: check["status"] for check in answer.json()["checks"]}
        assert statuses["migrations"] == "down"
        assert (health.status_code, health.json()["success"]) == (503, False)
        assert "migrations" in health.json()["detail"]
        assert "vector_store" not in health.json()["detail"]
        assert {check["name"] for check in health.json()["meta"]["checks"]} == PARTS | {"redis"}

    @pytest.mark.parametrize("path", ["/api/v1/chat/health", "/api/v1/chat/bots/health"])
    def test_health_says_the_same(self, broken: Server, path: str) -> None:
        with conformance.client(broken.url, broken.api_key) as client:
            # What the test before broke is remembered for a second.
            until(lambda: client.get(path).status_code == 200)
            told = client.get(path).json()["data"]
        assert told["status"] == "degraded"
        down = {check["name"] for check in told["checks"] if check["status"] == "down"}
        assert down == {"vector_store", "redis"}

    def test_the_doctor_tells(self, broken: Server) -> None:
        done = subprocess.run(  # noqa: S603 - our own program
            [BOOGA, "doctor"], env=broken.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert "down      vector_store  server Chroma: no answer (ConnectError)" in done.stdout
        assert "keywords alone" in done.stdout
        assert done.stderr == ""


class TestProbe:
    def test_a_part_that_raises_is_down(self) -> None:
        def look() -> Finding:
            raise OSError("a path that is nobody's business")

        found = asyncio.run(Probe("disk", look).ask())
        assert (found.status, found.detail) == (Status.DOWN, "no answer (OSError)")

    def test_a_part_that_hangs_is_down_and_looked_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(health, "PATIENCE", 0.05)
        looks, end = [], threading.Event()

        def look() -> Finding:
            looks.append(1)
            end.wait()
            return Status.OK, "at last"

        async def ask() -> list[Part]:
            probe = Probe("database", look)
            found = [*await asyncio.gather(probe.ask(), probe.ask()), await probe.ask()]
            end.set()
            monkeypatch.setattr(health, "PATIENCE", 30.0)
            return [*found, await probe.ask()]

        *hanging, at_last = asyncio.run(ask())
        assert {part.status for part in hanging} == {Status.DOWN}
        assert (at_last.status, at_last.detail) == (Status.OK, "at last")
        assert len(looks) == 1

    def test_an_answer_is_remembered_for_a_moment(self) -> None:
        looks: list[int] = []

        def look() -> Finding:
            looks.append(1)
            return Status.OK, f"look {len(looks)}"

        async def ask(remembered: float) -> list[str]:
            probe = Probe("jobs", look, remembered)
            return [(await probe.ask()).detail for _ in range(2)]

        assert asyncio.run(ask(60)) == ["look 1", "look 1"]
        assert asyncio.run(ask(0)) == ["look 2", "look 3"]

    @pytest.mark.parametrize(
        ("statuses", "worst"),
        [
            ([Status.OK, Status.OK], Status.OK),
            ([Status.OK, Status.DEGRADED], Status.DEGRADED),
            ([Status.DOWN, Status.DEGRADED], Status.DOWN),
        ],
    )
    def test_the_whole_is_as_the_worst(self, statuses: list[Status], worst: Status) -> None:
        assert health.overall([Part("disk", status, "") for status in statuses]) is worst

"""Backing up and restoring, with the command line as its host uses it."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from handlers.commands import make_tenant
from models.access import ApiKey
from models.errors import Conflict
from models.tenancy import Tenant
from storage import backups, database, files
from storage.database import platform
from storage.settings import settings
from tests.backends import SECRET, Backend
from tests.conftest import MakesClient, _forget_installation
from tests.handlers import knowledge
from tests.servers import BOOGA, PASSWORD, Server, restart, started

SESSIONS = "/api/v1/chat/sessions"
MADE_ANEW = {"rows/documents.jsonl", "rows/jobs.jsonl", "rows/audit_entries.jsonl", "secret.key"}
OTHER_SECRET = "another secret that is long enough to be taken as one"


def sums(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as opened:
        manifest = opened.extractfile("manifest.json")
        assert manifest is not None
        found: dict[str, str] = json.load(manifest)["sha256"]
    return found


def elsewhere(server: Server, folder: Path, backend: Backend) -> None:
    """From here on the server is an installation with nothing in it, at the same address."""
    server.data_dir = folder
    server.environment = {**server.environment, "BOOGA_DATA_DIR": str(folder), **backend.fresh(bare=True)}


def seen(client: httpx.Client, session: str, index: str) -> list[Any]:
    answers = [
        client.get(path) for path in (SESSIONS, session, f"{session}/messages", "/api/v1/tenants/users")
    ]
    answers.append(client.get(f"{knowledge.BASE}/indices/{index}"))
    assert {answer.status_code for answer in answers} == {200}
    return [answer.json() for answer in answers]


def found(client: httpx.Client, index: str, mode: str) -> list[str]:
    body = {"query": "lamp inventories", "mode": mode, "index_ids": [index], "score_threshold": 0}
    answer = client.post(f"{knowledge.BASE}/search", json=body)
    assert answer.status_code == 200, answer.text
    return [hit["document_id"] for hit in answer.json()["results"]]


def test_a_server_comes_back_elsewhere(backend: Backend, tmp_path: Path, connect: MakesClient) -> None:
    archive = tmp_path / "backup.tar"
    with started(tmp_path, backend.name, backend.fresh()) as server:
        client = connect(server.api_key, server)
        index = knowledge.make(client, "indices")["id"]
        knowledge.persona(client, server, indices=[index])
        document = knowledge.ready(client, index)
        session = f"{SESSIONS}/{client.post(SESSIONS, json={}).json()['id']}"
        asked = client.post(f"{session}/messages", json={"content": "What were the lamp inventories?"})
        assert asked.is_success, asked.text
        before = seen(client, session, index)
        assert server.booga("backup", str(archive)).endswith("vectors are not.\n")
        assert stat.S_IMODE(archive.stat().st_mode) == 0o600
        server.stop()

        elsewhere(server, tmp_path / "elsewhere", backend)
        told = server.booga("restore", str(archive))
        assert "2 originals are restored.\n2 documents get new vectors" in told
        again = tmp_path / "again.tar"
        server.booga("backup", str(again))
        first, second = sums(archive), sums(again)
        assert {name for name in first if first[name] != second.get(name)} <= MADE_ANEW
        assert ("secret.key" in first) == (backend.name == "sqlite")
        assert first.get("secret.key") == second.get("secret.key")

        restart(server)
        assert seen(client, session, index) == before
        assert found(client, index, "keyword")[0] == document["id"]
        path = f"{knowledge.BASE}/documents/{document['id']}"
        settled = knowledge.settled(client, path)
        assert (settled["status"], settled["chunk_count"]) == ("ready", document["chunk_count"])
        assert found(client, index, "vector")[0] == document["id"]
        assert client.get(f"{path}/content").content[:5] == b"%PDF-"
        assert not server.faults()


@pytest.fixture
def archive(migrated: None, tmp_path: Path) -> Path:
    """A backup of an installation with one tenant."""
    make_tenant("Tenant A", "owner@example.com", PASSWORD)
    backups.backup(tmp_path / "backup.tar")
    return tmp_path / "backup.tar"


def refusal(backend: Backend, archive: Path, folder: Path, **more: str) -> str:
    """Why an empty installation does not take it. It has to be empty afterwards."""
    environment = {**_environment(), "BOOGA_DATA_DIR": str(folder), **backend.fresh(bare=True), **more}
    done = _booga(environment, "restore", str(archive))
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert {path.name for path in folder.iterdir()} <= {"secret.key"}
    return done.stderr


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("BOOGA_", "OPENAI_"))}


def _booga(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program and arguments
        [BOOGA, *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


def test_what_is_not_whole_is_refused(backend: Backend, archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    folder = tmp_path / "elsewhere"

    archive.write_bytes(whole.replace(b"owner@example.com", b"other@example.com", 1))
    assert "in the archive is damaged" in refusal(backend, archive, folder)
    for end in (0, 1000, len(whole) // 2 // 512 * 512, len(whole) // 2 + 7):
        archive.write_bytes(whole[:end])
        assert "is not a whole backup" in refusal(backend, archive, folder), end
    archive.write_bytes(whole.replace(b'"revision": "0', b'"revision": "9', 1))
    assert "was made at revision 9" in refusal(backend, archive, folder)
    archive.write_bytes(whole)
    assert "BOOGA_SECRET_KEY" in refusal(backend, archive, folder, BOOGA_SECRET_KEY=OTHER_SECRET)
    assert "cannot be used" in refusal(backend, tmp_path / "none.tar", folder)


def test_what_is_not_empty_is_refused(archive: Path) -> None:
    with pytest.raises(Conflict, match="database is not empty: there are rows in"):
        backups.restore(archive)
    (settings().data_dir / "files").mkdir()
    with pytest.raises(Conflict, match=r"data folder .* is not empty: it has files"):
        backups.restore(archive)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_sqlite_moves_to_postgresql(backend: Backend, migrated: None, tmp_path: Path) -> None:
    environment = {**_environment(), "BOOGA_DATA_DIR": str(tmp_path / "data"), "BOOGA_SECRET_KEY": SECRET}
    made = _booga(
        environment,
        "bootstrap",
        "--tenant",
        "T",
        "--email",
        "o@example.com",
        "--password",
        PASSWORD,
        "--json",
    )
    assert _booga(environment, "backup", str(tmp_path / "backup.tar")).returncode == 0
    assert backups.restore(tmp_path / "backup.tar").rows > 10
    tenant = json.loads(made.stdout)
    with platform() as db:
        assert db.scalars(select(Tenant.id).where(Tenant.name == "T")).one() == tenant["tenant_id"]
        assert db.scalars(select(ApiKey.user_id)).all() == [tenant["user_id"]]


def test_a_full_disk_leaves_nothing(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = archive.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.DiskFull):
        backups.backup(archive)
    assert archive.read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]


def test_what_was_restored_goes_when_the_rest_cannot_be(
    backend: Backend, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = settings().secret_keys[0]
    folder = settings().data_dir
    (folder / "icons").mkdir()
    (folder / "icons" / "looks.png").write_bytes(b"an icon")
    backups.backup(archive)
    assert "icons/looks.png" in sums(archive)
    new = tmp_path / "elsewhere"
    given = {"BOOGA_SECRET_KEY": secret, **backend.fresh(bare=True), "BOOGA_DATA_DIR": str(new)}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    database.engine().dispose()
    _forget_installation()

    def full(db: Any) -> int:
        assert (new / "icons" / "looks.png").exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(backups, "_settle", full)
        with pytest.raises(files.DiskFull):
            backups.restore(archive)
    assert not (new / "icons").exists()
    with platform() as db:
        assert db.scalar(select(Tenant.id)) is None
    assert backups.restore(archive).rows > 10
    assert (new / "icons" / "looks.png").read_bytes() == b"an icon"

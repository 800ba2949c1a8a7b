"""Keeping an installation in order, with the command line as its host uses it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import InvalidToken
from sqlalchemy import delete, select, update

from models.access import SigningKey
from models.base import new_id
from models.knowledge.library import Document, Posting
from storage import secrets, tokens, upkeep, vectors
from storage.database import platform
from storage.settings import settings
from tests.backends import Backend
from tests.conftest import MakesClient
from tests.handlers import knowledge
from tests.servers import BOOGA, Server, restart, started

NEWER = "a-newer-secret-of-more-than-32-characters"


def verify(server: Server, *options: str) -> tuple[int, str]:
    return booga(server, "verify", *options)


def booga(server: Server, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(  # noqa: S603 - our own program and arguments
        [BOOGA, *arguments], env=server.environment, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def test_verify_tells_each_difference_and_repair_mends_it(
    backend: Backend, tmp_path: Path, connect: MakesClient
) -> None:
    with started(tmp_path, backend.name, backend.fresh()) as server:
        client = connect(server.api_key, server)
        index = knowledge.make(client, "indices")
        documents = [knowledge.ready(client, index["id"]) for _ in range(3)]
        server.stop()
        assert verify(server) == (0, "SQL, files, keywords and vectors agree.\n")

        with server.database() as db:
            db.execute(delete(Posting).where(Posting.document_id == documents[0]["id"]))
            fewer = update(Document).where(Document.id == documents[1]["id"])
            db.execute(fewer.values(vector_count=documents[1]["vector_count"] + 1))
            db.execute(delete(Document).where(Document.id == documents[2]["id"]))
        stray = server.data_dir / "files" / server.tenant["tenant_id"] / "aa" / ("aa" * 32)
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"nobody's")
        status, told = verify(server)
        assert status == 1
        assert f"keywords missing: {documents[0]['id']}" in told
        assert f"vectors differ: {documents[1]['id']}" in told
        assert f"vectors of no document: {documents[2]['id']}" in told
        assert f"file of no document: {stray}" in told

        status, told = verify(server, "--repair")
        assert status == 1
        assert not stray.exists()
        restart(server)
        for document in documents[:2]:
            again = knowledge.settled(client, f"{knowledge.BASE}/documents/{document['id']}")
            assert (again["status"], again["vector_count"]) == ("ready", document["vector_count"])
        server.stop()
        assert verify(server)[0] == 0
        # The canary's own was planted without vectors.
        assert booga(server, "reindex") == (
            0,
            "1 documents will be indexed anew by the server or a worker\n",
        )
        assert booga(server, "reindex", "--everything")[1].startswith("2 documents")
        restart(server)
        for document in documents[:2]:
            again = knowledge.settled(client, f"{knowledge.BASE}/documents/{document['id']}")
            assert (again["status"], again["vector_count"]) == ("ready", document["vector_count"])


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_what_others_keep_on_the_chroma_server_stays(
    backend: Backend, client: httpx.Client, migrated: None
) -> None:
    index = knowledge.make(client, "indices")["id"]
    document = knowledge.ready(client, index)
    assert any(document["id"] in held for held in vectors.holdings().values())
    with platform(writes=False) as db:
        assert list(upkeep.differences(db)) == []


def test_secrets_are_sealed_again_with_the_newest(migrated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens.make_access_token(new_id(), new_id(), new_id())
    with platform() as db:
        before = db.scalars(select(SigningKey.private_key)).all()
    assert before
    old = settings().secret_keys[0]
    monkeypatch.setenv("BOOGA_SECRET_KEY", f"{NEWER},{old}")
    settings.cache_clear()
    secrets._fernet.cache_clear()
    assert upkeep.reseal() == len(before)
    monkeypatch.setenv("BOOGA_SECRET_KEY", NEWER)
    settings.cache_clear()
    secrets._fernet.cache_clear()
    with platform() as db:
        after = db.scalars(select(SigningKey.private_key)).all()
    for sealed in after:
        assert secrets.unseal(sealed)
    with pytest.raises(InvalidToken):
        secrets.unseal(before[0])

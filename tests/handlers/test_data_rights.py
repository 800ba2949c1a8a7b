"""A tenant's archive and a person's erasure over HTTP."""

from __future__ import annotations

import io
import json
import time
import uuid
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from models.audit import AuditEntry
from models.chat.analytics import UsageHour
from models.chat.conversations import ChatMessage, ChatSession
from models.exports import TenantExport, is_exported
from models.knowledge.library import Chunk, Document
from models.tenancy import User
from models.work import IdempotencyRecord
from storage import database
from tests.conftest import MakesClient
from tests.handlers import knowledge
from tests.handlers.test_bots import picture
from tests.servers import Server, Tenant

EXPORTS = "/api/v1/tenants/exports"
CHAT = "/api/v1/chat"
WITHIN = 60.0


def wait_for(holds: Callable[[], Any]) -> Any:
    """What a job has done, sooner or later."""
    deadline = time.monotonic() + WITHIN
    while not (found := holds()):
        assert time.monotonic() < deadline, "the job did not come to its end"
        time.sleep(0.1)  # a job is at work
    return found


def holding(server: Server, word: str) -> list[Path]:
    """Files of the data folder in whose name or content the word stands."""
    found = []
    for path in server.data_dir.rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError):  # a journal comes and goes while we look
            if word in str(path) or word.encode() in path.read_bytes():
                found.append(path)
    return found


def export(client: httpx.Client) -> dict[str, Any]:
    asked = client.post(EXPORTS)
    assert asked.status_code == 202, asked.text
    at = asked.headers["Location"]

    def ended() -> dict[str, Any] | None:
        now: dict[str, Any] = client.get(at).json()
        return now if now["status"] in ("ready", "failed") else None

    done: dict[str, Any] = wait_for(ended)
    assert done["status"] == "ready", done
    return done


def archive_of(client: httpx.Client) -> zipfile.ZipFile:
    made = export(client)
    response = client.get(f"{EXPORTS}/{made['id']}/download")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    assert len(response.content) == made["size"]
    rest = client.get(
        response.request.url, headers={"Range": "bytes=9-", "If-Range": response.headers["etag"]}
    )
    assert (rest.status_code, rest.content) == (206, response.content[9:])
    return zipfile.ZipFile(io.BytesIO(response.content))


def test_an_archive_holds_everything_of_the_tenant_and_no_secret(
    client: httpx.Client, other: httpx.Client, server: Server
) -> None:
    index = knowledge.make(client, "indices")
    document = knowledge.upload(client, index["id"]).json()
    session = client.post(f"{CHAT}/sessions", json={"title": "Kept", "stack_id": server.tenant["stack_id"]})
    icon = client.post(f"{CHAT}/bots/icons/upload", files={"file": ("icon.png", picture(), "image/png")})
    archive = archive_of(client)
    assert archive.testzip() is None
    manifest = json.loads(archive.read("manifest.json"))
    tables = {name: json.loads(archive.read(name)) for name in manifest["data"]}
    assert {name: len(rows) for name, rows in tables.items()} == manifest["data"]
    assert session.json()["id"] in {row["id"] for row in tables["data/chat_sessions.json"]}
    assert {row["tenant_id"] for rows in tables.values() for row in rows if "tenant_id" in row} == {
        server.tenant["tenant_id"]
    }
    (place,) = [name for name in manifest["files"] if document["id"] in name]
    original = client.get(f"{CHAT}/knowledge/documents/{document['id']}/content").content
    assert archive.read(place) == original
    assert archive.read(f"icons/{icon.json()['url'].rpartition('/')[2]}")
    named = {row["id"] for row in tables["data/products.json"] + tables["data/regions.json"]}
    assert {row[of] for row in tables["data/stacks.json"] for of in ("product_id", "region_id")} <= named
    columns = {column for rows in tables.values() for row in rows for column in row}
    assert not columns & {"password_hash", "key_hash", "previous_hash", "sealed_key", "sealed_secret", "seed"}
    assert all(map(is_exported, ("prompt_tokens", "first_token_ms", "daily_token_budget")))
    assert not any(map(is_exported, ("token_hash", "token")))
    assert other.get(f"{EXPORTS}/{uuid.uuid4()}").status_code == 404


def test_an_archive_is_the_tenants_alone_and_expires(
    client: httpx.Client, other: httpx.Client, server: Server
) -> None:
    made = export(client)
    for path in (made["id"], f"{made['id']}/download"):
        assert other.get(f"{EXPORTS}/{path}").status_code == 404
    (file,) = (server.data_dir / "exports").rglob(f"{made['id']}.zip")
    with server.database() as db:
        row = db.get_one(TenantExport, made["id"])
        row.expires_at = row.created_at
    assert client.get(f"{EXPORTS}/{made['id']}").json()["status"] == "expired"
    assert client.get(f"{EXPORTS}/{made['id']}/download").status_code == 404
    assert not file.exists()


@pytest.fixture
def person(server: Server, other_tenant: Tenant) -> str:
    """The key of an administrator with something to forget."""
    return server.issue_key(role="admin")


def test_an_erased_person_is_in_no_file_of_the_data_folder(
    client: httpx.Client, connect: MakesClient, person: str, server: Server
) -> None:
    marker = f"zq{uuid.uuid4().hex}"
    theirs = connect(person)
    me = theirs.get("/api/v1/auth/me").json()
    assert theirs.patch("/api/v1/auth/me", json={"name": f"Person {marker}"}).status_code == 200
    session = theirs.post(
        f"{CHAT}/sessions",
        json={"title": f"About {marker}", "stack_id": server.tenant["stack_id"]},
        headers={"Idempotency-Key": marker},
    ).json()
    uploaded = theirs.post(
        f"{CHAT}/files",
        data={"session_id": session["id"]},
        files={"file": (f"{marker}.txt", f"The code word is {marker}.\n".encode(), "text/plain")},
    ).json()["data"]
    wait_for(lambda: theirs.get(f"{CHAT}/files/{uploaded['id']}").json()["data"]["status"] == "ready")
    asked = theirs.post(f"{CHAT}/sessions/{session['id']}/messages", json={"content": f"What of {marker}?"})
    assert asked.status_code == 201
    archive = export(client)
    exported = {"action": "export", "ids": [session["id"]]}
    others = {"Idempotency-Key": uuid.uuid4().hex}
    assert marker in client.post(f"{CHAT}/sessions/bulk", json=exported, headers=others).text
    with server.database() as db:
        db.add(
            AuditEntry(
                tenant_id=server.tenant["tenant_id"],
                actor_kind="user",
                actor_id=me["id"],
                action="update",
                object_type="user",
                object_id=me["id"],
                address="192.0.2.55",
            )
        )
    forgot = {"X-Request-ID": f"forgot-{uuid.uuid4().hex}"}
    asked = theirs.post("/api/v1/auth/password/reset", json={"email": me["email"]}, headers=forgot)
    assert asked.status_code == 202

    def address_of_who_forgot() -> list[str]:
        with server.database() as db:
            told = AuditEntry.request_id == forgot["X-Request-ID"]
            return list(db.scalars(select(AuditEntry.address).where(told)))

    assert wait_for(address_of_who_forgot) == ["127.0.0.1"]
    mail = server.data_dir / "mail"
    mail.mkdir(exist_ok=True)
    letter = mail / f"{marker}-{server.tenant['tenant_id']}.eml"
    letter.write_text(f"To: {me['email']}\n\nDear {marker}\n")
    neighbours = [mail / f"1-{server.tenant['tenant_id']}.eml", mail / f"2-{uuid.uuid4()}.eml"]
    neighbours[0].write_text(f"To: x{me['email']}\n\nSomebody else\n")
    neighbours[1].write_text(f"To: {me['email']}\n\nFrom another tenant\n")

    erased = client.post(f"/api/v1/tenants/users/{me['id']}/erase")
    assert (erased.status_code, erased.json()["status"]) == (202, "queued")
    assert erased.headers["Location"].endswith(me["id"])
    assert theirs.get("/api/v1/auth/me").status_code == 401

    def gone() -> bool:
        with server.database() as db:
            return db.get(User, me["id"]) is None

    wait_for(gone)
    with server.database() as db:
        assert db.get(ChatSession, session["id"]) is None
        for entity, column in (
            (Document, Document.session_id == session["id"]),
            (Chunk, Chunk.document_id == uploaded["id"]),
            (ChatMessage, ChatMessage.session_id == session["id"]),
            (IdempotencyRecord, IdempotencyRecord.key == marker),
        ):
            assert not db.scalar(select(func.count()).select_from(entity).where(column))
        assert db.scalar(select(func.count()).where(UsageHour.user_id == me["id"]))
        assert set(db.scalars(select(AuditEntry.address).where(AuditEntry.actor_id == me["id"]))) == {""}
    assert address_of_who_forgot() == [""]
    assert not letter.exists()
    assert all(kept.exists() for kept in neighbours)
    assert client.get(f"{EXPORTS}/{archive['id']}").json()["status"] == "expired"

    wait_for(lambda: not holding(server, marker))


def test_what_others_were_answered_about_a_person_is_forgotten_with_it(
    client: httpx.Client, server: Server
) -> None:
    marker = f"zq{uuid.uuid4().hex}"
    invited = {"email": f"{marker}@example.com", "role": "member", "name": f"Person {marker}"}
    again, url = {"Idempotency-Key": uuid.uuid4().hex}, "/api/v1/tenants/users"
    first = client.post(url, json=invited, headers=again).json()
    assert client.post(url, json=invited, headers=again).json() == first
    erasure, once = f"{url}/{first['id']}/erase", {"Idempotency-Key": uuid.uuid4().hex}
    promised = client.post(erasure, headers=once)
    assert promised.status_code == 202
    wait_for(lambda: client.get(f"{url}/{first['id']}").status_code == 404)
    wait_for(lambda: not holding(server, marker))
    repeated = client.post(erasure, headers=once)
    assert (repeated.headers["Idempotent-Replayed"], repeated.json()) == ("true", promised.json())
    anew = client.post(url, json=invited, headers=again)
    assert (anew.status_code, "Idempotent-Replayed" in anew.headers) == (201, False)


def test_the_last_owner_stays_and_only_owners_erase_owners(
    client: httpx.Client, connect: MakesClient, person: str, server: Server
) -> None:
    invited = {"email": f"{uuid.uuid4().hex}@example.com", "role": "owner"}
    assert client.post("/api/v1/tenants/users", json=invited).status_code == 201  # who can save nobody yet
    at = f"/api/v1/tenants/users/{server.tenant['user_id']}/erase"
    assert client.post(at).status_code == 409
    assert connect(person).post(at).status_code == 403
    assert client.get("/api/v1/auth/me").status_code == 200


def test_a_deleted_tenant_is_in_no_table_and_in_no_file_of_the_data_folder(
    connect: MakesClient, operator_key: str, server: Server
) -> None:
    marker = f"zq{uuid.uuid4().hex}"
    tenant = server.bootstrap(f"Company {marker}", email=f"{marker}@example.com")
    owner, operator = connect(tenant["api_key"]), connect(operator_key)
    text = f"The code word of the harbour is {marker}.\n"
    index = knowledge.make(owner, "indices", name=f"Index {marker}")
    knowledge.ready(owner, index["id"], text.encode(), file_name=f"{marker}.txt")
    persona = owner.get(f"{CHAT}/personas").json()["results"][0]["id"]
    settings = {"accessible_index_ids": [index["id"]], "system_prompt": marker}
    assert owner.patch(f"{CHAT}/personas/{persona}", json=settings).status_code == 200
    session = owner.post(f"{CHAT}/sessions", json={"title": marker}, headers={"Idempotency-Key": marker})
    url = f"{CHAT}/sessions/{session.json()['id']}"
    asked = owner.post(f"{url}/messages", json={"content": f"What is {marker}, the harbour's code word?"})
    assert marker in asked.json()["citations"][0]["quote"]
    rated = {"rating": "helpful", "comment": marker}
    assert owner.put(f"{url}/messages/{asked.json()['id']}/feedback", json=rated).status_code == 200
    file = (f"own-{marker}.txt", text.encode(), "text/plain")
    to = {"session_id": session.json()["id"]}
    uploaded = owner.post(f"{CHAT}/files", data=to, files={"file": file}).json()["data"]
    assert knowledge.settled(owner, f"{CHAT}/files/{uploaded['id']}")["status"] == "ready"
    icon = owner.post(f"{CHAT}/bots/icons/upload", files={"file": ("icon.png", picture(), "image/png")})
    assert icon.status_code == 201
    assert owner.post(f"{CHAT}/bots", json={"name": marker, "persona_id": persona}).status_code == 201
    invited = {"email": f"guest-{marker}@example.com", "role": "member"}
    assert owner.post("/api/v1/tenants/users", json=invited).status_code == 201
    export(owner)

    letters = server.data_dir / "mail"
    wait_for(lambda: any(marker in path.read_text() for path in letters.glob("*.eml")))
    kept = {path.relative_to(server.data_dir).parts[0] for path in holding(server, tenant["tenant_id"])}
    assert {"files", "exports", "icons", "mail"} <= kept, "what the deletion has to remove"
    at = f"/api/v1/tenants/{tenant['tenant_id']}"
    assert operator.patch(at, json={"is_active": False}).status_code == 200
    assert operator.delete(at).status_code == 204

    def rows() -> dict[str, int]:
        counted = {}
        with server.database() as db:
            for table in database.tables():
                if "tenant_id" in table.c:
                    query = select(func.count()).where(table.c.tenant_id == tenant["tenant_id"])
                    counted[table.name] = db.execute(query).scalar_one()
        return {name: count for name, count in counted.items() if count}

    assert rows() == {}
    wait_for(lambda: not holding(server, marker))
    folders = [place for place in server.data_dir.rglob(f"*{tenant['tenant_id']}*") if place.is_dir()]
    assert folders == []

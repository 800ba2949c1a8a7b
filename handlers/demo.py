"""The demo: a tenant that can be asked about a small annual report and a workbook, made once."""

from __future__ import annotations

import secrets as random
import time

from sqlalchemy import select

from handlers import auth, personas
from handlers.commands import make_tenant
from handlers.jobs import KINDS
from models.access import ApiKey, Caller, effective_scopes
from models.base import now
from models.knowledge.library import Document, IngestStatus, KnowledgeIndex
from models.personas import Persona
from models.tenancy import User
from storage import demo, files, identity, library, queue, vectors
from storage.database import Session, platform, reading, transaction
from storage.demo import Note
from storage.parsing import MEDIA_TYPES
from storage.secrets import hash_password

COMPANY = "Tarnwick Pumps plc"
EMAIL = "owner@tarnwick.example"
PERSONA = "analyst"
"""The slug of the persona that has read the documents: the demo's model at the OpenAI-compatible door."""
INDEX = "Tarnwick Pumps"
READ_WITHIN = 120.0
"""Seconds for which the start waits for the documents; the server goes on with what is left."""

_SETTLED = (IngestStatus.READY, IngestStatus.FAILED)


def make() -> None:
    """Have the demo, each part of it once, and its note kept.

    A start that was cut off is taken up where it ended. What the owner has deleted since stays deleted; a
    key that is no longer good is replaced.
    """
    note = demo.note()
    caller = identity.caller_of(note["api_key"]) if note else None
    if caller is None:
        note = {**note, **_enter(), "model": PERSONA}
        demo.keep(note)
        caller = identity.caller_of(note["api_key"])
    if caller is None:
        raise RuntimeError("a key that was just made is not good")
    if "index_id" not in note:
        index_id = _furnish(caller)
        _have_read(caller, index_id)
        demo.keep({**note, "index_id": index_id})


def _enter() -> Note:
    """A key and a password of the demo's owner, who is made with the tenant if there is none yet."""
    password = random.token_urlsafe(12)
    with platform() as db:
        owner = db.scalar(select(User).where(User.email == EMAIL, User.password_hash.is_not(None)))
        if owner is None:
            key = make_tenant(COMPANY, EMAIL, password)["api_key"]
        else:
            owner.password_hash = hash_password(password)
            owner.updated_at = now()
            key = _another_key(db, owner)
    return {"api_key": key, "email": EMAIL, "password": password}


def _another_key(db: Session, owner: User) -> str:
    scopes = effective_scopes(owner.role, None)
    key, secret = ApiKey.issue(user_id=owner.id, role=owner.role, name="demo", scopes=scopes)
    key.tenant_id = owner.tenant_id
    db.put(key)
    return secret


def _furnish(caller: Caller) -> str:
    """The index with both documents, and the default persona as one that reads it; the index's id."""
    auth.bind(caller)
    with transaction(caller) as db:
        index = db.scalar(select(KnowledgeIndex).where(KnowledgeIndex.name == INDEX))
        index = index or db.put(KnowledgeIndex(name=INDEX, description=f"What {COMPANY} publishes."))
        for path in (demo.REPORT, demo.WORKBOOK):
            with path.open("rb") as source, files.receiving(caller, source) as incoming:
                library.add_document(
                    db,
                    incoming,
                    name=path.name,
                    media_type=MEDIA_TYPES[path.suffix[1:]],
                    index_id=index.id,
                    user_id=caller.user_id,
                )
        persona = db.scalars(select(Persona).where(Persona.is_default)).one()
        if persona.slug != PERSONA:
            reads = {"name": "Analyst", "slug": PERSONA, "accessible_index_ids": [index.id]}
            personas.update(persona.id, reads)
        return index.id


def _have_read(caller: Caller, index_id: str) -> None:
    """Run the jobs here until the documents can be asked about."""
    if not _unread(caller, index_id):
        return
    vectors.prepare()  # meanwhile the documents are read
    runner = queue.Runner(KINDS)
    runner.start(patient=False)
    try:
        deadline = time.monotonic() + READ_WITHIN
        while _unread(caller, index_id) and time.monotonic() < deadline:
            time.sleep(0.05)  # the table is all that tells of a job's end
    finally:
        runner.stop(3.0)
        vectors.close()


def _unread(caller: Caller, index_id: str) -> bool:
    waiting = select(Document.id).where(Document.index_id == index_id, Document.status.not_in(_SETTLED))
    with reading(caller) as db:
        return db.scalar(waiting.limit(1)) is not None

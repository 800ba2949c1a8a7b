"""A person is forgotten, however often the server falls meanwhile."""

from __future__ import annotations

import structlog

from models.errors import Conflict, Unavailable
from storage import erasure, library
from storage.queue import Work

log = structlog.get_logger("booga.erase")


def run(work: Work) -> None:
    """Forget conversations, then the person, then what the database's log still holds."""
    try:
        while erasure.forget_conversations(work, work.subject_id):
            work.go_on()
    except Conflict as running:
        raise Unavailable("A reply of this person is still being written.") from running
    erasure.forget_person(work, work.subject_id)
    if not library.compact():
        raise Unavailable("A reader still holds an old state of the database.")


def bury(work: Work) -> None:
    """The person can no longer sign in, and stays listed, so that somebody asks again."""
    log.error("a person was not erased", tenant=work.tenant_id, user=work.subject_id)

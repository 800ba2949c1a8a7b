"""What a deleted document leaves outside of SQL is removed after the fact, however often the server falls."""

from __future__ import annotations

from models.errors import Unavailable
from storage import library
from storage.queue import Work


def run(work: Work) -> None:
    """Remove its vectors and its file; come back while somebody still reads what was deleted."""
    if not library.forget_rest(work, work.subject_id, work.details):
        raise Unavailable("A reader still holds an old state of the database.")


def bury(work: Work) -> None:
    """Nobody is left to be told: the document is gone, and ``verify`` finds what stayed behind."""

"""What a deleted tenant leaves outside of SQL is removed after the fact, however often the server falls."""

from __future__ import annotations

import shutil

from models.errors import Unavailable
from storage import exports, files, icons, library, mail, vectors
from storage.queue import Work


def run(work: Work) -> None:
    """Remove its vectors, files, archives, icons and mails; come back while somebody still reads what was
    deleted.
    """
    vectors.drop_all(work.subject_id)
    for place in (files, exports, icons):
        folder = place.folder_of(work.subject_id)
        if folder.exists():
            shutil.rmtree(folder)
    mail.forget(work.subject_id)
    if not library.compact():
        raise Unavailable("A reader still holds an old state of the database.")


def bury(work: Work) -> None:
    """Nobody is left to be told: the tenant is gone, and ``verify`` finds what stayed behind."""

"""Originals on disk: whole or not there, one for each content, for their owner's eyes alone."""

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import TooLarge, Unavailable
from models.knowledge.library import Document
from storage import files
from storage.database import Session, transaction
from storage.settings import settings
from tests.installed import Of, new_index, new_tenant

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def kept(*of: Of) -> list[Path]:
    root = settings().data_dir / "files"
    folders = [root / tenant.tenant_id for tenant in of] + [root / ".incoming"]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def keep(of: Of, index_id: str, content: bytes) -> Document:
    with files.receiving(of, io.BytesIO(content)) as incoming, transaction(of) as db:
        document = db.put(a_row(index_id, incoming))
        incoming.place(db)
    return document


def a_row(index_id: str, incoming: files.Incoming) -> Document:
    return Document(
        index_id=index_id, scope_id=index_id, name="a.txt", size=incoming.size, content_sha256=incoming.sha256
    )


def discard(of: Of, sha256: str) -> bool:
    with transaction(of) as db:
        return files.discard(db, of.tenant_id, sha256)


def remove(of: Of, document: Document) -> None:
    with transaction(of) as db:
        db.delete(db.require(Document, document.id))


def test_a_file_is_filed_by_its_content(of: Of, index: str) -> None:
    document = keep(of, index, b"abc")
    assert (document.content_sha256, document.size) == (SHA256_OF_ABC, 3)
    path = files.path_of(of.tenant_id, SHA256_OF_ABC)
    assert kept(of) == [path]
    assert path.read_bytes() == b"abc"


def test_only_its_owner_may_look(of: Of, index: str) -> None:
    keep(of, index, b"abc")
    path = files.path_of(of.tenant_id, SHA256_OF_ABC)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in path.relative_to(settings().data_dir).parents[:-1]:
        assert stat.S_IMODE((settings().data_dir / folder).stat().st_mode) == 0o700


def test_what_is_not_placed_is_gone(of: Of) -> None:
    with files.receiving(of, io.BytesIO(b"abc")) as incoming:
        assert incoming.path.read_bytes() == b"abc"
    assert kept(of) == []


def test_too_many_bytes_leave_nothing(of: Of) -> None:
    with pytest.raises(TooLarge), files.receiving(of, io.BytesIO(b"abcd"), limit=3):
        pass
    assert kept(of) == []
    with files.receiving(of, io.BytesIO(b"abc"), limit=3) as incoming:
        assert incoming.size == 3


@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_clearly_and_leaves_nothing(
    of: Of, cause: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file system of our own to fill would need rights that a test must not have.
    def full(handle: int) -> None:
        raise OSError(cause, os.strerror(cause))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="disk is full"), files.receiving(of, io.BytesIO(b"abc")):
        pass
    assert kept(of) == []


def test_an_upload_that_breaks_off_leaves_nothing(of: Of) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError), files.receiving(of, Broken()):
        pass
    assert kept(of) == []


def test_the_same_content_is_kept_once_and_as_long_as_a_document_names_it(of: Of, index: str) -> None:
    first, second = keep(of, index, b"abc"), keep(of, new_index(of, "Other"), b"abc")
    assert len(kept(of)) == 1
    remove(of, first)
    assert not discard(of, SHA256_OF_ABC)
    assert len(kept(of)) == 1
    remove(of, second)
    assert discard(of, SHA256_OF_ABC)
    assert kept(of) == []
    assert discard(of, SHA256_OF_ABC), "once more does no harm"


def test_tenants_share_no_file(of: Of, index: str) -> None:
    other = new_tenant("B")
    keep(of, index, b"abc")
    theirs = keep(other, new_index(other, "Filings"), b"abc")
    assert len(kept(of, other)) == 2
    remove(other, theirs)
    assert discard(other, SHA256_OF_ABC)
    assert kept(of, other) == [files.path_of(of.tenant_id, SHA256_OF_ABC)]


@pytest.fixture
def db(of: Of) -> Iterator[Session]:
    with transaction(of) as session:
        yield session


def test_what_no_document_names_is_an_orphan(of: Of, index: str, db: Session) -> None:
    with files.receiving(of, io.BytesIO(b"kept")) as named:
        db.put(a_row(index, named))
        named.place(db)
    with files.receiving(of, io.BytesIO(b"a crash left this")) as incoming:
        lost = incoming.place(db)
    stray = settings().data_dir / "files" / ".incoming" / "cut-off"
    stray.write_bytes(b"half")
    found = files.orphans(db)
    assert lost in found
    assert files.path_of(of.tenant_id, named.sha256) not in found
    assert stray not in found, "an upload may still be on its way"
    os.utime(stray, (0, 0))
    assert stray in files.orphans(db)
    stray.unlink()

"""Originals on disk, filed by what they contain, so that the same content is kept once per tenant.

A file that arrives is written beside the others first and moved into place within the transaction that
makes its document: what is in place is whole, and what no document names may be swept away.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from models.errors import TooLarge, Unavailable
from models.knowledge.library import Document
from storage.database import OfTenant, Session
from storage.settings import settings

_BLOCK = 1 << 20
_ABANDONED_SECONDS = 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_OF_POSTGRESQL = "53100"
_LOCK_SPACE = 0x626F_6F67
"""Sets our advisory locks in PostgreSQL apart from anybody else's."""


class DiskFull(Unavailable):
    """The file system takes no more bytes; nothing of the upload was kept."""

    retry_after = 60

    def __init__(self) -> None:
        super().__init__("The server's disk is full. Nothing was kept; try again later.")


def is_full(fault: BaseException) -> bool:
    """Whether the file system, or the database's, took no more bytes."""
    if isinstance(fault, DBAPIError):
        kind = getattr(fault.orig, "sqlite_errorcode", 0) & 0xFF
        return kind == sqlite3.SQLITE_FULL or getattr(fault.orig, "sqlstate", None) == _FULL_OF_POSTGRESQL
    return isinstance(fault, OSError) and fault.errno in _FULL


@dataclass(slots=True)
class Incoming:
    """An upload that is whole on disk but not yet kept. ``size`` is in bytes."""

    of: OfTenant
    path: Path
    sha256: str
    size: int

    def place(self, db: Session) -> Path:
        """Keep it, within the transaction that adds the document's row: `discard` waits for its end."""
        _one_at_a_time(db, self.sha256)
        target = path_of(self.of.tenant_id, self.sha256)
        _make_folder(target.parent)
        with clear_when_full():
            os.replace(self.path, target)
            _sync_folder(target.parent)
        return target


def folder_of(tenant_id: str) -> Path:
    """Where a tenant's files are."""
    return settings().data_dir / "files" / tenant_id


def path_of(tenant_id: str, sha256: str) -> Path:
    """Where a tenant's file with this content is, or would be."""
    return folder_of(tenant_id) / sha256[:2] / sha256


@contextmanager
def receiving(of: OfTenant, source: BinaryIO, *, limit: int | None = None) -> Iterator[Incoming]:
    """Write ``source`` to disk, block by block; what is not placed is gone afterwards.

    Raises `TooLarge` beyond ``limit`` bytes, and `DiskFull`; neither leaves anything behind.
    """
    folder = settings().data_dir / "files" / ".incoming"
    _make_folder(folder)
    with clear_when_full():
        handle, name = tempfile.mkstemp(dir=folder)  # readable by its owner alone
    path = Path(name)
    try:
        with clear_when_full(), os.fdopen(handle, "wb") as file:
            digest, size = hashlib.sha256(), 0
            while block := source.read(_BLOCK):
                size += len(block)
                if limit is not None and size > limit:
                    raise TooLarge(f"The file has more than {limit} bytes.")
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        yield Incoming(of, path, digest.hexdigest(), size)
    finally:
        path.unlink(missing_ok=True)


def discard(db: Session, tenant_id: str, sha256: str) -> bool:
    """Remove a file that no document of the tenant names any more; whether it is gone.

    The transaction must be one that writes, so that no document with this content can be added meanwhile.
    """
    _one_at_a_time(db, sha256)
    named = select(func.count()).where(Document.tenant_id == tenant_id, Document.content_sha256 == sha256)
    if db.scalar(named):
        return False
    path_of(tenant_id, sha256).unlink(missing_ok=True)
    return True


def orphans(db: Session) -> list[Path]:
    """Files that no document names, uploads that were cut off long ago included."""
    root = settings().data_dir / "files"
    named = set(map(tuple, db.execute(select(Document.tenant_id, Document.content_sha256))))
    kept = [path for path in root.glob("*/??/*") if (path.parent.parent.name, path.name) not in named]
    old = time.time() - _ABANDONED_SECONDS
    return kept + [path for path in (root / ".incoming").glob("*") if path.stat().st_mtime < old]


def _one_at_a_time(db: Session, sha256: str) -> None:
    """Until the transaction ends nobody else places or discards this content. SQLite has one writer
    anyway.
    """
    if db.get_bind().dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, int(sha256[:7], 16))))


def _make_folder(folder: Path) -> None:
    root = settings().data_dir
    for part in reversed([folder, *folder.parents]):
        if part.is_relative_to(root) and part != root:
            with clear_when_full():
                part.mkdir(mode=0o700, exist_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def clear_when_full() -> Iterator[None]:
    """Raise `DiskFull` where the system says so of what is written within."""
    try:
        yield
    except OSError as fault:
        if is_full(fault):
            raise DiskFull from fault
        raise

"""The whole installation in one archive, and an empty one filled from it.

The archive is a tar: ``rows/<table>.jsonl`` as one read transaction saw them, ``files/`` (the originals that
these rows name), ``icons/``, ``demo.json``, ``secret.key`` where the installation made its secret itself, and
last ``manifest.json`` with the checksum of each. It is the same for SQLite and PostgreSQL, so that either can
be filled from the other. Vectors are not in it: they are made anew.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from cryptography.fernet import InvalidToken
from sqlalchemy import Date, LargeBinary, Table, inspect, literal, select, text, update
from sqlalchemy.exc import DBAPIError

from models.base import Instant, now
from models.errors import Conflict
from models.exports import ExportStatus, TenantExport
from models.knowledge.library import Document
from models.work import Job, JobStatus
from storage import exports, files, library, migrations, secrets
from storage.database import EVERYONE, Session, engine, platform, reading, tables
from storage.settings import settings

FORMAT = "booga-backup/1"

_ROWS = 500
_BLOCK = 1 << 20
_MANIFEST, _SECRET, _DEMO = "manifest.json", "secret.key", "demo.json"
_NAMES = re.compile(
    r"rows/[a-z_]+\.jsonl|(files|icons)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+|secret\.key|demo\.json"
)
_MAY_BE_THERE = {_SECRET, "booga.db", "booga.db-wal", "booga.db-shm"}
"""What reading the settings and `booga migrate` leave in a data folder."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was copied. ``missing``: originals that were gone; ``queued``: documents that get new vectors."""

    rows: int
    files: int
    missing: int = 0
    queued: int = 0


# ---- Backing up ----


def backup(target: Path) -> Done:
    """Write the archive, readable by its owner alone; it is there whole or not at all.

    May run beside the server. Raises `Conflict`, and `files.DiskFull`.
    """
    present = migrations.present()
    if present != migrations.head():
        raise Conflict(f"The database is at revision {present}, not {migrations.head()}: run booga migrate.")
    with _written(target) as raw, tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        sums: dict[str, str] = {}
        rows, originals = _copy_rows(archive, sums, target.absolute().parent)
        missing = [path for path in originals if not _add(archive, sums, path)]
        for path in sorted((settings().data_dir / "icons").rglob("*")):
            _add(archive, sums, path)
        _add(archive, sums, settings().data_dir / _DEMO)
        if _made_its_secret():
            _add(archive, sums, settings().data_dir / _SECRET)
        manifest = {
            "format": FORMAT,
            "made_at": now(),
            "revision": present,
            "sealed": base64.b64encode(secrets.seal(FORMAT.encode())).decode(),
            "sha256": sums,
        }
        content = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
        _put(archive, {}, _MANIFEST, io.BytesIO(content), len(content))
    return Done(rows, len(originals) - len(missing), len(missing))


def _made_its_secret() -> bool:
    path = settings().data_dir / _SECRET
    return path.exists() and settings().secret_keys == (path.read_text().strip(),)


@contextmanager
def _written(target: Path) -> Iterator[BinaryIO]:
    """A file that takes the target's name when all of it is on the disk."""
    folder = target.absolute().parent
    name = None
    try:
        with files.clear_when_full():
            handle, name = tempfile.mkstemp(dir=folder, prefix=f".{target.name}.")  # its owner's alone
            with os.fdopen(handle, "wb") as raw:
                yield raw
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(name, target)
    except OSError as fault:
        raise Conflict(f"{target} cannot be written: {os.strerror(fault.errno or errno.EIO)}.") from fault
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def _copy_rows(archive: tarfile.TarFile, sums: dict[str, str], folder: Path) -> tuple[int, list[Path]]:
    """All rows as of one moment; how many, and which originals they name."""
    count = 0
    with reading(EVERYONE) as db:
        for table in tables():
            # A member's size stands before it, and is not known before the last row is.
            with tempfile.TemporaryFile(dir=folder) as rows:
                query = select(table).order_by(*table.primary_key)
                for row in db.execute(query, execution_options={"yield_per": _ROWS}).mappings():
                    rows.write(orjson.dumps(dict(row), default=_encoded) + b"\n")
                    count += 1
                size = rows.tell()
                rows.seek(0)
                _put(archive, sums, f"rows/{table.name}.jsonl", rows, size)
        named = db.execute(select(Document.tenant_id, Document.content_sha256).distinct()).all()
    return count, sorted(files.path_of(tenant_id, sha256) for tenant_id, sha256 in named)


def _encoded(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no form in a backup")


def _add(archive: tarfile.TarFile, sums: dict[str, str], path: Path) -> bool:
    """Copy one file of the data folder, and False where none is there any more."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        return False
    with file:
        name = str(path.relative_to(settings().data_dir))
        _put(archive, sums, name, file, os.fstat(file.fileno()).st_size)
    return True


class _Summed:
    """A file whose checksum is known once it was read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        block: bytes = self._file.read(size)
        self.digest.update(block)
        return block


def _put(archive: tarfile.TarFile, sums: dict[str, str], name: str, file: Any, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(now().timestamp())
    summed = _Summed(file)
    archive.addfile(info, summed)  # type: ignore[arg-type]  # it only reads
    sums[name] = summed.digest.hexdigest()


# ---- Restoring ----


def restore(source: Path) -> Done:
    """Fill this installation, which must be empty, from an archive; nothing stays of it after a failure.

    Raises `Conflict` before anything is written where the archive is damaged, was made at another revision,
    or is sealed with a secret that is not at hand; and `files.DiskFull`.
    """
    with _opened(source) as archive:
        manifest = _checked(archive)
        secret = _secret(archive, manifest)
        _refuse_unless_empty()
        try:
            migrations.upgrade()
            with files.clear_when_full():
                count = sum(_extract(archive, member) for member in archive if _is_file(member.name))
                with platform() as db:
                    rows = sum(_load(db, archive, table) for table in tables())
                    queued = _settle(db)
                    if secret is not None:
                        _write(settings().data_dir / _SECRET, io.BytesIO(secret))
        except BaseException as fault:
            _clear()
            if isinstance(fault, DBAPIError):
                kind = type(fault.orig).__name__
                raise Conflict(f"The database did not take the rows ({kind}). Nothing was kept.") from fault
            raise
    return Done(rows, count, queued=queued)


@contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r:") as archive:
            yield archive
    except tarfile.TarError as fault:
        raise Conflict(f"{source} is not a whole backup. Nothing was written.") from fault
    except (FileNotFoundError, PermissionError) as fault:
        raise Conflict(f"{fault.filename} cannot be used: {fault.strerror}.") from fault


def _content(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    if file is None:
        raise tarfile.ReadError(f"{name} is no file")
    return file


def _checked(archive: tarfile.TarFile) -> dict[str, Any]:
    """The manifest, when all that it names is there, and as it was."""
    names = archive.getnames()
    if not names or names[-1] != _MANIFEST:
        raise tarfile.ReadError("it has no end")
    try:
        manifest: dict[str, Any] = orjson.loads(_content(archive, _MANIFEST).read())
        form, revision, sums = manifest["format"], manifest["revision"], manifest["sha256"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as fault:
        raise tarfile.ReadError("its manifest is damaged") from fault
    if form != FORMAT:
        raise Conflict(f"The archive's format is {form}; this version reads {FORMAT}.")
    if revision != migrations.head():
        raise Conflict(
            f"The backup was made at revision {revision}, and this version is at {migrations.head()}: "
            "restore it with the version that made it, then update."
        )
    expected = {f"rows/{table.name}.jsonl" for table in tables()}
    if sorted(names[:-1]) != sorted(sums) or not expected <= set(sums):
        raise tarfile.ReadError("something is missing, or there twice")
    for name, expected_sum in sums.items():
        member = archive.getmember(name)
        if not member.isreg() or not _NAMES.fullmatch(name):
            raise tarfile.ReadError(f"{name} is not of a backup")
        with _content(archive, name) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected_sum:
                raise Conflict(f"{name} in the archive is damaged. Nothing was written.")
    return manifest


def _secret(archive: tarfile.TarFile, manifest: dict[str, Any]) -> bytes | None:
    """The secret to take over, None where the present one opens what is sealed."""
    try:
        secrets.unseal(base64.b64decode(manifest["sealed"]))
        return None
    except InvalidToken:
        if _SECRET in manifest["sha256"] and _made_its_secret():
            content: bytes = _content(archive, _SECRET).read()
            return content
    raise Conflict(
        "BOOGA_SECRET_KEY does not hold the secret that the backup was made with"
        + (" (secret.key in the archive)." if _SECRET in manifest["sha256"] else ".")
    )


def _refuse_unless_empty() -> None:
    folder = settings().data_dir
    there = sorted(path.name for path in folder.iterdir() if path.name not in _MAY_BE_THERE)
    if there:
        raise Conflict(f"The data folder {folder} is not empty: it has {', '.join(there[:5])}.")
    found = set(inspect(engine()).get_table_names()) - {"alembic_version"}
    if found and migrations.present() is None:
        raise Conflict("The database is not empty: it has tables of something else.")
    with reading(EVERYONE) as db:
        for name in sorted(found):
            table = text(engine().dialect.identifier_preparer.quote(name))
            if db.scalar(select(literal(1)).select_from(table).limit(1)):
                raise Conflict(f"The database is not empty: there are rows in {name}.")


def _is_file(name: str) -> bool:
    return name.startswith(("files/", "icons/")) or name == _DEMO


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
    """Write one file; whether it is an original."""
    path = settings().data_dir / member.name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _content(archive, member.name) as file:
        _write(path, file)
    return member.name.startswith("files/")


def _write(path: Path, content: Any) -> None:
    with _written(path) as raw:
        shutil.copyfileobj(content, raw, _BLOCK)


def _clear() -> None:
    for name in ("files", "icons"):
        shutil.rmtree(settings().data_dir / name, ignore_errors=True)
    (settings().data_dir / _DEMO).unlink(missing_ok=True)


def _load(db: Session, archive: tarfile.TarFile, table: Table) -> int:
    decoders = {column.name: decode for column in table.c if (decode := _decoder(column.type))}
    count = 0
    with _content(archive, f"rows/{table.name}.jsonl") as lines:
        while batch := [_decoded(line, decoders) for line in islice(lines, _ROWS)]:
            db.execute(table.insert(), batch)
            count += len(batch)
    return count


def _decoder(kind: Any) -> Callable[[str], Any] | None:
    if isinstance(kind, LargeBinary):
        return base64.b64decode
    if isinstance(kind, Instant):
        return datetime.fromisoformat
    return date.fromisoformat if isinstance(kind, Date) else None


def _decoded(line: bytes, decoders: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    row: dict[str, Any] = orjson.loads(line)
    for name, decode in decoders.items():
        if row[name] is not None:
            row[name] = decode(row[name])
    return row


def _settle(db: Session) -> int:
    """Have made anew what was not copied; how many documents get new vectors.

    Jobs that another process had in hand are anybody's. Archives of tenants count as expired.
    """
    of_nobody = {"status": JobStatus.QUEUED, "lease_until": None, "worker": None}
    db.execute(update(Job).where(Job.status == JobStatus.RUNNING).values(of_nobody))
    for export in db.scalars(select(TenantExport).where(TenantExport.status == ExportStatus.READY)):
        exports.remove(db, export)
    db.execute(update(Document).values(embedder=None, vector_count=0))
    return library.reindex(db, "")

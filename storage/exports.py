"""Archives of a tenant: a ZIP of JSON and of the files that were uploaded, written to disk as it is made."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import orjson
from sqlalchemy import LargeBinary, Table, select

from models.base import now
from models.exports import CATALOGUES, LEFT_OUT, LIFETIME, ExportStatus, TenantExport, is_exported
from models.knowledge.library import Document
from models.tenancy import Tenant
from storage import files, icons
from storage.database import OfTenant, Session, platform, reading, tables
from storage.settings import settings

EXPORT = "export"
"""The kind of job that makes an archive."""

_ROWS = 500
_BLOCK = 1 << 20
_NOTE = """This archive holds what the tenant kept on a Booga server.

manifest.json   what stands here: every file, and how many rows it holds
data/*.json     one file for each kind of thing, a list of objects; times are UTC, RFC 3339
icons/...       the icons that were uploaded for bots
files/<id>/...  the files that were uploaded, by the id of their document in data/documents.json

Passwords, keys and other secrets are not in it.
"""


def folder_of(tenant_id: str) -> Path:
    """Where a tenant's archives are."""
    return settings().data_dir / "exports" / tenant_id


def path_of(tenant_id: str, export_id: str) -> Path:
    """Where an archive is, or would be."""
    return folder_of(tenant_id) / f"{export_id}.zip"


def build(of: OfTenant, export_id: str, tell: Callable[[float], None]) -> int:
    """Write the archive and move it into place; its size in bytes. Nothing is left behind by a failure.

    ``tell`` is given the progress, 0 to 1, and may raise to end the work.
    """
    target = path_of(of.tenant_id, export_id)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = target.with_suffix(".part")
    try:
        with files.clear_when_full():
            with (
                part.open("xb") as raw,
                zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive,
            ):
                part.chmod(0o600)
                with reading(of) as db:
                    _fill(db, of.tenant_id, archive, tell)
            part.replace(target)
        return target.stat().st_size
    finally:
        part.unlink(missing_ok=True)


def _fill(db: Session, tenant_id: str, archive: zipfile.ZipFile, tell: Callable[[float], None]) -> None:
    owned = [table for table in tables() if _is_kept(table)]
    manifest: dict[str, Any] = {
        "format": "booga-export/1",
        "tenant_id": tenant_id,
        "made_at": now().isoformat(),
        "data": {},
        "files": {},
    }
    archive.writestr("README.txt", _NOTE)
    for done, table in enumerate(owned):
        name = f"data/{table.name}.json"
        with archive.open(name, "w", force_zip64=True) as out:
            manifest["data"][name] = _write_rows(out, _rows(db, table, tenant_id))
        tell(0.5 * (done + 1) / len(owned))
    kept = db.execute(select(Document.id, Document.name, Document.content_sha256).order_by(Document.id)).all()
    for done, (id, name, sha256) in enumerate(kept):
        source = files.path_of(tenant_id, sha256)
        if source.exists():
            place = f"files/{id}/{_plain(name)}"
            with source.open("rb") as original, archive.open(place, "w", force_zip64=True) as out:
                shutil.copyfileobj(original, out, _BLOCK)
            manifest["files"][place] = {"sha256": sha256}
        tell(0.5 + 0.5 * (done + 1) / len(kept))
    for icon in sorted(icons.folder_of(tenant_id).glob("*")):
        archive.write(icon, f"icons/{icon.name}")
        manifest["files"][f"icons/{icon.name}"] = {"sha256": hashlib.sha256(icon.read_bytes()).hexdigest()}
    archive.writestr("manifest.json", json.dumps(manifest, indent=2))


def _is_kept(table: Table) -> bool:
    is_named = table.name == "tenants" or table.name in CATALOGUES
    return table.name not in LEFT_OUT and (is_named or "tenant_id" in table.c)


def _rows(db: Session, table: Table, tenant_id: str) -> Iterator[dict[str, Any]]:
    shown = [c for c in table.c if is_exported(c.name) and not isinstance(c.type, LargeBinary)]
    query = select(*shown).order_by(*table.primary_key)
    if table.name not in CATALOGUES:
        owner = table.c.id if table is Tenant.__table__ else table.c.tenant_id
        query = query.where(owner == tenant_id)
    result = db.execute(query, execution_options={"yield_per": _ROWS})
    for row in result.mappings():
        yield dict(row)


def _write_rows(out: Any, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    for row in rows:
        out.write(b",\n" if count else b"[\n")
        out.write(orjson.dumps(row, option=orjson.OPT_UTC_Z))
        count += 1
    out.write(b"\n]\n" if count else b"[]\n")
    return count


def _plain(name: str) -> str:
    """A name that stays in its folder wherever the archive is opened."""
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = "".join(letter if letter.isprintable() and letter not in '<>:"|?*' else "_" for letter in last)
    return kept.strip(". ")[:150] or "file"


def remove(db: Session, export: TenantExport) -> None:
    """Take an archive away."""
    path_of(export.tenant_id, export.id).unlink(missing_ok=True)
    export.status, export.progress, export.size = ExportStatus.EXPIRED, 0.0, None


def sweep() -> None:
    """Take all archives away whose time is over."""
    with platform() as db:
        over = select(TenantExport).where(
            TenantExport.status == ExportStatus.READY, TenantExport.expires_at < now()
        )
        for export in db.scalars(over):
            remove(db, export)


def keep(export: TenantExport, size: int) -> None:
    """The archive is in place."""
    export.status, export.progress, export.size = ExportStatus.READY, 1.0, size
    export.expires_at = now() + LIFETIME

"""Everything of the tenant as an archive: ask for it, see how far it is, fetch it."""

from __future__ import annotations

from typing import Any

from handlers.auth import caller
from handlers.replies import StoredFile
from handlers.schemas import exports as wire
from models.base import now
from models.errors import NotFound
from models.exports import ExportStatus, TenantExport
from storage import exports, queue
from storage.database import Session, transaction


def create() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Promise an archive."""
    with transaction(caller()) as db:
        export = db.put(TenantExport())
        queue.enqueue(db, exports.EXPORT, export.id, priority=8)
        return wire.show(export), 202, {"Location": f"/api/v1/tenants/exports/{export.id}"}


def get(id: str) -> dict[str, Any]:
    """How far the archive is."""
    with transaction(caller()) as db:
        return wire.show(_present(db, id))


def download(id: str) -> StoredFile:
    """The archive."""
    with transaction(caller()) as db:
        export = _present(db, id)
        export.check_ready()
    path = exports.path_of(export.tenant_id, export.id)
    if not path.exists():
        raise NotFound("The archive is no longer there. Ask for another one.")
    return StoredFile(path, "application/octet-stream", f"export-{export.created_at:%Y-%m-%d}.zip", export.id)


def _present(db: Session, id: str) -> TenantExport:
    export = db.require(TenantExport, id)
    if export.status == ExportStatus.READY and export.expires_at and export.expires_at < now():
        exports.remove(db, export)
    return export

"""From a tenant to an archive of all that it has."""

from __future__ import annotations

import time

from models.exports import ExportStatus, TenantExport
from storage import exports
from storage.database import apart, transaction
from storage.files import DiskFull
from storage.queue import Released, Work

TOLD_SECONDS = 0.25


def run(work: Work) -> None:
    """Make the archive; what an earlier try left is made anew."""
    exports.sweep()
    exports.path_of(work.tenant_id, work.subject_id).with_suffix(".part").unlink(missing_ok=True)
    if not _set(work, status=ExportStatus.RUNNING, progress=0.0):
        return
    try:
        size = exports.build(work, work.subject_id, Progress(work))
    except DiskFull:
        fail(work, "The server's disk is full. Ask again later, or tell its operator.")
        return
    with transaction(work) as db:
        export = db.get(TenantExport, work.subject_id, with_for_update=True)
        if export is not None:
            exports.keep(export, size)
    if export is None:  # the tenant was deleted meanwhile
        exports.path_of(work.tenant_id, work.subject_id).unlink(missing_ok=True)


def bury(work: Work) -> None:
    """The fault is ours."""
    fail(work, "The server could not make the archive. Ask again, or tell its operator.")


def fail(work: Work, detail: str) -> None:
    """Tell who asked."""
    _set(work, status=ExportStatus.FAILED, detail=detail)


def _set(work: Work, **values: object) -> bool:
    with transaction(work) as db:
        export = db.get(TenantExport, work.subject_id)
        if export is None or export.status in (ExportStatus.READY, ExportStatus.EXPIRED):
            return False
        for name, value in values.items():
            setattr(export, name, value)
        return True


def _aside(work: Work, progress: float) -> bool:
    """Write the progress beside the reading that makes the archive."""
    with apart(work) as db:
        export = db.get(TenantExport, work.subject_id)
        if export is not None:
            export.progress = progress
        return export is not None


class Progress:
    """Writes how far the archive is, now and then."""

    def __init__(self, work: Work) -> None:
        self._work, self._told = work, time.monotonic()

    def __call__(self, fraction: float) -> None:
        """Tell a fraction, 0 to 1."""
        self._work.go_on()
        if time.monotonic() - self._told < TOLD_SECONDS:
            return
        self._told = time.monotonic()
        if not _aside(self._work, round(fraction, 3)):
            raise Released

"""Icons of bots as files: the shared ones, and each tenant's under names that nobody guesses."""

from __future__ import annotations

import re
from pathlib import Path

from flask import Response, abort, send_file

from handlers.pages.docs import YEAR, pages
from storage import icons

_TENANT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pages.get("/static/bots/<name>")
def shared_icon(name: str) -> Response:
    """An icon that comes with the product."""
    return _sent(icons.shared_path(name), "public, max-age=86400")


@pages.get("/static/icons/tenant-<tenant_id>/<name>")
def tenant_icon(tenant_id: str, name: str) -> Response:
    """An icon that a tenant uploaded: never changed under its name."""
    path = icons.tenant_path(tenant_id, name) if _TENANT.fullmatch(tenant_id) else None
    return _sent(path, f"public, max-age={YEAR}, immutable")


def _sent(path: Path | None, kept: str) -> Response:
    if path is None:
        abort(404)
    response = send_file(path, mimetype="image/png", conditional=True, etag=True)
    response.headers["Cache-Control"] = kept
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response

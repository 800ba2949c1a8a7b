"""The files behind the documentation pages, served by this server alone.

Swagger UI and Redoc come from the package `drf-spectacular-sidecar`, of which only files are read: importing
it would import Django. Two small scripts of our own start them, so that the pages need no inline script.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

OWN = Path(__file__).parent / "static"
SIDECAR = "drf_spectacular_sidecar"

JAVASCRIPT = "text/javascript; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

# Redoc shows this picture beside its name. An address that cannot load makes Redoc leave the picture out, its
# own way with a missing one; the link beside it stays.
OUTSIDE_PICTURE = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
NO_PICTURE = b"data:,"


@dataclass(frozen=True)
class Asset:
    """One file as it goes out: its bytes, its media type, and the digest that names this very content."""

    content: bytes
    media_type: str
    digest: str


def _folder() -> Path:
    """Where the sidecar package keeps its files; raises `FileNotFoundError` where it is not installed."""
    spec = find_spec(SIDECAR)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{SIDECAR} is not installed: run `make install`")
    return Path(spec.submodule_search_locations[0]) / "static" / SIDECAR


# Everything that is served, and nothing else: (folder, path in it, media type).
SERVED = {
    "swagger-ui.css": ("swagger-ui-dist", "swagger-ui.css", "text/css; charset=utf-8"),
    "swagger-ui-bundle.js": ("swagger-ui-dist", "swagger-ui-bundle.js", JAVASCRIPT),
    "swagger-ui-bundle.js.LICENSE.txt": ("swagger-ui-dist", "swagger-ui-bundle.js.LICENSE.txt", TEXT),
    "favicon.png": ("swagger-ui-dist", "favicon-32x32.png", "image/png"),
    "redoc.standalone.js": ("redoc/bundles", "redoc.standalone.js", JAVASCRIPT),
    "redoc.standalone.js.LICENSE.txt": ("redoc/bundles", "redoc.standalone.js.LICENSE.txt", TEXT),
    "swagger-start.js": (None, "swagger-start.js", JAVASCRIPT),
    "redoc-start.js": (None, "redoc-start.js", JAVASCRIPT),
    "page.css": (None, "page.css", "text/css; charset=utf-8"),
    "account.js": (None, "account.js", JAVASCRIPT),
    "chat.css": (None, "chat.css", "text/css; charset=utf-8"),
    "chat.js": (None, "chat.js", JAVASCRIPT),
    "embed.js": (None, "embed.js", JAVASCRIPT),
}


@cache
def asset(name: str) -> Asset:
    """The asset of that name, read once; raises `KeyError` for a name that is not served."""
    folder, path, media_type = SERVED[name]
    content = ((_folder() / folder if folder else OWN) / path).read_bytes()
    if name == "redoc.standalone.js":
        content = content.replace(OUTSIDE_PICTURE, NO_PICTURE)
    return Asset(content, media_type, sha256(content).hexdigest()[:16])

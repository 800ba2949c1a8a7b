"""`/docs` (Swagger UI, with "Try it out") and `/redoc`: the OpenAPI document for reading and trying; and the
page that the links of mails lead to.
"""

from typing import Any

from flask import Blueprint, Response, abort, render_template, request

from handlers.pages.assets import SERVED, asset

pages = Blueprint("pages", __name__, template_folder="templates")

YEAR = 365 * 24 * 3600

# Nothing runs or loads but this server's own files, and no other site may frame the page.
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
# Redoc writes its style elements as it runs, and searches in a worker that it makes from a blob.
REDOC_POLICY = POLICY | {"style-src": "'self' 'unsafe-inline'", "worker-src": "blob:"}


@pages.get("/docs", strict_slashes=False)
def docs() -> Response:
    """Swagger UI over `/openapi.json`."""
    return page_of("docs.html", POLICY)


@pages.get("/redoc", strict_slashes=False)
def redoc() -> Response:
    """Redoc over `/openapi.json`."""
    return page_of("redoc.html", REDOC_POLICY)


@pages.after_request
def _one_date(response: Response) -> Response:
    """The server in front says the time; Flask does, too, wherever it answers under a condition."""
    response.headers.pop("Date", None)
    return response


@pages.get("/account", strict_slashes=False)
def account() -> Response:
    """Where the links of mails lead: a form for a password. The token stands behind the `#`, which no browser
    sends, so that no log holds it.
    """
    return page_of("account.html", POLICY)


@pages.get("/static/docs/<name>")
def file(name: str) -> Response:
    """One of the pages' files.

    Pages ask for a file by its content's digest (`?v=`), so that answer may be kept for a year; without the
    right digest it is to be checked again each time.
    """
    if name not in SERVED:
        abort(404)
    found = asset(name)
    response = Response(found.content, content_type=found.media_type)
    response.set_etag(found.digest)
    fresh = request.args.get("v") == found.digest
    response.headers["Cache-Control"] = f"public, max-age={YEAR}, immutable" if fresh else "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.make_conditional(request)
    return response


def page_of(template: str, policy: dict[str, str], **values: Any) -> Response:
    """A page under a policy, with what its template shows."""
    headers = {
        "Content-Security-Policy": "; ".join(f"{directive} {source}" for directive, source in policy.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return Response(
        render_template(template, address=_address, **values), headers=headers, mimetype="text/html"
    )


def _address(name: str) -> str:
    return f"/static/docs/{name}?v={asset(name).digest}"

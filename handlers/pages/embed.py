"""`/embed.js`, the widget that a site puts on its pages, and `/embed/{public_key}`, the page in its frame.

The page talks to the public bot service as any site's does. Who may frame it is said by its policy: the bot's
allowed origins, and nobody where there are none.
"""

from __future__ import annotations

import re

from flask import Response, abort, request

from handlers.pages.assets import asset
from handlers.pages.docs import POLICY, page_of, pages
from storage import visitors

_ORIGIN = re.compile(r"\Ahttps?://[A-Za-z0-9.-]+(?::\d+)?(?=/|\Z)")
"""What a policy may name of a picture's address; nothing that would end its line."""


@pages.get("/embed.js", strict_slashes=False)
def widget() -> Response:
    """The script of the embed code, kept for five minutes only, so that sites soon have the newest."""
    found = asset("embed.js")
    response = Response(found.content, content_type=found.media_type)
    response.set_etag(found.digest)
    response.headers["Cache-Control"] = "public, max-age=300"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    response.make_conditional(request)
    return response


@pages.get("/embed/<public_key>", strict_slashes=False)
def chat(public_key: str) -> Response:
    """The bot's page; 404 alike for one that is paused, gone, or never was."""
    door = visitors.door(public_key)
    if door is None:
        abort(404)
    framers = " ".join(door.bot.allowed_origins) or "'none'"
    pictures = " ".join([POLICY["img-src"], *_ORIGIN.findall(door.bot.icon_url or "")])
    policy = POLICY | {"frame-ancestors": framers, "img-src": pictures}
    response = page_of("chat.html", policy, bot=door.bot)
    # Its questions go out with this server's origin, which browsers may hide where nothing at all is told.
    response.headers["Referrer-Policy"] = "same-origin"
    return response

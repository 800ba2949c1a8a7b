"""Passages on the wire: citations of answers, hits of a search."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

from marshmallow import fields

from handlers.schemas import Wire
from storage.settings import settings
from storage.websearch import WebResult


class Passage(Protocol):
    """What a citation is written from: a hit of a search, or a row that was kept with a message."""

    @property
    def document_id(self) -> str | None: ...
    @property
    def page(self) -> int | None: ...


def url_of(passage: Passage) -> str:
    """Where the original can be read, opened at the passage's page (RFC 8118, section 3)."""
    web_url: str | None = getattr(passage, "web_url", None)
    if web_url is not None:
        return web_url
    page = f"#page={passage.page}" if passage.page is not None else ""
    return f"{settings().public_url}/api/v1/chat/knowledge/documents/{passage.document_id}/content{page}"


class Citation(Wire):
    """The component ``Citation``."""

    number = fields.Integer()
    index_id = fields.String()
    document_id = fields.String()
    document_name = fields.String()
    page = fields.Integer()
    sheet = fields.String()
    cell = fields.String()
    heading = fields.String()
    start = fields.Integer()
    end = fields.Integer()
    score = fields.Float()
    quote = fields.String()
    content_sha256 = fields.String()
    url = fields.Function(url_of)
    cited = fields.Function(lambda passage: getattr(passage, "cited", False))


class Scores(Wire):
    """The component ``Scores``; null for a part that did not look."""

    keyword = fields.Function(lambda scores: scores.get("keyword"))
    vector = fields.Function(lambda scores: scores.get("vector"))
    fused = fields.Function(lambda scores: scores.get("fused"))


class Hit(Citation):
    """The component ``Hit``."""

    scores = fields.Nested(Scores)
    reasons = fields.List(fields.String())


_citation, _hit = Citation(), Hit()


def citation_of(passage: Passage) -> dict[str, Any]:
    """A passage as messages show it. What was only found so far is not cited."""
    return _citation.show(passage)


def hit_of(passage: Passage) -> dict[str, Any]:
    """A passage as a search shows it."""
    return _hit.show(passage)


def citation_of_page(page: WebResult, number: int) -> dict[str, Any]:
    """A page of the web, cited like a document. It has no score: the engine's order is all there is."""
    return {
        "number": number,
        "document_name": page.title,
        "start": 0,
        "end": len(page.snippet),
        "score": 0.0,
        "quote": page.snippet,
        "content_sha256": hashlib.sha256(page.snippet.encode()).hexdigest(),
        "url": page.url,
        "cited": False,
        **dict.fromkeys(("index_id", "document_id", "page", "sheet", "cell", "heading")),
    }

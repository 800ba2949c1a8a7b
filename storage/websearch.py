"""Searching the web: one small interface, and SearXNG behind it (its JSON API)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import structlog

from storage.settings import settings

log = structlog.get_logger("booga.websearch")

PATIENCE = 5.0
"""Seconds that a turn waits for results."""
LARGEST_ANSWER = 2_000_000
LONGEST_SNIPPET = 2000


@dataclass(frozen=True, slots=True)
class WebResult:
    """A page that was found, and what of it the search engine shows."""

    title: str
    url: str
    snippet: str


class WebSearchFailure(Exception):
    """The search engine gave no usable answer; the text says why, without the question."""


def is_available(provider: str) -> bool:
    """Whether the host configured this search engine."""
    return provider == "searxng" and settings().searxng_url is not None


def search(question: str, *, most: int) -> list[WebResult]:
    """The first ``most`` pages for a question. Raises ``WebSearchFailure``."""
    query = {"q": question[:500], "format": "json"}
    try:
        with httpx.stream(
            "GET", f"{settings().searxng_url}/search", params=query, timeout=PATIENCE, trust_env=False
        ) as response:
            response.raise_for_status()
            content = bytearray()
            for part in response.iter_bytes():
                content += part
                if len(content) > LARGEST_ANSWER:
                    raise WebSearchFailure("its answer is too large")
        found: Any = httpx.Response(200, content=bytes(content)).json()["results"]
        results = [_result(row) for row in found]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as fault:
        log.warning("web search failed", fault=type(fault).__name__)
        raise WebSearchFailure(type(fault).__name__) from fault
    return [result for result in results if result is not None][:most]


def _result(row: dict[str, Any]) -> WebResult | None:
    """A row of the engine's; None for what has no text or is no page of the web."""
    url, title, text = (str(row.get(name) or "").replace("\0", "") for name in ("url", "title", "content"))
    if not url.startswith(("http://", "https://")) or len(url) > 1900 or not text.strip():
        return None
    return WebResult(title[:300] or url[:300], url, text[:LONGEST_SNIPPET])

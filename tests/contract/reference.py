"""The API reference that the product answers: each of its 424 operations, by route and method.

It was generated from a table of URLs. Routes of its router and its class views answer seven methods, those of
the router also with a format suffix; function views are listed with their own method and OPTIONS. What a
route does not serve is 405.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

BASE = "/api/v1"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

ROUTER = {
    "/chat": "GET",
    "/chat/bots": "GET POST",
    "/chat/bots/{id}": "GET PUT PATCH DELETE",
    "/chat/bots/{id}/analytics": "GET",
    "/chat/bots/{id}/sessions": "GET",
    "/chat/bots/{id}/toggle-active": "POST",
    "/chat/bots/{id}/regenerate-key": "POST",
    "/chat/bots/{id}/embed-code": "GET",
    "/chat/configurations": "GET POST",
    "/chat/configurations/{id}": "GET PUT PATCH DELETE",
    "/chat/configurations/current": "GET",
    "/chat/personas": "GET POST",
    "/chat/personas/{id}": "GET PUT PATCH DELETE",
    "/chat/personas/{id}/users": "GET",
    "/chat/personas/{id}/assign-users": "POST",
    "/chat/personas/{id}/unassign-users": "POST",
    "/chat/personas/{id}/duplicate": "POST",
    "/chat/personas/{id}/preview": "POST",
    "/chat/sessions": "GET POST",
    "/chat/sessions/{id}": "GET PUT PATCH DELETE",
    "/chat/sessions/{id}/messages": "GET POST",
    "/chat/sessions/{id}/messages/stream": "GET POST",
    "/chat/sessions/{id}/stop": "POST",
    "/chat/sessions/{id}/regenerate": "POST",
    "/chat/sessions/{id}/history": "GET",
    "/chat/sessions/{id}/analytics": "GET",
    "/chat/sessions/analytics": "GET",
    "/chat/sessions/bulk": "POST",
}
CLASS_VIEWS = {
    "/chat/bots/icons": "GET",
    "/chat/bots/icons/upload": "POST",
}
FUNCTION_VIEWS = (
    ("/chat/bots/health", "GET"),
    ("/chat/knowledge/access", "GET"),
    ("/chat/files/{id}", "DELETE"),
    ("/chat/health", "GET"),
    ("/chat/providers", "GET"),
    ("/chat/files", "GET"),
    ("/chat/users", "GET"),
    ("/chat/files", "POST"),
    ("/chat/personas/assigned", "GET"),
)
AS_CSV = (
    "/chat/bots",
    "/chat/bots/{id}/analytics",
    "/chat/bots/{id}/sessions",
    "/chat/configurations",
    "/chat/personas",
    "/chat/personas/{id}/users",
    "/chat/sessions",
    "/chat/sessions/{id}/messages",
    "/chat/sessions/{id}/history",
    "/chat/sessions/{id}/analytics",
    "/chat/sessions/analytics",
)
"""Lists, history and analytics: served as CSV, too."""


@dataclass(frozen=True, slots=True)
class Row:
    """One operation of the reference."""

    route: str
    suffix: str
    method: str
    works: bool

    @property
    def path(self) -> str:
        """The route's path in the contract."""
        return BASE + self.route

    def __str__(self) -> str:
        return f"{self.method} {self.route}{self.suffix}"


def _served(methods: str) -> set[str]:
    served = {*methods.split(), "OPTIONS"}
    return served | {"HEAD"} if "GET" in served else served


def rows() -> Iterator[Row]:
    """All 424."""
    for route, methods in ROUTER.items():
        for suffix in ("", ".json"):
            for method in METHODS:
                yield Row(route, suffix, method, method in _served(methods))
    for route, methods in CLASS_VIEWS.items():
        for method in METHODS:
            yield Row(route, "", method, method in _served(methods))
    for route, method in FUNCTION_VIEWS:
        yield Row(route, "", method, works=True)
        yield Row(route, "", "OPTIONS", works=True)


def allow(route: str) -> set[str]:
    """What ``Allow`` names for a route of the router or a class view: nothing beyond the reference."""
    return _served((ROUTER | CLASS_VIEWS)[route])

"""From a path to an operation, once: the result is handed to Connexion's own routed middlewares.

Connexion's router walks all routes in order for each request, answers OPTIONS and unknown methods wrongly
and redirects trailing slashes; this takes its place through the same public interface (``SpecMiddleware``,
``ROUTING_CONTEXT``).
"""

from __future__ import annotations

from typing import Any

from connexion.middleware.abstract import ROUTING_CONTEXT, SpecMiddleware
from connexion.spec import Specification
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.problems import Problem
from openapi import exchange as exchanges
from openapi import visitors
from openapi.contract import Contract, Routes, allowed
from openapi.sending import send_empty

SUFFIXES = {".json": "application/json", ".csv": "text/csv", ".md": "text/markdown"}


class Routing(SpecMiddleware):
    """Finds the operation; answers OPTIONS, 404 and 405 itself; HEAD goes on as GET."""

    def __init__(self, app: ASGIApp, contract: Contract) -> None:
        self.app = app
        self.routes = Routes(contract)
        self.base_path = ""

    def add_api(self, specification: Specification, **kwargs: Any) -> None:
        """Connexion registers the API here; the route table is made from the same bundle."""
        self.base_path = specification.base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchanges.of(scope)
        path = exchange.path
        if len(path) > 1 and path.endswith("/"):
            path = path[:-1]
        found = self.routes.find(path)
        head, dot, tail = path.rpartition(".")
        suffix = dot + tail
        if suffix in SUFFIXES and "/" not in tail:
            resource = self.routes.find(head)
            served = found is not None and not found[1]
            if resource is not None and not served and _serves(resource[0], suffix):
                found, exchange.suffix = resource, suffix
        if found is None:
            scope["extensions"] = {
                **scope.get("extensions", {}),
                ROUTING_CONTEXT: {"api_base_path": None, "operation_id": None},
            }
            await self.app(scope, receive, send)
            return
        methods, exchange.path_values = found
        method = exchange.method
        if method == "OPTIONS":
            allow = allowed(methods)
            cors = await visitors.preflight(exchange, scope, allow)
            await send_empty(send, 204, exchange, [(b"allow", allow.encode()), *cors])
            return
        operation = methods.get("GET" if method == "HEAD" else method)
        if operation is None:
            raise Problem(
                "method-not-allowed",
                f"{method[:20]} is not served here; these are: {allowed(methods)}.",
                headers={"Allow": allowed(methods)},
            )
        exchange.operation = operation
        context = {"api_base_path": self.base_path, "operation_id": operation.id}
        scope["path_params"] = dict(exchange.path_values)
        scope["extensions"] = {**scope.get("extensions", {}), ROUTING_CONTEXT: context}
        await self.app(scope, receive, send)


def _serves(methods: dict[str, Any], suffix: str) -> bool:
    """``.json`` goes with any resource; the others where the resource is served as that type."""
    if suffix == ".json":
        return True
    getter = methods.get("GET")
    return getter is not None and SUFFIXES[suffix] in getter.produces

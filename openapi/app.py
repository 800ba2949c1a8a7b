"""The application: Connexion as the container, our layers in it, Flask behind them for the pages.

From the outside in: guard, lifespan, routing, Connexion's security, rights, validation, dispatch, Flask.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from connexion import FlaskApp
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.security import SecurityMiddleware
from connexion.resolver import Resolver
from connexion.spec import OpenAPISpecification
from flask import Response
from starlette.types import ASGIApp

from handlers import lifecycle
from handlers.pages import pages
from openapi.contract import Contract
from openapi.dispatch import dispatch_middleware
from openapi.guard import Guard
from openapi.routing import Routing
from openapi.security import SECURITY_MAP, rights_middleware
from openapi.validation import validation_middleware


@asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    async with lifecycle.running():
        yield


def create() -> ASGIApp:
    """Build the application. Raises ``ContractError`` when the contract and the code disagree."""
    contract = Contract()
    # Connexion would hold the contract against OpenAPI's schema at each start of each worker, for a second.
    # That is done where the bundle is made (make spec-lint, tests/openapi).
    OpenAPISpecification.openapi_schema = {}

    def routing(app: ASGIApp) -> Routing:
        return Routing(app, contract)

    middlewares: list[Callable[..., Any]] = [
        Guard,
        LifespanMiddleware,
        routing,
        SecurityMiddleware,
        rights_middleware(contract),
        validation_middleware(contract),
        dispatch_middleware(contract),
    ]
    app = FlaskApp(
        "openapi",
        lifespan=_lifespan,
        middlewares=middlewares,
        server_args={"static_folder": None},
        security_map=SECURITY_MAP,
        resolver=Resolver(lambda operation_id: contract.operations[operation_id].function),
    )
    app.add_api(
        contract.spec, resolver=Resolver(lambda operation_id: contract.operations[operation_id].function)
    )
    app.app.url_map.merge_slashes = False  # a path with an empty part is unknown, not redirected
    app.app.register_blueprint(pages)
    app.app.add_url_rule(
        "/openapi.yaml",
        "openapi_yaml",
        lambda: Response(contract.yaml, content_type="application/yaml; charset=utf-8"),
    )
    app.app.add_url_rule(
        "/openapi.json", "openapi_json", lambda: Response(contract.json, content_type="application/json")
    )
    served: ASGIApp = app
    return served

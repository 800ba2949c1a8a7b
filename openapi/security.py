"""Connexion's security, with our credentials: one credential per request, judged once; then scope and
capability.

``KeyScheme`` and ``TokenScheme`` stand in Connexion's ``security_map``; both ask ``authenticate``, which
looks at all that came, so that a wrong token beside a right key cannot pass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from connexion.lifecycle import ConnexionRequest
from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from connexion.security import NO_VALUE
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.problems import Problem
from models.access import Caller
from openapi import exchange as exchanges
from openapi import limits, visitors
from openapi.contract import Contract, Operation
from openapi.guard import header
from storage import identity
from storage.threads import in_thread

_VERDICT = "booga.verdict"


def _credential(scope: Scope) -> str | None:
    """The one credential of the request: an API key or an access token."""
    keys, authorizations = header(scope, b"x-api-key"), header(scope, b"authorization")
    if len(keys) + len(authorizations) > 1:
        raise Problem("unauthorized", "Send one credential, not several.")
    if keys:
        key = keys[0].decode("latin-1").strip()
        if not key.startswith("bk_"):
            raise Problem("unauthorized", "The API key is not valid.")
        return key
    if authorizations:
        scheme, _, token = authorizations[0].decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Problem("unauthorized", "Use the Bearer scheme: 'Authorization: Bearer <token>'.")
        return token.strip()
    return None


async def authenticate(scope: Scope) -> Caller | None:
    """Who sent the request; None when no credential came; a 401 problem when it is not good."""
    credential = _credential(scope)
    if credential is None:
        return None
    caller = identity.remembered(credential)
    if caller is None:
        caller = await in_thread(identity.caller_of, credential)
    if caller is None:
        kind = "API key" if credential.startswith("bk_") else "access token"
        raise Problem("unauthorized", f"The {kind} is not valid.")
    return caller


class _Scheme:
    def get_fn(
        self, security_scheme: dict[str, Any], required_scopes: list[str]
    ) -> Callable[..., Awaitable[Any]]:
        """Connexion asks for the function that verifies this scheme."""
        return self.verify

    async def verify(self, request: ConnexionRequest) -> Any:
        """Connexion's token info, or ``NO_VALUE`` when no credential came."""
        scope = request.scope
        if _VERDICT not in scope:
            try:
                scope[_VERDICT] = await authenticate(scope)
            except Problem as problem:
                scope[_VERDICT] = problem
        verdict = scope[_VERDICT]
        if isinstance(verdict, Problem):
            raise verdict
        if verdict is None:
            return NO_VALUE
        exchanges.of(scope).caller = verdict
        structlog.contextvars.bind_contextvars(tenant=verdict.tenant_id)
        return {"sub": verdict.user_id}


class KeyScheme(_Scheme):
    """``type: apiKey``."""


class TokenScheme(_Scheme):
    """``type: http, scheme: bearer``."""


SECURITY_MAP = {"apiKey": KeyScheme, "bearer": TokenScheme}


def check_rights(caller: Caller, operation: Operation) -> None:
    """Scope, who belongs here, then capability; the spec's extensions decide for users and keys alike."""
    if operation.scope not in (None, "any") and operation.scope not in caller.scopes:
        raise Problem(
            "insufficient-scope",
            f"This needs the scope {operation.scope}.",
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{operation.scope}"'},
        )
    if caller.is_operator and operation.operators is None:
        raise Problem("forbidden", "This belongs to a tenant, and operators belong to none.")
    if not caller.is_operator and operation.operators == "only":
        raise Problem("forbidden", "Only operators of the installation may do this.")
    if operation.capability is not None and operation.capability not in caller.capabilities:
        raise Problem(
            "capability-required", f"No active subscription of the tenant grants {operation.capability}."
        )


class RightsOperation:
    """Checks one operation's rate limit, scope and capability."""

    def __init__(self, next_app: ASGIApp, operation: Operation) -> None:
        self.next_app = next_app
        self.operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, or raise the problem."""
        exchange = exchanges.of(scope)
        if self.operation.limited:
            await limits.count(exchange)
        if not self.operation.public:
            if exchange.caller is None:
                raise Problem("unauthorized", "Send an API key or an access token.")
            check_rights(exchange.caller, self.operation)
        if self.operation.path.startswith(visitors.PREFIX):
            await visitors.admit(exchange, scope, self.operation)
        await self.next_app(scope, receive, send)


class RightsAPI(RoutedAPI[RightsOperation]):
    """Makes a check for each operation of the contract."""

    contract: Contract

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> RightsOperation:
        """Connexion's operation to ours, by id."""
        return RightsOperation(self.next_app, self.contract.operations[operation.operation_id])


def rights_middleware(contract: Contract) -> Callable[[ASGIApp], RoutedMiddleware[RightsAPI]]:
    """The middleware that stands between Connexion's security and the validation."""

    class BoundAPI(RightsAPI):
        pass

    BoundAPI.contract = contract

    class Rights(RoutedMiddleware[RightsAPI]):
        api_cls = BoundAPI

    return Rights

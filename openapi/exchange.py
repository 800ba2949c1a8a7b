"""One request on its way through the layers: what each layer learned, for the next."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

if TYPE_CHECKING:
    from handlers.visits import Visit
    from models.access import Caller
    from openapi.contract import Operation

KEY = "booga.exchange"


@dataclass(slots=True)
class Exchange:
    """A request and what is known of it so far."""

    request_id: str
    method: str
    path: str
    client: str
    user_agent: str
    began: float = field(default_factory=time.perf_counter)
    operation: Operation | None = None
    path_values: dict[str, str] = field(default_factory=dict)
    suffix: str | None = None
    caller: Caller | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    body_fingerprint: str = ""
    media_type: str = "application/json"
    preconditions: dict[str, str] = field(default_factory=dict)
    rate_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    extra_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    visit: Visit | None = None


def of(scope: Scope) -> Exchange:
    """The exchange that the guard put into the ASGI scope."""
    exchange: Exchange = scope[KEY]
    return exchange

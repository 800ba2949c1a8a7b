"""One of each resource of two tenants, for all that is told of every operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.contract import conformance
from tests.contract.specimens import Specimens
from tests.servers import Server, Tenant


@pytest.fixture(scope="session")
def connection(server: Server) -> Iterator[Callable[[str | None], httpx.Client]]:
    """Clients that last as long as the server: the walk sends thousands of requests."""
    opened: dict[str | None, httpx.Client] = {}

    def of_key(key: str | None) -> httpx.Client:
        if key not in opened:
            opened[key] = conformance.client(server.url, key)
        return opened[key]

    yield of_key
    for client in opened.values():
        client.close()


@pytest.fixture(scope="session")
def ours(server: Server, operator_key: str, connection: Callable[[str | None], httpx.Client]) -> Specimens:
    """One of each resource of tenant A."""
    return Specimens(
        connection(server.api_key),
        server.tenant,
        operator=connection(operator_key),
        anonymous=connection(None),
    )


@pytest.fixture(scope="session")
def theirs(
    other_tenant: Tenant, ours: Specimens, connection: Callable[[str | None], httpx.Client]
) -> Specimens:
    """One of each resource of tenant B."""
    return Specimens(connection(other_tenant["api_key"]), other_tenant, operator=ours.operator)

"""The server as a browser meets it: through a door at which what it is answered is heard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.backends import Backend
from tests.relay import relay
from tests.servers import Server, running


@pytest.fixture(scope="session")
def server(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes the door's address for its own."""
    folder = tmp_path_factory.mktemp(f"seen-{backend.name}")
    with (
        relay() as door,
        running(folder, backend.name, {**backend.fresh(), "BOOGA_PUBLIC_URL": door.url}) as made,
    ):
        door.to = made.url
        yield replace(made, url=door.url)

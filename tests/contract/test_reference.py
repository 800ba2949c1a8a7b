"""Every operation of the API reference, asked over HTTP: what works, HEAD, OPTIONS, and 405 for the rest."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.contract import conformance, reference
from tests.contract.conformance import described
from tests.contract.reference import Row
from tests.contract.specimens import Operation, Specimens, operations
from tests.servers import Server

ROWS = list(reference.rows())
BY_PLACE = {(operation.path, operation.method.upper()): operation for operation in operations()}
PATHS = described().spec["paths"]
THERE = [row for row in ROWS if row.path in PATHS]
ROUTES = sorted({row.route for row in THERE})
NEED_A_REPLY = {"messages.resume", "messages.regenerate"}


def each(chosen: list[Row]) -> pytest.MarkDecorator:
    """One test for each row; OPTIONS of `/chat/files` stands in the reference twice."""
    return pytest.mark.parametrize("row", list(dict.fromkeys(chosen)), ids=str)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """The owner; hundreds of requests go over one connection."""
    with conformance.client(server.url, server.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[httpx.Client]:
    """Somebody without credentials."""
    with conformance.client(server.url, None) as client:
        yield client


@pytest.fixture
def call(client: httpx.Client, server: Server) -> Callable[..., httpx.Response]:
    """Send a valid request for an operation, everything it names made anew."""

    def send(
        operation: Operation, method: str, suffix: str = "", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        specimens = Specimens(client, server.tenant)
        if operation.id in NEED_A_REPLY:
            assert specimens.send(BY_PLACE["/api/v1/chat/sessions/{id}/messages", "POST"]).is_success
        request = specimens.call(operation)
        return client.request(**request | {"method": method, "url": request["url"] + suffix}, headers=headers)

    return send


def test_the_reference_has_424_operations() -> None:
    assert len(ROWS) == 424


def test_every_route_is_in_the_contract() -> None:
    missing = {str(row) for row in ROWS if row.works and row.method not in ("HEAD", "OPTIONS")} - {
        str(row) for row in THERE if (row.path, row.method) in BY_PLACE
    }
    assert not missing, "openapi/paths has no:\n" + "\n".join(sorted(missing))


@each([row for row in THERE if row.works and (row.path, row.method) in BY_PLACE])
def test_what_works_answers_as_documented(row: Row, call: Callable[..., httpx.Response]) -> None:
    response = call(BY_PLACE[row.path, row.method], row.method, row.suffix)
    assert response.is_success, response.text


@each([row for row in THERE if row.works and row.method == "HEAD"])
def test_head_is_get_without_a_body(row: Row, call: Callable[..., httpx.Response]) -> None:
    operation = BY_PLACE[row.path, "GET"]
    response, got = (call(operation, method, row.suffix) for method in ("HEAD", "GET"))
    assert response.status_code == got.status_code == 200
    assert response.content == b""
    assert response.headers["content-type"] == got.headers["content-type"]


@each([row for row in THERE if row.method == "OPTIONS"])
def test_options_names_exactly_what_works(row: Row, stranger: httpx.Client) -> None:
    response = stranger.options(row.path.replace("{id}", "any") + row.suffix)
    assert (response.status_code, response.content) == (204, b"")
    named = response.headers["allow"].split(", ")
    assert len(named) == len(set(named))
    assert {*named} == conformance.allowed(PATHS[row.path])
    if row.route in reference.ROUTER | reference.CLASS_VIEWS:
        assert {*named} == reference.allow(row.route)


@each([row for row in THERE if not row.works])
def test_the_rest_is_405(row: Row, stranger: httpx.Client) -> None:
    response = stranger.request(row.method, row.path.replace("{id}", "any") + row.suffix)
    assert response.status_code == 405
    assert {*response.headers["allow"].split(", ")} == reference.allow(row.route)
    assert response.headers["content-type"] == "application/problem+json"
    if row.method != "HEAD":
        assert response.json()["error"] == "method-not-allowed"


@pytest.mark.parametrize("route", [route for route in reference.AS_CSV if route in ROUTES])
def test_lists_history_and_analytics_are_csv_by_suffix_and_by_accept(
    route: str, call: Callable[..., httpx.Response]
) -> None:
    operation = BY_PLACE[reference.BASE + route, "GET"]
    by_suffix = call(operation, "GET", ".csv")
    by_accept = call(operation, "GET", headers={"Accept": "text/csv"})
    for response in (by_suffix, by_accept):
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/csv")
        header, *_ = csv.reader(io.StringIO(response.text))
        assert len(header) > 1


@pytest.mark.parametrize("route", ROUTES)
def test_a_trailing_slash_is_the_same_resource(
    route: str, call: Callable[..., httpx.Response], stranger: httpx.Client
) -> None:
    path = (reference.BASE + route).replace("{id}", "any")
    assert stranger.options(path + "/").headers["allow"] == stranger.options(path).headers["allow"]
    operation = BY_PLACE.get((reference.BASE + route, "GET"))
    if operation is not None:
        response = call(operation, "GET", "/")
        assert response.status_code == 200, response.text
        assert not response.history

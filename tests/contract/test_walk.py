"""Every operation of the contract, and what holds for each of them without being written for any."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from models.audit import AuditEntry
from openapi import bundle
from tests.contract.conformance import allowed, described
from tests.contract.specimens import Operation, Specimens, code_of, operations, unknown_id
from tests.servers import Server, new_user

OPERATIONS = operations()
GUARDED = [operation for operation in OPERATIONS if not operation.is_public]
PATHS = list(described().spec["paths"])
STACKS = "/api/v1/tenants/stacks"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE")

WORKS_OTHERWISE = {
    "accounts.register": "the installation is closed unless it is told otherwise",
    "accounts.change_password": "the example's password is nobody's",
    "accounts.reset": "the example's token is nobody's",
    "accounts.accept": "the example's token is nobody's",
    "accounts.set_up_mfa": "the example's password is nobody's",
    "accounts.remove_mfa": "only a device that has just signed in may do this",
}
"""Operations whose example alone cannot succeed, and why. May only shrink."""


def of(chosen: list[Operation]) -> pytest.MarkDecorator:
    """One test for each."""
    return pytest.mark.parametrize("operation", chosen, ids=[operation.id for operation in chosen])


@pytest.fixture
def fresh(ours: Specimens, server: Server) -> Iterator[Specimens]:
    """The same, with everything made anew: what a test does to it is nobody else's affair."""
    with server.database() as db:
        person = new_user(db, ours.tenant, "member").id
    yield Specimens(ours.client, ours.tenant, {"user": person}, ours.operator, ours.anonymous)
    for stack in ours.client.get(STACKS).json()["results"]:
        if stack["id"] != ours.tenant["stack_id"]:  # with two, others' calls would have to name one
            ours.client.delete(f"{STACKS}/{stack['id']}").raise_for_status()


class TestMethods:
    @pytest.mark.parametrize("path", PATHS)
    def test_options_tells_what_is_served(self, path: str, anonymous: httpx.Client) -> None:
        response = anonymous.options(path.replace("{", "").replace("}", ""))
        item = described().spec["paths"][path]
        assert response.status_code == 204
        assert set(response.headers["allow"].split(", ")) == allowed(item)
        assert "GET" not in allowed(item) or "HEAD" in response.headers["allow"]

    @pytest.mark.parametrize("path", PATHS)
    def test_any_other_is_405(self, path: str, anonymous: httpx.Client) -> None:
        item = described().spec["paths"][path]
        others = [method for method in METHODS if method not in allowed(item)]
        assert others
        for method in others:
            response = anonymous.request(method, path.replace("{", "").replace("}", ""))
            assert (response.status_code, code_of(response)) == (405, "method-not-allowed")

    @of([operation for operation in OPERATIONS if operation.method == "get"])
    def test_head_is_get_without_its_body(self, operation: Operation, ours: Specimens) -> None:
        got, head = _in_peace(ours, operation, method="HEAD")
        assert head.status_code == got.status_code
        assert {"content-length"} & head.headers.keys() == {"content-length"} & got.headers.keys()
        for name in ("content-type", "etag"):
            assert head.headers.get(name) == got.headers.get(name)
        if ours.send(operation).content == got.content:
            assert head.headers.get("content-length") == got.headers.get("content-length")


def _steady(response: httpx.Response) -> Any:
    """An answer's JSON without the URL that was asked for and without what was measured meanwhile."""

    def steady(value: Any) -> Any:
        if isinstance(value, list):
            return [steady(part) for part in value]
        if isinstance(value, dict):
            passing = ("next", "previous", "instance", "request_id", "took_ms", "latency_ms")
            return {name: steady(inner) for name, inner in value.items() if name not in passing}
        return value

    is_json = "json" in response.headers.get("content-type", "")
    return steady(response.json()) if is_json else None


def _in_peace(ours: Specimens, operation: Operation, **changes: Any) -> tuple[httpx.Response, httpx.Response]:
    """A read's answer and that to a changed one, while nothing else happened to the resource."""
    for _ in range(100):
        plain, other = ours.send(operation), ours.send(operation, **changes)
        if _steady(ours.send(operation)) == _steady(plain):
            break
        time.sleep(0.1)  # a job is at work on it
    return plain, other


class TestPaths:
    @of([operation for operation in OPERATIONS if operation.method == "get"])
    @pytest.mark.parametrize("suffix", ["/", ".json"])
    def test_a_slash_or_suffix_is_the_same_resource(
        self, operation: Operation, suffix: str, ours: Specimens
    ) -> None:
        plain, other = _in_peace(ours, operation, url=ours.call(operation)["url"] + suffix)
        assert other.status_code == plain.status_code
        assert _steady(other) == _steady(plain)

    @of([operation for operation in GUARDED if operation.method != "get"])
    @pytest.mark.parametrize("suffix", ["/", ".json"])
    def test_a_slash_or_suffix_reaches_the_same_operation(
        self,
        operation: Operation,
        suffix: str,
        ours: Specimens,
        connection: Callable[[str | None], httpx.Client],
    ) -> None:
        url = ours.call(operation)["url"] + suffix
        assert ours.send(operation, connection(None), url=url).status_code == 401

    @of([operation for operation in OPERATIONS if any(p["in"] == "path" for p in operation.parameters)])
    def test_an_id_that_is_none_is_named(self, operation: Operation, ours: Specimens) -> None:
        for parameter in operation.parameters:
            if parameter["in"] != "path" or parameter["schema"].get("format") != "uuid":
                continue
            if operation.is_visitors and parameter["name"] == "id":
                continue  # to a visitor, whatever is not the token's conversation is not there
            call = ours.call(operation, **{parameter["name"]: "none"})
            response = ours.client_for(operation).request(**call)
            assert response.status_code == 400
            assert parameter["name"] in [fault.get("parameter") for fault in response.json()["errors"]]

    @pytest.mark.parametrize(
        "path", ["/api/v1/nowhere", "/api", "/api/v1/chat/personas/a/b/c", "/api/v1/chat//bots"]
    )
    def test_an_unknown_one_is_404_for_everybody(
        self, path: str, anonymous: httpx.Client, client: httpx.Client
    ) -> None:
        for caller in (anonymous, client):
            response = caller.get(path)
            assert (response.status_code, code_of(response)) == (404, "not-found")


class TestRequests:
    @of([operation for operation in OPERATIONS if operation.produces])
    def test_a_type_that_nothing_serves_is_406(self, operation: Operation, ours: Specimens) -> None:
        response = ours.send(operation, headers={"Accept": "image/x-none"})
        assert (response.status_code, code_of(response)) == (406, "not-acceptable")

    @of([operation for operation in OPERATIONS if not operation.is_lenient])
    def test_what_is_not_in_the_contract_is_named(self, operation: Operation, ours: Specimens) -> None:
        call = ours.call(operation)
        call["params"] = {**call["params"], "surprise": "1"}
        # Only operators name a tenant.
        field = "surprise" if operation.is_operators else "tenant_id"
        for part in ("json", "data"):
            if part in call:
                call[part] = {**call[part], field: unknown_id()}
        response = ours.client_for(operation).request(**call)
        assert (response.status_code, code_of(response)) == (400, "validation-failed")
        told = response.json()["errors"]
        assert "surprise" in [fault.get("parameter") for fault in told]
        if operation.body is not None:
            assert any(field in fault["detail"] + fault.get("pointer", "") for fault in told)

    @of([operation for operation in OPERATIONS if any(p["in"] == "query" for p in operation.parameters)])
    def test_a_parameter_that_stands_twice_is_named(self, operation: Operation, ours: Specimens) -> None:
        single = [
            p for p in operation.parameters if p["in"] == "query" and p["schema"].get("type") != "array"
        ]
        for parameter in single:
            pair = [(parameter["name"], "1"), (parameter["name"], "1")]
            response = ours.send(operation, params=pair)
            assert response.status_code == 400
            named = [fault.get("parameter") for fault in response.json()["errors"]]
            assert parameter["name"] in named

    @of([operation for operation in GUARDED if operation.takes("If-Match")])
    def test_a_stale_write_is_412(self, operation: Operation, ours: Specimens) -> None:
        response = ours.send(operation, headers={"If-Match": '"stale"'})
        assert (response.status_code, code_of(response)) == (412, "precondition-failed")

    @of([operation for operation in GUARDED if operation.takes("If-None-Match")])
    def test_a_known_representation_is_304(self, operation: Operation, ours: Specimens) -> None:
        etag = ours.send(operation).headers["etag"]
        response = ours.send(operation, headers={"If-None-Match": etag})
        assert response.status_code == 304
        assert response.headers["etag"] == etag


@pytest.fixture
def told(ours: Specimens) -> Iterator[Callable[[], int]]:
    """How many events a webhook of ours was told of what is changed by hand; documents are read meanwhile."""
    webhook = f"/api/v1/webhooks/{ours.another('webhook')}"
    types = [event["type"] for event in ours.client.get("/api/v1/webhooks/event-types").json()["results"]]
    by_hand = [type for type in types if not type.startswith(("document.", "file.", "message."))]
    ours.client.patch(webhook, json={"event_types": by_hand}).raise_for_status()
    yield lambda: ours.client.get(f"{webhook}/deliveries").json()["count"]
    ours.client.delete(webhook).raise_for_status()


class TestChanges:
    @of([operation for operation in OPERATIONS if operation.method in ("put", "patch")])
    def test_one_that_changes_nothing_leaves_no_trace(
        self, operation: Operation, fresh: Specimens, server: Server, told: Callable[[], int]
    ) -> None:
        def traces() -> tuple[int, int]:
            """Entries of the audit log about this operation, and events."""
            with server.database() as db:
                of_it = select(func.count()).where(AuditEntry.operation == operation.id)
                return db.scalar(of_it) or 0, told()

        client, call = fresh.client_for(operation), fresh.ready(operation)
        if operation.id == "documents.update":
            fresh.settled("documents.get", "ready")  # until then its progress changes by itself
        first = client.request(**call)
        assert first.is_success, first.text
        before = traces()
        again = client.request(**call)
        assert again.is_success, again.text
        assert (again.content, again.headers.get("etag")) == (first.content, first.headers.get("etag"))
        assert traces() == before


NO_BODY: dict[Any, Any] = {None: {}}


def _examples() -> list[Any]:
    return [
        pytest.param(operation, example, id=f"{operation.id}-{example or 'plain'}")
        for operation in OPERATIONS
        for example, body in (operation.examples or NO_BODY).items()
        if "url" not in body  # the server would fetch it from beyond loopback
    ]


class TestExamples:
    @pytest.mark.parametrize(("operation", "example"), _examples())
    def test_works(self, operation: Operation, example: str | None, fresh: Specimens) -> None:
        response = fresh.client_for(operation).request(**fresh.ready(operation, example))
        assert response.is_success != (operation.id in WORKS_OTHERWISE), response.text

    @of([operation for operation in OPERATIONS if operation.takes("Idempotency-Key")])
    def test_is_answered_once(self, operation: Operation, fresh: Specimens) -> None:
        if operation.id in WORKS_OTHERWISE:
            pytest.skip("its example alone cannot succeed")
        call, headers = fresh.ready(operation), {"Idempotency-Key": unknown_id()}
        first = fresh.client_for(operation).request(**call, headers=headers)
        again = fresh.client_for(operation).request(**call | {"url": call["url"] + ".json"}, headers=headers)
        assert first.is_success, first.text
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.status_code == first.status_code
        if again.headers["content-type"].startswith("application/json"):
            assert again.json().items() <= first.json().items()
        else:
            assert again.headers["content-type"] == first.headers["content-type"]

    @of([operation for operation in OPERATIONS if operation.takes("Idempotency-Key") and operation.body])
    def test_other_content_under_the_same_key_is_422(self, operation: Operation, fresh: Specimens) -> None:
        if operation.id in WORKS_OTHERWISE:
            pytest.skip("its example alone cannot succeed")
        headers = {"Idempotency-Key": unknown_id()}
        assert fresh.client_for(operation).request(**fresh.ready(operation), headers=headers).is_success
        call = fresh.call(operation)
        if "json" in call:
            # The same content to a reader of JSON, other bytes on the wire.
            call["content"] = json.dumps(call.pop("json"), indent=4)
            headers["Content-Type"] = "application/json"
        response = fresh.client_for(operation).request(**call, headers=headers)
        assert (response.status_code, code_of(response)) == (422, "idempotency-key-reused")


def test_the_exemptions_are_operations() -> None:
    known = {operation.id for operation in OPERATIONS}
    assert WORKS_OTHERWISE.keys() <= known
    assert len({operation.id for operation in operations()}) == len(list(bundle.operations(described().spec)))

"""Every answer of the suite against the contract: a transport that no test can forget to use."""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import Any

import httpx
import jsonschema_rs
import yaml

from openapi import bundle
from openapi.schemas import compile_schema, faults_of

exercised: Counter[tuple[str, int]] = Counter()
"""How often each operation answered with each status, in the whole run."""

NOT_EXERCISED: frozenset[str] = frozenset()
"""Operations that no test needs to have succeed. May only shrink."""

PROBLEM = "application/problem+json"
PLACES = {"GET": "get", "HEAD": "get", "POST": "post", "PUT": "put", "PATCH": "patch", "DELETE": "delete"}
_addresses = count()
SUFFIX = re.compile(r"\.(json|csv|md)$")


class NotInContract(AssertionError):
    """The server answered something that openapi/dist/openapi.yaml does not describe."""


class Described:
    """The contract, by path and method."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] = yaml.load(bundle.DIST.read_bytes(), Loader=yaml.CSafeLoader)  # noqa: S506 - the safe loader
        self.paths: list[tuple[re.Pattern[str], dict[str, Any]]] = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), item)
            for path, item in self.spec["paths"].items()
        ]
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def resolve(self, node: Any) -> Any:
        """A node of the contract with every reference replaced by what it points to."""
        if isinstance(node, list):
            return [self.resolve(part) for part in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            _, *keys = node["$ref"].split("/")
            found: Any = self.spec
            for key in keys:
                found = found[key]
            return self.resolve(found)
        return {key: self.resolve(value) for key, value in node.items()}

    def shallow(self, node: dict[str, Any]) -> dict[str, Any]:
        """What a node refers to, whose own references stay."""
        while "$ref" in node:
            _, section, kind, name = node["$ref"].split("/")
            node = self.spec[section][kind][name]
        return node

    def headers(self, response: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The headers of a response, by name."""
        for name, header in response.get("headers", {}).items():
            yield name, self.shallow(header)

    def item_at(self, path: str) -> dict[str, Any] | None:
        """The path item that serves a path, with a trailing slash or a suffix or without."""
        plain = path.rstrip("/") or "/"
        for candidate in (SUFFIX.sub("", plain), plain):
            for pattern, item in self.paths:
                if pattern.fullmatch(candidate):
                    return item
        return None

    def validator(self, schema: dict[str, Any]) -> jsonschema_rs.Validator:
        """Compiled once for each schema."""
        text = json.dumps(schema, sort_keys=True)
        if text not in self._validators:
            self._validators[text] = compile_schema(self.resolve(schema))
        return self._validators[text]


described = cache(Described)


def never_succeeded() -> set[str]:
    """Operations that answered nobody in this run with 2xx."""
    known = {operation["operationId"] for _, _, operation in bundle.operations(described().spec)}
    return known - {id for id, status in exercised if 200 <= status < 300}


def allowed(item: dict[str, Any]) -> set[str]:
    """The methods that a resource serves."""
    names = {name.upper() for name in bundle.METHODS if name in item}
    return names | {"OPTIONS"} | ({"HEAD"} if "GET" in names else set())


class Checked(httpx.SyncByteStream):
    """A body that is handed on as it comes and judged when it is whole."""

    def __init__(self, stream: httpx.SyncByteStream, judge: Any) -> None:
        self.stream, self.judge, self.parts = stream, judge, bytearray()

    def __iter__(self) -> Iterator[bytes]:
        for part in self.stream:
            self.parts += part
            yield part
        self.judge(bytes(self.parts))

    def close(self) -> None:
        self.stream.close()


class Conformance(httpx.BaseTransport):
    """HTTP, with a word from the contract about every answer."""

    def __init__(self, transport: httpx.BaseTransport | None = None) -> None:
        self.transport = transport or httpx.HTTPTransport(verify=_tls())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.transport.handle_request(request)
        where = f"{request.method} {request.url.path} -> {response.status_code}"
        content = check_head(request, response, where)
        stream = response.stream
        assert isinstance(stream, httpx.SyncByteStream)
        response.stream = Checked(stream, lambda body: check_body(request, response, content, body, where))
        return response

    def close(self) -> None:
        self.transport.close()


def check_head(request: httpx.Request, response: httpx.Response, where: str) -> dict[str, Any] | None:
    """Status and headers; what the contract says about the body."""
    status, headers = response.status_code, response.headers
    item = described().item_at(request.url.path)
    if item is None:
        return _unknown_path(request, response, where)
    _need("x-request-id" in headers, where, "X-Request-ID is missing")
    if request.method == "OPTIONS":
        _need(status == 204, where, "OPTIONS answers 204")
        _need(_listed(headers.get("allow", "")) == allowed(item), where, f"Allow is {headers.get('allow')!r}")
        return None
    place = PLACES.get(request.method)
    if place is None or place not in item:
        # A URL that cannot be read is refused before it is known what it names.
        _need(status in (405, 400), where, "a method that is not in the contract answers 405")
        if status == 405:
            _need(
                _listed(headers.get("allow", "")) == allowed(item),
                where,
                f"Allow is {headers.get('allow')!r}",
            )
        return _refusals(item)
    operation = item[place]
    exercised[operation["operationId"], status] += 1
    where = f"{operation['operationId']}: {where}"
    documented = operation["responses"].get(str(status))
    _need(documented is not None, where, f"the status is none of {sorted(operation['responses'])}")
    documented = described().shallow(documented)
    _check_headers(operation, documented, response, where)
    content: dict[str, Any] = documented.get("content", {})
    if content and request.method != "HEAD":
        kind = headers.get("content-type", "").partition(";")[0]
        _need(kind in content, where, f"the type {kind!r} is none of {sorted(content)}")
    return content


def _refusals(item: dict[str, Any]) -> dict[str, Any]:
    """What a refusal looks like that belongs to no operation of a resource, but to the resource."""
    shapes = {item[name].get("x-error-shape") for name in bundle.METHODS if name in item}
    if shapes == {"openai"}:
        content: dict[str, Any] = described().spec["components"]["responses"]["OpenAIError"]["content"]
        return content
    return {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _unknown_path(request: httpx.Request, response: httpx.Response, where: str) -> dict[str, Any] | None:
    if not request.url.path.startswith("/api/"):
        return None  # a page; its own tests look at it
    _need(response.status_code in (400, 404), where, "a path that is not in the contract answers 404")
    return {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _check_headers(
    operation: dict[str, Any], documented: dict[str, Any], response: httpx.Response, where: str
) -> None:
    status, headers = response.status_code, response.headers
    for name, header in described().headers(documented):
        if name in headers:
            value: Any = headers[name]
            if header["schema"].get("type") == "integer":
                _need(value.isdecimal(), where, f"{name} is {value!r}")
                value = int(value)
            faults = faults_of(described().validator(header["schema"]), value)
            _need(not faults, where, f"{name} is {value!r}: {faults}")
    demanded = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}.get(status)
    if status == 201 and "Location" in documented.get("headers", {}):
        demanded = "Location"
    if status == 200 and "ETag" in documented.get("headers", {}):
        demanded = "ETag"
    _need(demanded is None or demanded in headers, where, f"{demanded} is missing")
    if 200 <= status < 300 and operation.get("x-rate-limited", True):
        _need("ratelimit" in headers and "ratelimit-policy" in headers, where, "RateLimit is missing")


def check_body(
    request: httpx.Request, response: httpx.Response, content: dict[str, Any] | None, body: bytes, where: str
) -> None:
    """The body against its schema."""
    if request.method == "HEAD" or response.status_code in (204, 304):
        _need(not body, where, "an answer without a body has one")
        return
    if content is None:
        return
    if not content:
        _need(not body, where, "the contract describes no body")
        return
    kind = response.headers.get("content-type", "").partition(";")[0]
    _need(kind in content, where, f"the type {kind!r} is none of {sorted(content)}")
    schema = content[kind]["schema"]
    if kind.endswith("json"):
        value = json.loads(body.decode("utf-8"))
    elif described().resolve(schema).get("format") == "binary":
        return
    elif kind == "text/event-stream":
        _check_events(schema, body.decode("utf-8"), where)
        return
    else:
        value = body.decode("utf-8")
    faults = faults_of(described().validator(schema), value)
    _need(not faults, where, f"the body does not fit: {faults[:5]} in {body[:2000]!r}")
    if kind == PROBLEM:
        _check_problem(request, response, value, where)


def events_of(text: str) -> Iterator[dict[str, str]]:
    """Server-sent events as a browser reads them (WHATWG HTML, 9.2.6), each by its lines."""
    _need(text.endswith("\n\n") or not text, "the stream", "its last event is cut off")
    for block in text.split("\n\n"):
        event: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                joined = [event[name]] if name == "data" and name in event else []
                event[name] = "\n".join([*joined, value.removeprefix(" ")])
        if event:
            yield event


def _check_events(schema: dict[str, Any], text: str, where: str) -> None:
    """Each event against its schema, ``data`` as JSON, and positions that rise."""
    position = -1
    for event in events_of(text):
        faults = faults_of(described().validator(schema), event)
        _need(not faults, where, f"an event does not fit: {faults[:5]} in {event}")
        if event["data"] != "[DONE]":
            json.loads(event["data"])
        if "id" in event:
            following = int(event["id"].rpartition(":")[2])
            _need(following > position, where, f"{event['id']} does not rise above {position}")
            position = following


def _check_problem(request: httpx.Request, response: httpx.Response, problem: Any, where: str) -> None:
    _need(problem["status"] == response.status_code, where, "the problem tells another status")
    _need(problem["type"].endswith("/" + problem["error"]), where, "type does not end in the code")
    _need(problem["request_id"] == response.headers["x-request-id"], where, "request_id is another")
    if problem["error"] == "validation-failed":
        _need("detail" in problem and problem["detail"], where, "a refusal without a reason")


@cache
def _tls() -> ssl.SSLContext:
    """Made once: it takes longer than most requests, and loopback has no use for it."""
    return ssl.create_default_context()


def _listed(header: str) -> set[str]:
    return {part.strip() for part in header.split(",")}


def _need(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise NotInContract(f"{where}: {what}")


def client(url: str, key: str | None, *, checked: bool = True) -> httpx.Client:
    """A client with a key or none. Unchecked only for what the contract deliberately does not know.

    Without a key each request comes from an address of its own, as far as the server trusts what it is told.
    """
    headers = {"Accept-Encoding": "identity", **({"X-API-Key": key} if key else {})}
    transport: httpx.BaseTransport = httpx.HTTPTransport(verify=_tls())
    if checked:
        transport = Conformance(transport)
    made = httpx.Client(base_url=url, headers=headers, transport=transport, timeout=60, trust_env=False)
    if key is None:
        made.event_hooks = {"request": [_from_elsewhere]}
    return made


def _from_elsewhere(request: httpx.Request) -> None:
    request.headers.setdefault("X-Forwarded-For", an_address())


def an_address() -> str:
    """An address that nobody else has."""
    return str(ipaddress.IPv4Address("10.128.0.0") + next(_addresses))

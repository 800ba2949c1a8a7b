"""Requests made from the contract alone: one of each resource, and a valid call of each operation."""

from __future__ import annotations

import copy
import io
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import count
from typing import Any

import httpx
import jsonschema_rs
from PIL import Image

from openapi import bundle
from openapi.schemas import compile_schema
from tests.contract.conformance import described
from tests.servers import Tenant

NOTE = (
    b"Annual report of a company made up for this test.\nRevenue rose by 12 per cent to 340 million euros.\n"
)
SINGULAR = {"indices": "index", "categories": "category", "deliveries": "delivery"}
GLOBAL = ("product", "region")
"""What belongs to no tenant, and is seen by all."""
SINGLE = {"configuration"}
"""Of what a place holds one at most; another takes its place."""
EMBED, ORIGIN = "/api/v1/embed/", "https://www.tarnwick.example"
SETTLES_WITHIN = 60.0
_numbers = count(1)


def picture() -> tuple[str, bytes, str]:
    """A small PNG to upload, each time another."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16), next(_numbers)).save(out, "PNG")
    return "icon.png", out.getvalue(), "image/png"


def kind_of(collection: str) -> str:
    """What a collection holds: ``personas`` a ``persona``."""
    return SINGULAR.get(collection) or collection.removesuffix("s").replace("-", "_")


def unknown_id() -> str:
    """An id that never was."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request names a resource: in its path, query or body."""

    where: str
    name: tuple[str, ...]
    kind: str
    many: bool = False

    def __str__(self) -> str:
        return f"{self.where}:{'/'.join(self.name)}"


@dataclass
class Operation:
    """An operation of the contract as a test sees it."""

    path: str
    method: str
    spec: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """Its operationId."""
        name: str = self.spec["operationId"]
        return name

    @property
    def is_lenient(self) -> bool:
        """Whether it speaks as OpenAI does, and ignores what it does not know."""
        return self.spec.get("x-error-shape") == "openai"

    @property
    def is_public(self) -> bool:
        """Whether it needs no credentials."""
        return bundle.is_public(self.spec)

    @property
    def is_visitors(self) -> bool:
        """Whether it serves the visitors of bots, by their own tokens."""
        return self.path.startswith(EMBED)

    @property
    def is_operators(self) -> bool:
        """Whether it serves the installation's operators alone."""
        return self.spec.get("x-operators") == "only"

    @property
    def scope(self) -> str | None:
        """What the caller needs."""
        return self.spec.get("x-required-scope")

    @cached_property
    def parameters(self) -> list[dict[str, Any]]:
        """Its parameters, references resolved."""
        found: list[dict[str, Any]] = described().resolve(self.spec.get("parameters", []))
        return found

    def takes(self, header: str) -> bool:
        """Whether it has this header parameter."""
        return any(p["name"] == header for p in self.parameters)

    @cached_property
    def body(self) -> tuple[str, dict[str, Any]] | None:
        """The media type to send, JSON where it may be, and what the contract says of it."""
        content = described().resolve(self.spec.get("requestBody", {})).get("content", {})
        return next(((kind, content[kind]) for kind in sorted(content)), None)

    @cached_property
    def validator(self) -> jsonschema_rs.Validator:
        """Of its body."""
        assert self.body is not None
        return compile_schema(self.body[1]["schema"])

    @cached_property
    def examples(self) -> dict[str, Any]:
        """The contract's examples of the body, by name."""
        if self.body is None:
            return {}
        named = {name: example["value"] for name, example in self.body[1].get("examples", {}).items()}
        return named or {"example": self.body[1]["example"]}

    @cached_property
    def produces(self) -> list[str]:
        """The types of its successes."""
        return [
            kind
            for status, response in described().resolve(self.spec["responses"]).items()
            if status.startswith("2")
            for kind in response.get("content", {})
        ]

    @cached_property
    def places(self) -> list[Place]:
        """Where it names resources."""
        found = []
        for parameter in self.parameters:
            if parameter["schema"].get("format") == "uuid" and parameter["in"] in ("path", "query"):
                found.append(Place(parameter["in"], (parameter["name"],), self.kind(parameter["name"])))
        if self.body is not None:
            found += _places(self.body[1]["schema"], ())
        collection = kind_of(self.path.split("/")[-2])  # `ids` of a bulk call
        return [replace(place, kind=collection) if place.kind == "ids" else place for place in found]

    def kind(self, parameter: str) -> str:
        """What a parameter names: ``{persona_id}`` a persona, ``/personas/{id}`` too."""
        before = re.search(r"/([\w-]+)/\{" + parameter + r"\}", self.path)
        if parameter == "id" and before:
            return kind_of(before[1])
        return parameter.removesuffix("_id")


def _places(schema: dict[str, Any], at: tuple[str, ...]) -> Iterator[Place]:
    for part in (schema, *schema.get("oneOf", []), *schema.get("anyOf", [])):
        for name, inner in part.get("properties", {}).items():
            kind = re.sub(r"^accessible_|_ids?$", "", name)
            if inner.get("format") == "uuid":
                yield Place("body", (*at, name), kind)
            elif inner.get("type") == "array" and inner["items"].get("format") == "uuid":
                yield Place("body", (*at, name), kind, many=True)
            elif inner.get("type") == "object":
                yield from _places(inner, (*at, name))


@cache
def operations() -> list[Operation]:
    """All of the contract."""
    return [Operation(path, method, spec) for path, method, spec in bundle.operations(described().spec)]


def operation_of(id: str) -> Operation:
    """The operation of that operationId."""
    return next(operation for operation in operations() if operation.id == id)


MADE_BY = {"delivery": "webhooks.try_out"}
"""What comes of something else than a POST to where it stands."""


@cache
def _creator(kind: str) -> Operation | None:
    if kind in MADE_BY:
        return operation_of(MADE_BY[kind])
    for operation in operations():
        collection = operation.path.rpartition("/")[2]
        has_items = any(path.startswith(operation.path + "/{") for path in described().spec["paths"])
        if operation.method == "post" and has_items and kind_of(collection) == kind:
            return operation
    return None


@dataclass
class Specimens:
    """One of each resource in a tenant, made through the contract when first asked for."""

    client: httpx.Client
    tenant: Tenant
    known: dict[str, str] = field(default_factory=dict)
    operator: httpx.Client | None = None
    anonymous: httpx.Client | None = None

    def __post_init__(self) -> None:
        given = {name: self.tenant[f"{name}_id"] for name in ("stack", "user", "tenant")}
        self.known = given | self.known

    def the(self, kind: str) -> str | None:
        """The id of this tenant's one; None where the contract has no operation that makes it."""
        if kind in SINGLE:
            return self._present(kind) or self.another(kind)
        if kind not in self.known:
            made = self.another(kind)
            if made is None:
                return None
            self.known[kind] = made
        return self.known[kind]

    def client_for(self, operation: Operation) -> httpx.Client:
        """The tenant's owner; an operator where only they are served, anybody where nobody needs a key."""
        if operation.is_public and self.anonymous is not None:
            return self.anonymous
        return self.operator if self.operator is not None and operation.is_operators else self.client

    def another(self, kind: str) -> str | None:
        """The id of a fresh one; None where nobody at hand may make one."""
        creator = _creator(kind)
        if creator is None or (creator.is_operators and self.operator is None):
            return None
        response = self.send(creator)
        assert response.status_code in (200, 201, 202), f"{creator.id} made no {kind}: {response.text}"
        return _id_of(response)

    def settled(self, getter: str, says: str) -> None:
        """Wait until this operation's answer says so."""
        deadline = time.monotonic() + SETTLES_WITHIN
        while says not in (answer := self.send(operation_of(getter)).text):
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)  # a job is at work on it

    @cached_property
    def _subscribed(self) -> str:
        """The product that the tenant has a subscription to."""
        stack = self.client.get(f"/api/v1/tenants/stacks/{self.tenant['stack_id']}").json()
        return str(stack["product_id"])

    @cached_property
    def _visit(self) -> dict[str, str]:
        """A visitor's conversation with a bot of ours: its path parameters, and the visitor's ``token``."""
        client = self.anonymous or self.client
        persona = self.client.get("/api/v1/chat/personas").json()["results"][0]["id"]
        bot = {"name": "Desk", "persona_id": persona, "allowed_origins": [ORIGIN]}
        made = self.client.post("/api/v1/chat/bots", json={**bot, "rate_limit_per_minute": 1000}).json()
        at, page = f"{EMBED}{made['public_key']}/sessions", {"Origin": ORIGIN}
        begun = client.post(at, headers=page).json()
        page["Authorization"] = f"Bearer {begun['visitor_token']}"
        question = {"content": "Hello?"}
        asked = client.post(f"{at}/{begun['session_id']}/messages", json=question, headers=page).json()
        names = {"public_key": made["public_key"], "id": begun["session_id"], "message_id": asked["id"]}
        return {**names, "token": begun["visitor_token"]}

    def _present(self, kind: str) -> str | None:
        """The id of the one that is there, of a kind of which a place holds one at most."""
        creator = _creator(kind)
        assert creator is not None
        found = self.client.get(creator.path).json()["results"]
        return str(found[0]["id"]) if found else None

    def _make_room(self, operation: Operation) -> None:
        kind = kind_of(operation.path.rpartition("/")[2])
        if operation.method == "post" and kind in SINGLE:
            while (id := self._present(kind)) is not None:
                self.client.delete(f"{operation.path}/{id}").raise_for_status()

    def call(self, operation: Operation, example: str | None = None, **ids: str) -> dict[str, Any]:
        """A valid call, for ``httpx.Client.request``. ``ids``: of path parameters, in place of ours."""
        self._make_room(operation)
        path, query = operation.path, {}
        visit = self._visit if operation.is_visitors else {}
        ids = visit | ids
        for parameter in operation.parameters:
            name = parameter["name"]
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", ids.get(name) or self._value(operation, parameter))
            elif parameter["in"] == "query" and parameter.get("required"):
                query[name] = self._value(operation, parameter)
        return {
            "method": operation.method.upper(),
            "url": path,
            "params": query,
            **({"headers": {"Origin": ORIGIN, "Authorization": f"Bearer {visit['token']}"}} if visit else {}),
            **self._body(operation, example),
        }

    def ready(self, operation: Operation, example: str | None = None) -> dict[str, Any]:
        """A call that succeeds: what has to be there first was made."""
        said = BEFORE[operation.id](self) if operation.id in BEFORE else None
        call = self.call(operation, example)
        if said:
            call["json"] = {**call["json"], **said}
        return call

    def send(
        self, operation: Operation, client: httpx.Client | None = None, **changes: Any
    ) -> httpx.Response:
        """Send a valid call (with ``changes`` to its parts)."""
        call = self.call(operation)
        headers = {**call.pop("headers", {}), **changes.pop("headers", {})}
        return (client or self.client_for(operation)).request(**{**call, "headers": headers, **changes})

    def _value(self, operation: Operation, parameter: dict[str, Any]) -> str:
        schema = parameter["schema"]
        if schema.get("format") == "uuid":
            return self.the(operation.kind(parameter["name"])) or unknown_id()
        return str(parameter.get("example", schema.get("example", schema.get("enum", ["1"])[0])))

    def _body(self, operation: Operation, example: str | None) -> dict[str, Any]:
        if operation.body is None:
            return {}
        # An example that has the server fetch something would leave loopback.
        usable = [name for name, value in operation.examples.items() if "url" not in value] or [
            *operation.examples
        ]
        body = copy.deepcopy(operation.examples[example or usable[0]])
        for place in operation.places:
            if place.where == "body":
                self._fill(body, place, operation)
        if operation.is_lenient:
            body["model"] = "assistant"  # the slug of the persona that every tenant begins with
        if isinstance(body.get("name"), str) and operation.method == "post":
            body["name"] = f"{body['name']} {next(_numbers)}"
        if isinstance(body.get("email"), str) and operation.method == "post" and not operation.is_public:
            body["email"] = f"{next(_numbers)}-{body['email']}"
        if operation.body[0] == "application/json":
            return {"json": body}
        properties = operation.body[1]["schema"]["properties"]
        files = {
            name: picture()
            if operation.path.endswith("/icons/upload")
            else (f"note-{next(_numbers)}.txt", NOTE + str(next(_numbers)).encode(), "text/plain")
            for name in body
            if properties[name].get("format") == "binary"
        }
        return {"files": files, "data": {name: value for name, value in body.items() if name not in files}}

    def _fill(self, body: dict[str, Any], place: Place, operation: Operation) -> None:
        """Our own id in place of the example's; what the contract cannot make is left out."""
        *outer, name = place.name
        for key in outer:
            body = body.get(key, {})
        if body.get(name) is None or body[name] == []:
            return
        if place.kind == "product" and not operation.is_operators:
            found: str | None = self._subscribed
        else:
            found = self.the(place.kind) if place.kind else None
        if found is None:
            del body[name]
        else:
            body[name] = [found] if place.many else found


def _sat_down(ours: Specimens) -> None:
    ours.send(operation_of("seats.put")).raise_for_status()


def _unused_stack(ours: Specimens) -> None:
    ours.known["stack"] = ours.another("stack") or ""


def _closed_tenant(ours: Specimens) -> None:
    ours.known["tenant"] = ours.another("tenant") or ""
    ours.send(operation_of("tenants.update"), json={"is_active": False}).raise_for_status()


def _asked(ours: Specimens) -> None:
    ours.the("message")


def _written_archive(ours: Specimens) -> None:
    ours.settled("exports.get", '"status":"ready"')


def _sent_webhook(ours: Specimens) -> None:
    ours.the("delivery")
    ours.settled("webhooks.deliveries", '"status_code":')


def _unreadable(kind: str) -> Callable[[Specimens], None]:
    def make(ours: Specimens) -> None:
        creator = operation_of(f"{kind}s.create")
        call = ours.call(creator)
        fields = call.pop("json", None) or call.pop("data")
        call["data"] = {name: id for name, id in fields.items() if name in ("index_id", "session_id")}
        content = f"%PDF-1.7 broken {next(_numbers)}".encode()
        call["files"] = {"file": ("broken.pdf", content, "application/pdf")}
        ours.known[kind] = _id_of(ours.client.request(**call))
        ours.settled(f"{kind}s.get", '"status":"failed"')

    return make


def _signed_in(ours: Specimens) -> dict[str, Any]:
    said = {"email": ours.tenant["email"], "password": ours.tenant["password"]}
    tokens: dict[str, Any] = ours.send(operation_of("sign_in.login"), json=said).raise_for_status().json()
    return tokens


def _device(ours: Specimens) -> None:
    _signed_in(ours)
    ours.known["session"] = ours.send(operation_of("accounts.list_devices")).json()["results"][0]["id"]


BEFORE: dict[str, Callable[[Specimens], dict[str, Any] | None]] = {
    "seats.delete": _sat_down,
    "stacks.delete": _unused_stack,
    "tenants.delete": _closed_tenant,
    "messages.resume": _asked,
    "messages.regenerate": _asked,
    "exports.download": _written_archive,
    "webhooks.redeliver": _sent_webhook,
    "files.retry": _unreadable("file"),
    "documents.retry": _unreadable("document"),
    "accounts.sign_out_device": _device,
    "sign_in.login": lambda ours: {name: ours.tenant[name] for name in ("email", "password")},
    "sign_in.refresh": lambda ours: {"refresh_token": _signed_in(ours)["refresh_token"]},
}
"""What has to be there before an operation can succeed; some give what to say in place of the example."""


def with_id(call: dict[str, Any], operation: Operation, place: Place, id: str) -> dict[str, Any] | None:
    """The call with this id at that place; None where the contract itself would refuse it there."""
    made = copy.deepcopy(call)
    if place.where == "path":
        raise ValueError("a path is filled when the call is made")
    if place.where == "query":
        made["params"][place.name[0]] = id
        return made
    target = made["json"] if "json" in made else made["data"]
    *outer, name = place.name
    for key in outer:
        target = target.setdefault(key, {})
    target[name] = [id] if place.many else id
    fits = "json" not in made or operation.validator.is_valid(made["json"])
    return made if fits else None


def _id_of(response: httpx.Response) -> str:
    body = response.json()
    id: str = body["data"]["id"] if "success" in body else body["id"]
    return id


def comparable(response: httpx.Response, *ids: str) -> tuple[int, Any]:
    """A response without what differs from request to request, and with these ids made alike."""
    text = response.text
    for id in ids:
        text = text.replace(id, "<id>")
    if "json" not in response.headers.get("content-type", ""):
        return response.status_code, text
    body = json.loads(text)
    for name in ("instance", "request_id", "took_ms"):
        body.pop(name, None)
    return response.status_code, body


def code_of(response: httpx.Response) -> str:
    """The problem's code, in either shape."""
    error = response.json()["error"]
    return str(error["code"]).replace("_", "-") if isinstance(error, dict) else str(error)

"""Join the YAML under ``openapi/`` into the one published file, ``openapi/dist/openapi.yaml``.

``paths/*.yaml`` map full paths to operations and ``components/*.yaml`` hold named components, by resource;
references are written as they stand in the bundle (``#/components/schemas/Persona``). Sources say what is
particular to an operation. What follows from its kind is added here, by the rules in ``complete``, so that
no operation can forget it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from models.access import ROLES, SCOPES_OF_ROLE

ROOT = Path(__file__).parent
DIST = ROOT / "dist" / "openapi.yaml"
METHODS = ("get", "put", "post", "delete", "patch")

Spec = dict[str, Any]


class BundleError(Exception):
    """The sources contradict themselves; the text names the file to edit."""


def _load(path: Path) -> Spec:
    return yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader) or {}  # noqa: S506 - CSafeLoader is the safe loader


def _merge(into: Spec, part: Spec, source: Path) -> None:
    for name, value in part.items():
        if name in into:
            raise BundleError(f"{source.relative_to(ROOT)}: {name} stands elsewhere already")
        into[name] = value


def sources() -> Spec:
    """The sources as one document, before anything is added."""
    spec = _load(ROOT / "openapi.yaml")
    paths: Spec = {}
    for source in sorted((ROOT / "paths").glob("*.yaml")):
        _merge(paths, _load(source), source)
    spec["paths"] = paths
    components = spec.setdefault("components", {})
    for source in sorted((ROOT / "components").glob("*.yaml")):
        for section, entries in _load(source).items():
            _merge(components.setdefault(section, {}), entries, source)
    if (ROOT / EVENTS).exists():
        _merge_events(spec, _load(ROOT / EVENTS))
    return spec


EVENTS = "events.yaml"
_SENT = {"webhooks.create": "{$request.body#/url}"}
"""Whose callbacks the events are, and where they go."""
_HEADERS = {
    "RateLimit": "ReceiverRateLimit",
    "Retry-After": "ReceiverRetryAfter",
    "Access-Control-Allow-Origin": "ReceiverOrigin",
}
_ANSWERS = {
    "204": "Taken; any other status of 200 to 299 is as good.",
    "410": "Never again: the webhook is switched off.",
    "429": "Later: `Retry-After` is honoured.",
}


def _merge_events(spec: Spec, catalogue: Spec) -> None:
    """What webhooks are sent: each event's component, its entry in ``x-webhooks``, and its callback."""
    components = spec["components"]
    sent = {type: _event(components, type, event) for type, event in catalogue.items()}
    listed = {type: event for type, event in catalogue.items() if event.get("subscribed", True)}
    for name, types in (("WebhookEventType", listed), ("WebhookSentType", catalogue)):
        components["schemas"][name] = {
            "type": "string",
            "enum": [*types],
            "description": "A kind of event; `GET /api/v1/webhooks/event-types` shows each.",
            "example": next(iter(types)),
        }
    shown = [
        {"type": type, "description": event["description"], "example_payload": event["example"]}
        for type, event in listed.items()
    ]
    listing = {"count": len(shown), "next": None, "previous": None, "results": shown}
    spec["x-webhooks"] = {type: {"post": operation} for type, operation in sent.items()}
    for _, _, operation in operations(spec):
        if operation["operationId"] == "webhooks.event_types":
            content = operation["responses"]["200"]["content"]["application/json"]
            content["examples"] = {"types": {"summary": "All of them", "value": listing}}
        if operation["operationId"] in _SENT:
            to = _SENT[operation["operationId"]]
            operation["callbacks"] = {
                type: {
                    to: {"post": post | {"operationId": post["operationId"].replace("events", "callbacks")}}
                }
                for type, post in sent.items()
            }


def _event(components: Spec, type: str, event: Spec) -> Spec:
    """The request that tells a receiver of an event; its payload becomes a component."""
    name = "".join(part.title() for part in re.split("[._]", type)) + "Event"
    data = event["data"]
    components["schemas"][name] = {
        "type": "object",
        "description": event["description"],
        "required": ["type", "timestamp", "data"],
        "additionalProperties": False,
        "properties": {
            "type": {"type": "string", "enum": [type], "description": "What happened."},
            "timestamp": _ref("schemas", "Time"),
            "data": {
                "type": "object",
                "description": "Ids and facts; never a text, a name or an address.",
                "required": [*data],
                "additionalProperties": False,
                "properties": data,
            },
        },
    }
    components["examples"][name] = {"summary": event["summary"], "value": event["example"]}
    return {
        "operationId": f"events.{type.replace('.', '_')}",
        "tags": ["Webhooks"],
        "summary": event["summary"],
        "description": event["description"],
        "security": [{}],
        "parameters": [
            _ref("parameters", f"Webhook{part}") for part in ("MessageId", "Timestamp", "Signature")
        ],
        "requestBody": {
            "required": True,
            "description": "The event.",
            "content": {
                "application/json": {
                    "schema": _ref("schemas", name),
                    "examples": {"event": _ref("examples", name)},
                }
            },
        },
        "responses": {
            status: {
                "description": told,
                "headers": {name: _ref("headers", at) for name, at in _HEADERS.items()},
            }
            for status, told in _ANSWERS.items()
        },
    }


def operations(spec: Spec) -> Iterator[tuple[str, str, Spec]]:
    """Every operation as (path, method, operation)."""
    for path, item in spec["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def is_public(operation: Spec) -> bool:
    """Whether an operation needs no credentials (``security: [{}]``)."""
    return operation.get("security") in ([], [{}])


def _ref(section: str, name: str) -> Spec:
    return {"$ref": f"#/components/{section}/{name}"}


def _is_item(path: str, item: Spec) -> bool:
    """An item has a representation with an ETag: its path ends with an id, or it says so itself."""
    return "get" in item and (path.endswith("}") or item["get"].get("x-item", False))


def _add_parameters(operation: Spec, item: Spec, path: str, method: str) -> None:
    parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
    if method == "post" and operation.get("x-idempotent", True):
        parameters.append(_ref("parameters", "IdempotencyKey"))
    if _is_item(path, item) and operation.get("x-item", True):
        parameters.append(_ref("parameters", "IfNoneMatch" if method == "get" else "IfMatch"))
    if operation.get("x-ranges"):
        parameters += [_ref("parameters", "Range"), _ref("parameters", "IfRange")]
    if parameters:
        operation["parameters"] = parameters


def _names_an_id(operation: Spec) -> bool:
    """Whether a parameter is an id, which may be nobody's or another tenant's."""
    return any(p.get("schema") == _ref("schemas", "IdFilter") for p in operation.get("parameters", []))


def _implied_responses(operation: Spec, item: Spec, path: str, method: str) -> dict[str, str]:
    implied = {
        "400": "BadRequest",
        "406": "NotAcceptable",
        "429": "TooManyRequests",
        "500": "InternalError",
        "503": "Unavailable",
    }
    if not is_public(operation):
        implied |= {"401": "Unauthorized", "403": "Forbidden"}
    if "{" in path or _names_an_id(operation) or ("requestBody" in operation and not is_public(operation)):
        implied["404"] = "NotFound"
    if operation.get("x-ranges"):
        implied["416"] = "RangeNotSatisfiable"
    if "requestBody" in operation:
        implied |= {"413": "PayloadTooLarge", "415": "UnsupportedMediaType"}
    if method == "post" and operation.get("x-idempotent", True):
        implied |= {"409": "Conflict", "422": "Unprocessable"}
    if _is_item(path, item) and operation.get("x-item", True):
        implied |= {"304": "NotModified"} if method == "get" else {"412": "PreconditionFailed"}
    return implied


def _add_responses(operation: Spec, item: Spec, path: str, method: str) -> None:
    responses = operation["responses"]
    if operation.get("x-ranges"):
        ranges = {"Accept-Ranges": _ref("headers", "AcceptRanges")}
        responses["200"]["headers"] = {**responses["200"].get("headers", {}), **ranges}
        part = {"Content-Range": _ref("headers", "ContentRange"), **responses["200"]["headers"]}
        responses["206"] = {
            **responses["200"],
            "description": "The part that was asked for.",
            "headers": part,
        }
    prefix = "OpenAI" if operation.get("x-error-shape") == "openai" else ""
    for status, name in _implied_responses(operation, item, path, method).items():
        if prefix and name not in ("NotModified",):
            responses.setdefault(status, _ref("responses", prefix + "Error"))
        else:
            responses.setdefault(status, _ref("responses", name))
    for status, response in responses.items():
        if "$ref" in response:
            continue
        headers = response.setdefault("headers", {})
        headers.setdefault("X-Request-ID", _ref("headers", "RequestId"))
        headers.setdefault("RateLimit", _ref("headers", "RateLimit"))
        headers.setdefault("RateLimit-Policy", _ref("headers", "RateLimitPolicy"))
        if (
            status.startswith("2")
            and _is_item(path, item)
            and method != "delete"
            and operation.get("x-item", True)
        ):
            headers.setdefault("ETag", _ref("headers", "ETag"))
        if method == "post" and operation.get("x-idempotent", True) and status.startswith("2"):
            headers.setdefault("Idempotent-Replayed", _ref("headers", "IdempotentReplayed"))
    operation["responses"] = dict(sorted(responses.items()))


def complete(spec: Spec) -> Spec:
    """Add what follows from each operation's kind.

    ================================  =====================================================================
    kind                              adds
    ================================  =====================================================================
    every operation                   400, 406, 429, 500, 503; ``X-Request-ID``, rate-limit and CORS headers
    guarded (not ``security: [{}]``)  401, 403
    an id in path, query or body      404
    a body                            413, 415
    POST (unless x-idempotent: false) ``Idempotency-Key``; 409, 422; ``Idempotent-Replayed``
    an item (path ends with an id)    ``ETag``; ``If-None-Match`` and 304 on GET; ``If-Match`` and 412 else
    a stored file (x-ranges: true)    ``Range``, ``If-Range``; 206, 416; ``Accept-Ranges``, ``Content-Range``
    ================================  =====================================================================
    """
    for path, item in spec["paths"].items():
        for method in METHODS:
            if method in item:
                _add_parameters(item[method], item, path, method)
                _add_responses(item[method], item, path, method)
        item.pop("parameters", None)
    for response in _responses(spec):
        if "headers" in response:
            response["headers"].setdefault(
                "Access-Control-Allow-Origin", _ref("headers", "Access-Control-Allow-Origin")
            )
    return spec


def _responses(spec: Spec) -> Iterator[Spec]:
    yield from spec["components"].get("responses", {}).values()
    for _, _, operation in operations(spec):
        yield from operation["responses"].values()


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _without_unused(spec: Spec) -> Spec:
    """Leave out components that nothing reaches from the paths."""
    reached: set[str] = set()
    waiting = list(_references(spec["paths"]))
    while waiting:
        reference = waiting.pop()
        if reference not in reached:
            reached.add(reference)
            _, _, section, name = reference.split("/")
            try:
                waiting.extend(_references(spec["components"][section][name]))
            except KeyError as fault:
                raise BundleError(
                    f"{reference} is referred to but stands nowhere under openapi/components"
                ) from fault
    for section, entries in spec["components"].items():
        if section != "securitySchemes":
            spec["components"][section] = {
                n: e for n, e in entries.items() if f"#/components/{section}/{n}" in reached
            }
    spec["components"] = {section: entries for section, entries in spec["components"].items() if entries}
    return spec


def _static_first(path: str) -> list[tuple[bool, str]]:
    return [(segment.startswith("{"), segment) for segment in path.split("/")]


def _roles_as_text() -> str:
    """The table of roles and scopes for readers of the documentation, in Markdown."""
    roles = list(ROLES["roles"])
    lines = [
        "",
        "## Roles and scopes",
        "",
        "A key holds at most what its maker's role holds now. `x-operators` marks what operators, who belong",
        "to no tenant, may call: `only` they, or they `also`.",
        "",
        "| area | " + " | ".join(roles) + " |",
        "|---" * (len(roles) + 1) + "|",
    ]
    for area, meaning in ROLES["areas"].items():
        cells = [
            ", ".join(verb for verb in ("read", "write") if f"{area}:{verb}" in SCOPES_OF_ROLE[role]) or "-"
            for role in roles
        ]
        lines.append(f"| `{area}`: {meaning} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def bundle() -> Spec:
    """The whole contract. Paths with fixed segments stand before those with parameters in their place."""
    spec = _without_unused(complete(sources()))
    info = spec.setdefault("info", {})
    info["description"] = info.get("description", "") + _roles_as_text()
    spec["x-roles"] = {
        role: {"description": ROLES["roles"][role]["description"], "scopes": sorted(scopes)}
        for role, scopes in SCOPES_OF_ROLE.items()
    }
    spec["paths"] = {path: spec["paths"][path] for path in sorted(spec["paths"], key=_static_first)}
    spec["components"] = {
        section: dict(sorted(spec["components"][section].items())) for section in sorted(spec["components"])
    }
    return spec


class _Dumper(yaml.CSafeDumper):
    """Writes every object out, without anchors, which not all readers of YAML resolve alike."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never abbreviate."""
        return True


def render() -> bytes:
    """The published file's bytes."""
    head = "# Made by `booga spec bundle` from openapi/. Edit the sources, not this file.\n"
    body = yaml.dump(bundle(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return (head + body).encode()


def write() -> bool:
    """Write the bundle; tell whether it changed."""
    content = render()
    if DIST.exists() and DIST.read_bytes() == content:
        return False
    DIST.parent.mkdir(exist_ok=True)
    DIST.write_bytes(content)
    return True


def is_current() -> bool:
    """Whether the published file is what the sources make."""
    return DIST.exists() and DIST.read_bytes() == render()

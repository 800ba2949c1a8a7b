"""What arrives against the contract: all faults at once, each with its place. Compiled once per operation.

Connexion's validators report one fault without a place, check no ``uuid`` or ``date-time`` and are rebuilt
at each request; this is the same step (a ``RoutedMiddleware``), on jsonschema-rs.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import jsonschema_rs
from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.problems import Fault, Problem
from handlers.replies import Paging, Upload
from openapi import exchange as exchanges
from openapi.contract import PAGING, Contract, Operation, argument_of
from openapi.exchange import Exchange
from openapi.guard import header
from openapi.routing import SUFFIXES
from storage.threads import in_thread

MAX_DEPTH = 64
MAX_FIELDS = 200
MAX_DIGITS = 300
_SURROGATE = re.compile("[\ud800-\udfff]")


def _uuid(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) is not None


def _instant(text: str) -> bool:
    """RFC 3339, and an instant that the calendar has in UTC, too."""
    if re.fullmatch(r"[0-9-]{10}T[0-9:]{8}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})", text) is None:
        return False
    try:
        datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


def draft4(schema: Any) -> Any:
    """An OpenAPI 3.0 schema as JSON Schema draft 4: ``nullable`` spelled out, annotations left."""
    if isinstance(schema, list):
        return [draft4(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: draft4(value) if key not in ("enum", "example", "default") else value
        for key, value in schema.items()
    }
    if made.pop("nullable", False):
        if isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
        if "enum" in made and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
    return made


def compile_schema(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """A validator that checks formats and never repeats the value in its words."""
    prepared = draft4(copy.deepcopy(schema))
    formats = {"uuid": _uuid, "date-time": _instant, "binary": lambda _: True}
    return jsonschema_rs.Draft4Validator(prepared, validate_formats=True, formats=formats, mask="the value")


def faults_of(validator: jsonschema_rs.Validator, value: Any, base: str = "") -> list[Fault]:
    """Every fault of ``value``, with its JSON pointer (RFC 6901)."""
    found = []
    for error in validator.iter_errors(value):
        path = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.instance_path)
        found.append({"pointer": (base + path)[:500], "detail": error.message[:1000]})
        if len(found) == 100:
            break
    return found


class Parameter:
    """One parameter of path, query or header: from text to its type."""

    def __init__(self, spec: dict[str, Any], schema: dict[str, Any]) -> None:
        self.name: str = spec["name"]
        self.place: str = spec["in"]
        self.required: bool = spec.get("required", False)
        self.type: str = schema.get("type", "string")
        self.items: str = schema.get("items", {}).get("type", "string")
        self.has_default = "default" in schema
        self.default = schema.get("default")
        self.is_id = schema.get("format") == "uuid"
        self.validator = compile_schema(schema)

    def _typed(self, text: str, kind: str) -> Any:
        if kind == "integer" and re.fullmatch(r"-?[0-9]{1,18}", text):
            return int(text)
        if kind == "number" and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE]-?[0-9]{1,2})?", text):
            return float(text)
        if kind == "boolean" and text in ("true", "false"):
            return text == "true"
        return text

    def read(self, values: list[str]) -> tuple[Any, list[Fault]]:
        """The typed value (or default) and its faults."""
        if not values:
            if self.required:
                return None, [{"parameter": self.name, "detail": "is required"}]
            return copy.copy(self.default), []
        if self.type == "array":
            value: Any = [self._typed(text, self.items) for text in values]
        elif len(values) > 1:
            return None, [{"parameter": self.name, "detail": "stands more than once"}]
        else:
            value = self._typed(values[0], self.type)
        faults = [
            {"parameter": self.name, "detail": fault["detail"]} for fault in faults_of(self.validator, value)
        ]
        if self.is_id and isinstance(value, str):
            value = value.lower()
        return value, faults


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _reject(detail: str, pointer: str = "") -> Problem:
    return Problem("validation-failed", detail, faults=[{"pointer": pointer, "detail": detail}])


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _not_a_number(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value


def _whole(text: str) -> int | float:
    """Beyond 64 bits a whole number is what most readers of JSON make of any: the nearest double."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number has more than {MAX_DIGITS} digits")
    value = int(text)
    return value if -(2**63) <= value < 2**63 else float(value)


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, depth + 1)


def parse_json(raw: bytes) -> Any:
    """JSON as RFC 8259 means it: UTF-8, no duplicate keys, no NaN, no lone surrogates, no NUL, bounded
    depth and numbers.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_constant=_not_a_number,
            parse_float=_finite,
            parse_int=_whole,
        )
        for text in _strings(value):
            if "\0" in text or _SURROGATE.search(text):
                raise ValueError("a string holds a NUL or a lone surrogate")
    except UnicodeDecodeError as fault:
        raise _reject("The body is not UTF-8.") from fault
    except json.JSONDecodeError as fault:
        raise _reject(f"The body is not JSON: {fault.msg} at character {fault.pos}.") from fault
    except ValueError as fault:
        raise _reject(f"The body is not acceptable JSON: {fault}.") from fault
    except RecursionError as fault:
        raise _reject(f"The body is nested deeper than {MAX_DEPTH} levels.") from fault
    return value


def _limited(receive: Receive, most: int) -> Receive:
    """``receive`` that stops with 413 once more than ``most`` bytes came."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise _too_large(most)
        return message

    return counted


def _too_large(most: int) -> Problem:
    return Problem("payload-too-large", f"The body may hold at most {most} bytes.", meta={"max_bytes": most})


class ValidationOperation:
    """Everything that the contract says of one operation's input."""

    def __init__(self, next_app: ASGIApp, contract: Contract, operation: Operation) -> None:
        self.next_app = next_app
        self.operation = operation
        specs = contract.parameters(operation.spec)
        self.parameters = [Parameter(spec, _inline(contract, spec["schema"])) for spec in specs]
        self.query_names = {p.name for p in self.parameters if p.place == "query"}
        self.is_paged = bool(self.query_names & {"page", "cursor"})
        self.lenient = operation.error_shape == "openai"
        self.body_required = False
        self.bodies: dict[str, tuple[dict[str, Any], jsonschema_rs.Validator]] = {}
        body = operation.spec.get("requestBody")
        if body is not None:
            body = contract.resolve(body)
            self.body_required = body.get("required", False)
            for media_type, content in body["content"].items():
                schema = _inline(contract, content["schema"])
                self.bodies[media_type] = (schema, compile_schema(schema))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on with typed arguments."""
        exchange = exchanges.of(scope)
        exchange.media_type = self._negotiate(scope, exchange)
        receive = _limited(receive, self.operation.max_body)
        media_type, size = self._body_head(scope)
        arguments, faults = self._read_parameters(scope, exchange)
        form: dict[str, list[Any]] = {}
        try:
            if media_type == "multipart/form-data":
                form = await _read_form(scope, receive)
                body, body_faults = self._check_form(form)
                faults += body_faults
                arguments |= body
            elif media_type is not None:
                raw = await _read_all(receive)
                body_faults, exchange.body = await self._check_json(media_type, raw, size)
                exchange.body_fingerprint = hashlib.sha256(raw).hexdigest()
                faults += body_faults
                arguments["body"] = exchange.body
            if faults:
                raise Problem("validation-failed", _summary(faults), faults=faults)
            if media_type is not None:
                schema, _ = self.bodies[media_type]
                if media_type == "multipart/form-data":
                    arguments |= ids_in_lower_case(schema, body)
                else:
                    arguments["body"] = exchange.body = ids_in_lower_case(schema, exchange.body)
            exchange.arguments = self._gather(arguments, exchange)
            await self.next_app(scope, receive, send)
        finally:
            for values in form.values():
                for value in values:
                    if isinstance(value, UploadFile):
                        await value.close()

    def _negotiate(self, scope: Scope, exchange: Exchange) -> str:
        produces = self.operation.produces
        if not produces:
            return "application/json"
        if exchange.suffix is not None:
            return SUFFIXES[exchange.suffix] if SUFFIXES[exchange.suffix] in produces else produces[0]
        accept = b",".join(header(scope, b"accept")).decode("latin-1").strip()
        chosen = _best(accept, produces)
        if chosen is None:
            raise Problem("not-acceptable", f"This resource is served as {', '.join(produces)}.")
        return chosen

    def _body_head(self, scope: Scope) -> tuple[str | None, int]:
        lengths = header(scope, b"content-length")
        chunked = bool(header(scope, b"transfer-encoding"))
        size = int(lengths[0]) if lengths and lengths[0].isdigit() else 0
        if size > self.operation.max_body:
            raise _too_large(self.operation.max_body)
        if not self.bodies:
            if size or chunked:
                return None, size
            return None, 0
        types = header(scope, b"content-type")
        if not size and not chunked:
            if self.body_required:
                raise _reject("A body is required.")
            return None, 0
        full = types[0].decode("latin-1") if types else ""
        media_type = full.partition(";")[0].strip().lower()
        charset = re.search(r"charset=\"?([\w-]+)", full, re.IGNORECASE)
        if media_type not in self.bodies or (
            charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii")
        ):
            wanted = " or ".join(self.bodies)
            raise Problem(
                "unsupported-media-type",
                f"Send {wanted} in UTF-8.",
                headers={"Accept": ", ".join(self.bodies)},
            )
        return media_type, size

    def _read_parameters(self, scope: Scope, exchange: Exchange) -> tuple[dict[str, Any], list[Fault]]:
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(
            scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=None
        ):
            query.setdefault(name, []).append(value)
        faults: list[Fault] = []
        if not self.lenient:
            faults += [
                {"parameter": name[:200], "detail": "is not known here"}
                for name in query
                if name not in self.query_names
            ]
        arguments: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.place == "path":
                values = [exchange.path_values[parameter.name]]
            elif parameter.place == "query":
                values = query.get(parameter.name, [])
            else:
                values = [value.decode("latin-1") for value in header(scope, parameter.name.lower().encode())]
            value, found = parameter.read(values)
            faults += found
            if parameter.place == "header" and parameter.name != "Last-Event-ID":
                if value is not None:
                    exchange.preconditions[parameter.name] = value
            else:
                arguments[argument_of(parameter.name)] = value
        return arguments, faults

    async def _check_json(self, media_type: str, raw: bytes, size: int) -> tuple[list[Fault], Any]:
        if not raw:
            if self.body_required:
                raise _reject("A body is required.")
            return [], None
        body = parse_json(raw) if len(raw) < 262_144 else await in_thread(parse_json, raw)
        return faults_of(self.bodies[media_type][1], body), body

    def _check_form(self, form: dict[str, list[Any]]) -> tuple[dict[str, Any], list[Fault]]:
        schema, validator = self.bodies["multipart/form-data"]
        values: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        faults: list[Fault] = []
        for name, parts in form.items():
            field = schema["properties"].get(name, {})
            if field.get("format") == "binary":
                if len(parts) > 1 or not isinstance(parts[0], UploadFile):
                    faults.append({"pointer": f"/{name}", "detail": "has to be one file with a name"})
                    continue
                plain[name] = ""
                values[name] = Upload(
                    parts[0].filename or "", parts[0].content_type or "", parts[0].file, parts[0].size or 0
                )
                if not all(_is_utf8(line) for _, line in parts[0].headers.raw):
                    faults.append({"pointer": f"/{name}", "detail": "its name is not UTF-8"})
                elif "\0" in values[name].name or _SURROGATE.search(values[name].name):
                    faults.append(
                        {"pointer": f"/{name}", "detail": "its name holds a NUL or a lone surrogate"}
                    )
                continue
            if any(isinstance(part, UploadFile) for part in parts):
                faults.append({"pointer": f"/{name}", "detail": "is not a file"})
                continue
            if any("\0" in part for part in parts):
                faults.append({"pointer": f"/{name}", "detail": "holds a NUL"})
                continue
            is_list = field.get("type") == "array"
            texts = [
                piece
                for part in parts
                for piece in (part.split(",") if is_list else [part])
                if piece or not is_list
            ]
            values[name] = plain[name] = texts if is_list else (texts[0] if len(texts) == 1 else texts)
        return values, faults + faults_of(validator, plain)

    def _gather(self, arguments: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        if not self.is_paged:
            return arguments
        paging = {name: arguments.pop(name) for name in PAGING if name in arguments}
        arguments["paging"] = Paging(**paging, whole=exchange.media_type == "text/csv")
        return arguments


def _inline(contract: Contract, schema: Any) -> Any:
    """A schema with its references replaced (the contract's schemas are not recursive)."""
    if isinstance(schema, list):
        return [_inline(contract, part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(contract, contract.resolve(schema))
    return {key: _inline(contract, value) for key, value in schema.items()}


def ids_in_lower_case(schema: dict[str, Any], value: Any) -> Any:
    """What fits the schema, with its ids as they are kept: in capitals they are the same (RFC 9562)."""
    if isinstance(value, str) and schema.get("format") == "uuid":
        return value.lower()
    if isinstance(value, list) and "items" in schema:
        return [ids_in_lower_case(schema["items"], item) for item in value]
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return {name: ids_in_lower_case(known.get(name, {}), item) for name, item in value.items()}
    return value


def _summary(faults: list[Fault]) -> str:
    first = faults[0]
    place = first.get("parameter") or first.get("pointer") or "the body"
    more = f" ({len(faults)} faults in all)" if len(faults) > 1 else ""
    return f"{place}: {first['detail']}{more}"


def _best(accept: str, produces: list[str]) -> str | None:
    """The type to answer with (RFC 9110, 12.5.1): the most preferred range, our order within it."""
    if not accept:
        return produces[0]
    ranges: list[tuple[str, float]] = []
    for part in accept.split(","):
        pieces = [piece.strip() for piece in part.split(";")]
        quality = next((p[2:] for p in pieces[1:] if p.lower().startswith("q=")), "1")
        try:
            ranges.append((pieces[0].lower(), min(1.0, max(0.0, float(quality)))))
        except ValueError:
            ranges.append((pieces[0].lower(), 0.0))

    def preference(media_type: str) -> float:
        major = media_type.split("/")[0]
        for pattern in (media_type, f"{major}/*", "*/*"):
            for name, quality in ranges:
                if name == pattern or (
                    name == "application/problem+json" and pattern == "*/*" and len(ranges) == 1
                ):
                    return quality
        return 0.0

    best = max(produces, key=preference)
    return best if preference(best) > 0 else None


async def _read_all(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _reject("The body is incomplete.")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _read_form(scope: Scope, receive: Receive) -> dict[str, list[Any]]:
    """A multipart body; files go to disk beyond a megabyte."""

    async def chunks() -> Any:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _reject("The body is incomplete.")
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return

    form: dict[str, list[Any]] = {}
    try:
        parser = MultiPartParser(
            Headers(scope=scope), chunks(), max_files=4, max_fields=MAX_FIELDS, max_part_size=1_048_576
        )
        parsed = await parser.parse()
    except (MultiPartException, KeyError, ValueError, LookupError) as fault:
        raise _reject("The multipart body cannot be read.") from fault
    for name, value in parsed.multi_items():
        form.setdefault(name, []).append(value)
    return form


class ValidationAPI(RoutedAPI[ValidationOperation]):
    """Makes a check for each operation of the contract."""

    contract: Contract

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> ValidationOperation:
        """Connexion's operation to ours, by id."""
        return ValidationOperation(
            self.next_app, self.contract, self.contract.operations[operation.operation_id]
        )


def validation_middleware(contract: Contract) -> Callable[[ASGIApp], RoutedMiddleware[ValidationAPI]]:
    """The middleware that stands before the dispatch."""

    class BoundAPI(ValidationAPI):
        pass

    BoundAPI.contract = contract

    class Validation(RoutedMiddleware[ValidationAPI]):
        api_cls = BoundAPI

    return Validation

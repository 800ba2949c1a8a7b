"""What arrives against the contract: all faults at once, each with its place. Compiled once per operation.

Connexion's validators report one fault without a place, check no ``uuid`` or ``date-time`` and are rebuilt
at each request; this is the same step (a ``RoutedMiddleware``), on jsonschema-rs.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import jsonschema_rs
from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.problems import Fault, Problem
from handlers.replies import Paging, Upload
from openapi import exchange as exchanges
from openapi.bodies import SURROGATE, limited, parse_json, read_all, read_form, reject, too_large
from openapi.contract import PAGING, Contract, Operation, argument_of
from openapi.exchange import Exchange
from openapi.guard import header
from openapi.negotiation import best
from openapi.routing import SUFFIXES
from openapi.schemas import compile_schema, faults_of, ids_in_lower_case, inline
from storage.threads import in_thread


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


class ValidationOperation:
    """Everything that the contract says of one operation's input."""

    def __init__(self, next_app: ASGIApp, contract: Contract, operation: Operation) -> None:
        self.next_app = next_app
        self.operation = operation
        specs = contract.parameters(operation.spec)
        self.parameters = [Parameter(spec, inline(contract, spec["schema"])) for spec in specs]
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
                schema = inline(contract, content["schema"])
                self.bodies[media_type] = (schema, compile_schema(schema))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on with typed arguments."""
        exchange = exchanges.of(scope)
        exchange.media_type = self._negotiate(scope, exchange)
        receive = limited(receive, self.operation.max_body)
        media_type, size = self._body_head(scope)
        arguments, faults = self._read_parameters(scope, exchange)
        form: dict[str, list[Any]] = {}
        try:
            if media_type == "multipart/form-data":
                form = await read_form(scope, receive)
                body, body_faults = self._check_form(form)
                faults += body_faults
                arguments |= body
            elif media_type is not None:
                raw = await read_all(receive)
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
        chosen = best(accept, produces)
        if chosen is None:
            raise Problem("not-acceptable", f"This resource is served as {', '.join(produces)}.")
        return chosen

    def _body_head(self, scope: Scope) -> tuple[str | None, int]:
        lengths = header(scope, b"content-length")
        chunked = bool(header(scope, b"transfer-encoding"))
        size = int(lengths[0]) if lengths and lengths[0].isdigit() else 0
        if size > self.operation.max_body:
            raise too_large(self.operation.max_body)
        if not self.bodies:
            if size or chunked:
                return None, size
            return None, 0
        types = header(scope, b"content-type")
        if not size and not chunked:
            if self.body_required:
                raise reject("A body is required.")
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
        if {"cursor", "page"} <= query.keys() & self.query_names:
            faults.append({"parameter": "page", "detail": "stands beside cursor, which takes its place"})
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
                raise reject("A body is required.")
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
                elif "\0" in values[name].name or SURROGATE.search(values[name].name):
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


def _summary(faults: list[Fault]) -> str:
    first = faults[0]
    place = first.get("parameter") or first.get("pointer") or "the body"
    more = f" ({len(faults)} faults in all)" if len(faults) > 1 else ""
    return f"{place}: {first['detail']}{more}"


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

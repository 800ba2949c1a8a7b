"""The bundled contract as the server uses it: its bytes, its operations, and the route table."""

from __future__ import annotations

import importlib
import inspect
import keyword
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson
import yaml

from models.access import SCOPES
from openapi import bundle

PAGING = ("page", "page_size", "ordering", "search", "cursor")
"""Parameters of lists; a handler takes them together, as ``paging``."""

OFFERED = frozenset({"exchange", "replay"})
"""What a handler may take beside its parameters; ``replay`` comes with an ``Idempotency-Key`` only."""


def argument_of(parameter: str) -> str:
    """What a handler calls a parameter: as it stands, in Python's spelling (``from`` is ``from_``)."""
    name = parameter.lower().replace("-", "_")
    return name + "_" if keyword.iskeyword(name) else name


class ContractError(Exception):
    """Contract and code disagree; the text names the file to edit."""


@dataclass(slots=True, eq=False)
class Operation:
    """One operation of the contract and the function that serves it."""

    id: str
    path: str
    method: str
    spec: dict[str, Any]
    function: Callable[..., Any]
    public: bool
    scope: str | None
    capability: str | None
    operators: str | None
    """Whether operators are served: ``only`` they, they ``also``, or (None) tenants alone."""
    idempotent: bool
    getter: Operation | None = None
    produces: list[str] = field(default_factory=list)
    error_shape: str | None = None
    limited: bool = True
    max_body: int = 1_048_576

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop (it streams) rather than in a thread."""
        return inspect.iscoroutinefunction(self.function)


class Contract:
    """Reads the bundle once; every other part of the binding asks here."""

    def __init__(self) -> None:
        self.yaml = bundle.DIST.read_bytes()
        self.spec: dict[str, Any] = yaml.load(self.yaml, Loader=yaml.CSafeLoader)  # noqa: S506 - the safe loader
        self.operations: dict[str, Operation] = {}
        for path, method, spec in bundle.operations(self.spec):
            operation = self._operation(path, method, spec)
            if operation.id in self.operations:
                raise ContractError(f"openapi/paths: operationId {operation.id} stands twice")
            self.operations[operation.id] = operation
        for operation in self.operations.values():
            self._find_getter(operation)
            self._check_arguments(operation)

    @cached_property
    def json(self) -> bytes:
        """The bundle as JSON, byte for byte the same at every request."""
        return orjson.dumps(self.spec)

    def resolve(self, reference: dict[str, Any]) -> dict[str, Any]:
        """What a ``$ref`` of the bundle points to (or the thing itself)."""
        while "$ref" in reference:
            _, section, kind, name = reference["$ref"].split("/")
            reference = self.spec[section][kind][name]
        return reference

    def parameters(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        """An operation's parameters, resolved."""
        return [self.resolve(parameter) for parameter in spec.get("parameters", [])]

    def _operation(self, path: str, method: str, spec: dict[str, Any]) -> Operation:
        id = spec.get("operationId", "")
        public, scope = bundle.is_public(spec), spec.get("x-required-scope")
        if public == (scope is not None):
            raise ContractError(
                f"{path} {method}: a guarded operation names x-required-scope, "
                "a public one an empty requirement in security (openapi/paths)"
            )
        if scope is not None and scope not in SCOPES and scope != "any":
            raise ContractError(f"{path} {method}: unknown scope {scope} (models/roles.yaml lists them)")
        produces: list[str] = []
        for status, response in spec["responses"].items():
            if status.startswith("2"):
                produces.extend(
                    kind for kind in self.resolve(response).get("content", {}) if kind not in produces
                )
        produces.sort(key="application/json".__ne__)  # what comes where anything is accepted
        return Operation(
            id=id,
            path=path,
            method=method,
            spec=spec,
            function=handler_of(id),
            public=public,
            scope=scope,
            capability=spec.get("x-required-capability"),
            operators=spec.get("x-operators"),
            idempotent=method == "post" and spec.get("x-idempotent", True),
            produces=produces,
            error_shape=spec.get("x-error-shape"),
            limited=spec.get("x-rate-limited", True),
            max_body=spec.get("x-max-body-bytes", 1_048_576),
        )

    def _find_getter(self, operation: Operation) -> None:
        item = self.spec["paths"][operation.path]
        wants = any(p["name"] in ("If-Match", "If-None-Match") for p in self.parameters(operation.spec))
        if wants:
            operation.getter = self.operations[item["get"]["operationId"]]

    def _arguments(self, operation: Operation) -> tuple[set[str], set[str]]:
        """The names that the binding passes to a handler: those that always come, and those that may not."""
        names = {argument_of(p["name"]): p["in"] for p in self.parameters(operation.spec)}
        always = {name for name, place in names.items() if place != "header" or name == "last_event_id"}
        if always & {"page", "cursor"}:
            always = (always - set(PAGING)) | {"paging"}
        body = self.resolve(operation.spec.get("requestBody", {}))
        fields: set[str] = set()
        optional: set[str] = set()
        for media_type, content in body.get("content", {}).items():
            if media_type != "multipart/form-data":
                fields.add("body")
                continue
            schema = self.resolve(content["schema"])
            fields.update(schema["properties"])
            optional |= schema["properties"].keys() - set(schema.get("required", []))
        if not body.get("required") or len(body["content"]) > 1:
            optional = fields
        return always | fields - optional, optional

    def _check_arguments(self, operation: Operation) -> None:
        """Each parameter of the contract is an argument of its handler, and nothing else is."""
        always, optional = self._arguments(operation)
        taken = inspect.signature(operation.function).parameters
        module, _, verb = operation.id.partition(".")
        where = f"handlers/{module}.py: {verb}"
        missing = (always | optional) - taken.keys()
        if missing:
            raise ContractError(f"{where} does not take {', '.join(sorted(missing))} of the contract")
        bare = {name for name, argument in taken.items() if argument.default is argument.empty}
        unfilled = bare - always - optional - OFFERED
        if unfilled:
            raise ContractError(
                f"{where} takes {', '.join(sorted(unfilled))}, which the contract does not name"
            )
        undecided = (bare & optional) | (bare & {"replay"})
        if undecided:
            raise ContractError(
                f"{where} needs a default for {', '.join(sorted(undecided))}, which need not come"
            )

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations.values())


def handler_of(operation_id: str) -> Callable[..., Any]:
    """The function for ``module.verb``: ``verb`` in ``handlers/module.py``."""
    module_name, _, verb = operation_id.partition(".")
    if not re.fullmatch(r"[a-z_]+\.[a-z_]+", operation_id):
        raise ContractError(f"operationId {operation_id!r} is not 'module.verb' (openapi/paths)")
    try:
        module = importlib.import_module(f"handlers.{module_name}")
    except ModuleNotFoundError as fault:
        raise ContractError(
            f"operationId {operation_id}: handlers/{module_name}.py is missing ({fault})"
        ) from fault
    function = getattr(module, verb, None)
    if not inspect.isfunction(function):
        raise ContractError(f"operationId {operation_id}: handlers/{module_name}.py has no function {verb}")
    return function


class Routes:
    """Which resource a path names: fixed paths in a table, templates in one regular expression per length."""

    def __init__(self, contract: Contract) -> None:
        self._fixed: dict[str, dict[str, Operation]] = {}
        self._templates: dict[int, list[tuple[re.Pattern[str], dict[str, Operation]]]] = {}
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in contract:
            by_path.setdefault(operation.path, {})[operation.method.upper()] = operation
        for path in contract.spec["paths"]:
            if "{" not in path:
                self._fixed[path] = by_path[path]
                continue
            pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))
            self._templates.setdefault(path.count("/"), []).append((re.compile(pattern), by_path[path]))

    def find(self, path: str) -> tuple[dict[str, Operation], dict[str, str]] | None:
        """The operations at ``path`` by method, and the values of its parameters."""
        methods = self._fixed.get(path)
        if methods is not None:
            return methods, {}
        for pattern, methods in self._templates.get(path.count("/"), ()):
            match = pattern.fullmatch(path)
            if match:
                return methods, match.groupdict()
        return None


def allowed(methods: dict[str, Operation]) -> str:
    """The ``Allow`` header: the working methods, HEAD beside GET, OPTIONS."""
    names = [
        name
        for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if name in methods or (name == "HEAD" and "GET" in methods)
    ]
    return ", ".join([*names, "OPTIONS"])

"""What must hold between the contract and the code. Each guard lists the faults, naming the file to edit."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

import handlers
import handlers.schemas
import models
import storage
from handlers import problems
from handlers.schemas import Wire
from models.errors import DomainError
from openapi import bundle
from openapi.contract import handler_of
from openapi.schemas import compile_schema, faults_of

Spec = dict[str, Any]
Guard = Callable[[Spec], list[str]]

ROOT = Path(bundle.__file__).parent.parent
EXTENSIONS = {
    "x-required-scope",
    "x-required-capability",
    "x-operators",
    "x-max-body-bytes",
    "x-idempotent",
    "x-item",
    "x-ranges",
    "x-error-shape",
    "x-rate-limited",
}
"""What openapi/contract.py and openapi/bundle.py read of an operation."""


def resolved(spec: Spec, node: Any) -> Any:
    """A node with every reference replaced by what it points to."""
    if isinstance(node, list):
        return [resolved(spec, part) for part in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        found: Any = spec
        for key in node["$ref"].split("/")[1:]:
            found = found[key]
        return resolved(spec, found)
    return {key: resolved(spec, value) for key, value in node.items()}


def source_of(operation_id: str) -> str:
    """The file in which to look for an operation."""
    for file in sorted((bundle.ROOT / "paths").glob("*.yaml")):
        if re.search(rf"operationId: {re.escape(operation_id)}\b", file.read_text()):
            return f"openapi/paths/{file.name} ({operation_id})"
    return f"openapi/paths ({operation_id})"


def operations(spec: Spec) -> Iterator[tuple[str, str, str, Spec]]:
    """Every operation: where to edit it, path, method, and itself with references resolved."""
    for path, method, operation in bundle.operations(spec):
        yield source_of(operation.get("operationId", path)), path, method, resolved(spec, operation)


def described(spec: Spec) -> list[str]:
    """Every operation says what it does, in words."""
    faults = []
    tags = {tag["name"] for tag in spec["tags"]}
    for where, _, _, operation in operations(spec):
        faults += [
            f"{where}: {key} is missing" for key in ("summary", "description") if not operation.get(key)
        ]
        if len(operation.get("tags", [])) != 1 or operation["tags"][0] not in tags:
            faults.append(f"{where}: one tag, of those that openapi/openapi.yaml declares")
    return faults


def extensions_known(spec: Spec) -> list[str]:
    """A misspelt extension would silently do nothing."""
    return [
        f"{where}: {key} is read by nobody (openapi/contract.py and openapi/bundle.py say what is)"
        for where, _, _, operation in operations(spec)
        for key in operation
        if key.startswith("x-") and key not in EXTENSIONS
    ]


def _contents(operation: Spec) -> Iterator[tuple[str, str, Spec]]:
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield "the request", kind, content
    for status, response in operation["responses"].items():
        for kind, content in response.get("content", {}).items():
            yield f"the response {status}", kind, content


def _examples(content: Spec) -> list[Any]:
    named = [example["value"] for example in content.get("examples", {}).values()]
    return named + ([content["example"]] if "example" in content else [])


def exemplified(spec: Spec) -> list[str]:
    """Every request and every 2xx has an example, and every example fits its schema."""
    faults = []
    for where, _, _, operation in operations(spec):
        for what, kind, content in _contents(operation):
            examples = _examples(content)
            if not examples and (what == "the request" or what.startswith("the response 2")):
                faults.append(f"{where}: {what} as {kind} has no example")
            if kind == "multipart/form-data":
                continue  # a file's bytes do not stand in YAML
            validator = compile_schema(content["schema"])
            for example in examples:
                faults += [f"{where}: example of {what}: {fault}" for fault in faults_of(validator, example)]
    return faults


def linked(spec: Spec) -> list[str]:
    """Links lead to operations that exist, with parameters that they take, read from a place that exists."""
    faults = []
    known = {operation["operationId"]: operation for _, _, _, operation in operations(spec)}
    for where, _, _, operation in operations(spec):
        for status, response in operation["responses"].items():
            schemas = [content["schema"] for content in response.get("content", {}).values()]
            for name, link in response.get("links", {}).items():
                at = f"{where}: link {name} of {status}"
                target = known.get(link.get("operationId"))
                if target is None:
                    faults.append(f"{at}: there is no operation {link.get('operationId')}")
                    continue
                parameters = {p["name"]: p for p in target.get("parameters", [])}
                given = {key.rpartition(".")[2]: value for key, value in link.get("parameters", {}).items()}
                faults += [
                    f"{at}: {link['operationId']} takes no {key}" for key in given.keys() - parameters.keys()
                ]
                faults += [
                    f"{at}: {key} of {link['operationId']} is left open"
                    for key, parameter in parameters.items()
                    if parameter.get("required") and key not in given
                ]
                faults += [
                    f"{at}: {value} stands nowhere"
                    for value in given.values()
                    if not _stands(value, operation, schemas)
                ]
    return faults


def _stands(expression: str, operation: Spec, schemas: list[Spec]) -> bool:
    if expression.startswith("$request.path."):
        return expression.rpartition(".")[2] in {p["name"] for p in operation.get("parameters", [])}
    place, _, pointer = expression.partition("#/")
    if place == "$request.body":
        schemas = [content["schema"] for content in operation["requestBody"]["content"].values()]
    elif place != "$response.body":
        return False
    return any(_property(schema, pointer.split("/")) is not None for schema in schemas)


def _property(schema: Spec, keys: list[str]) -> Spec | None:
    for key in keys:
        inner = (
            schema.get("items") if schema.get("type") == "array" else schema.get("properties", {}).get(key)
        )
        if inner is None:
            return None
        schema = inner
    return schema


def bounded(spec: Spec) -> list[str]:
    """Every string, array and number that a client may send or be sent has a bound."""
    faults: set[str] = set()
    for name, schema in spec["components"]["schemas"].items():
        _unbounded(schema, f"openapi/components (schemas.{name})", faults)
    for where, _, _, operation in operations(spec):
        for parameter in operation.get("parameters", []):
            _unbounded(parameter["schema"], f"{where}: parameter {parameter['name']}", faults)
        for what, _, content in _contents(operation):
            _unbounded(content["schema"], f"{where}: {what}", faults)
    return sorted(faults)


BOUNDS = {
    "string": ({"maxLength"}, {"enum"}),
    "array": ({"maxItems", "items"},),
    "integer": ({"minimum", "maximum", "format"}, {"enum"}),
}


def _unbounded(schema: Any, where: str, faults: set[str]) -> None:
    if isinstance(schema, list):
        for part in schema:
            _unbounded(part, where, faults)
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    choices = BOUNDS.get(kind, ()) if isinstance(kind, str) else ()
    if choices and not any(choice <= schema.keys() for choice in choices):
        faults.add(f"{where}: {kind} needs {' or '.join(', '.join(sorted(c)) for c in choices)}")
    for key, value in schema.items():
        if key == "properties":
            for name, inner in value.items():
                _unbounded(inner, f"{where}.{name}", faults)
        elif key in ("items", "additionalProperties", "allOf", "anyOf", "oneOf"):
            _unbounded(value, where, faults)


def closed(spec: Spec) -> list[str]:
    """An object of a request takes no field that it does not name."""
    return [
        f"{where}: the request's object does not say additionalProperties: false"
        for where, _, _, operation in operations(spec)
        for what, _, content in _contents(operation)
        if what == "the request"
        and operation.get("x-error-shape") != "openai"
        and any(
            part.get("type") == "object" and part.get("additionalProperties") is not False
            for part in (content["schema"], *content["schema"].get("oneOf", []))
        )
    ]


def static_first(spec: Spec) -> list[str]:
    """A fixed path stands before a template that matches it, for routers that take the first that fits."""
    paths = list(spec["paths"])
    return [
        f"openapi/bundle.py: {later} stands behind {earlier}, which matches it, too"
        for position, earlier in enumerate(paths)
        for later in paths[position + 1 :]
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(earlier)), later)
    ]


def codes_agree(spec: Spec) -> list[str]:
    """The codes of problems in the code are those of the contract."""
    listed = set(spec["components"]["schemas"]["ProblemCode"]["enum"])
    return [
        f"{code}: handlers/problems.py (CODES) and openapi/components/common.yaml (ProblemCode) disagree"
        for code in sorted(listed ^ problems.CODES.keys())
    ]


def wire_agrees(spec: Spec) -> list[str]:
    """What marshmallow writes is what the component of the same name has."""
    faults = []
    for module in _modules(handlers.schemas):
        for name, kind in vars(module).items():
            if not (inspect.isclass(kind) and issubclass(kind, Wire) and kind.__module__ == module.__name__):
                continue
            where = module.__name__.replace(".", "/") + f".py ({name})"
            component = spec["components"]["schemas"].get(name)
            if component is None:
                faults.append(f"{where}: openapi/components has no used schema of that name")
                continue
            written = {field.data_key or key for key, field in kind().fields.items()}
            properties = set(resolved(spec, component).get("properties", {}))
            faults += [
                f"{where}: {key} is no property of the component" for key in sorted(written - properties)
            ]
            faults += [
                f"{where}: {key} of the component is not written" for key in sorted(properties - written)
            ]
    return faults


def _modules(package: Any) -> list[Any]:
    return [
        importlib.import_module(f"{package.__name__}.{entry.name}")
        for entry in pkgutil.iter_modules(package.__path__)
        if not entry.ispkg
    ]


def no_orphans(spec: Spec) -> list[str]:
    """A public function of a handlers module is an operation, or another module uses it."""
    ids = {operation["operationId"] for _, _, _, operation in operations(spec)}
    served = {(id.partition(".")[0], handler_of(id).__name__) for id in ids}
    serving = {module for module, _ in served}
    trees = {
        file: ast.parse(file.read_text())
        for package in ("handlers", "openapi")
        for file in (ROOT / package).rglob("*.py")
    }
    faults = []
    for file in sorted((ROOT / "handlers").glob("[a-z]*.py")):
        used = {use for other, tree in trees.items() if other != file for use in _uses(tree)}
        if file.stem not in serving and file.stem in {module for module, _ in used}:
            continue  # what handlers share
        for node in trees[file].body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            if (file.stem, node.name) not in served | used:
                faults.append(f"handlers/{file.name}: {node.name} is no operation; is it a private one?")
    return faults


def _uses(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module uses of the modules of handlers/: (module, name)."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "handlers":
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("handlers."):
            yield from ((node.module.removeprefix("handlers."), alias.name) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            yield known[node.value.id], node.attr


def errors_mapped(_: Spec) -> list[str]:
    """Every error of the business has a place in handlers/problems.py; the most special is found first."""
    for package in (models, storage, handlers):
        for entry in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if "migrations" not in entry.name:
                importlib.import_module(entry.name)
    faults = []
    own = dict(problems.OF_DOMAIN)
    for kind in _descendants(DomainError):
        found = next((code for mapped, code in problems.OF_DOMAIN if issubclass(kind, mapped)), None)
        if found is None:
            faults.append(f"handlers/problems.py: OF_DOMAIN has nothing for {kind.__name__}")
        elif own.get(kind, found) != found:
            faults.append(
                f"handlers/problems.py: in OF_DOMAIN {kind.__name__} stands behind what it descends from"
            )
    faults += [
        f"handlers/problems.py: {code} is no code of CODES"
        for code in own.values()
        if code not in problems.CODES
    ]
    faults += [
        f"handlers/problems.py: status {status} of {code} has no title"
        for code, status in problems.CODES.items()
        if status not in problems.TITLES
    ]
    return faults


def _descendants(kind: type[DomainError]) -> Iterator[type[DomainError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


def codes_documented(spec: Spec) -> list[str]:
    """Each status that a code stands for is a documented answer of some operation, so none is unheard of."""
    statuses = {int(status) for _, _, _, operation in operations(spec) for status in operation["responses"]}
    return [
        f"openapi/components/common.yaml: no operation documents {status}, the status of {code}"
        for code, status in problems.CODES.items()
        if status not in statuses and code not in UNDOCUMENTED
    ]


UNDOCUMENTED = {
    "method-not-allowed",  # every path answers it by itself, for methods that are no operation
    "provider-error",
    "provider-timeout",
}
"""Codes that need no operation to document their status. May only shrink."""


def readers_disagree(text: str) -> bool:
    """Whether YAML 1.1 (PyYAML) and 1.2 read the same text as different values."""
    modern = YAML(typ="safe", pure=True)
    modern.version = (1, 2)
    return bool(_plain(yaml.safe_load(text)) != _plain(modern.load(text)))


def _plain(value: Any) -> Any:
    """With types made visible: Python takes True for 1."""
    if isinstance(value, dict):
        return {(type(key).__name__, key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return type(value).__name__, value


GUARDS: tuple[Guard, ...] = (
    described,
    extensions_known,
    exemplified,
    linked,
    bounded,
    closed,
    static_first,
    codes_agree,
    wire_agrees,
    no_orphans,
    errors_mapped,
    codes_documented,
)

"""The schemas of the contract, compiled: all that is wrong with a value, each fault with its place."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime
from typing import Any

import jsonschema_rs

from handlers.problems import Fault
from openapi.contract import Contract


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


def inline(contract: Contract, schema: Any) -> Any:
    """A schema with its references replaced (the contract's schemas are not recursive)."""
    if isinstance(schema, list):
        return [inline(contract, part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return inline(contract, contract.resolve(schema))
    return {key: inline(contract, value) for key, value in schema.items()}

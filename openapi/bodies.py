"""Bodies as they arrive: cut off at a size, and read as JSON or as a form, without guessing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive, Scope

from handlers.problems import Problem

MAX_DEPTH = 64
MAX_FIELDS = 200
MAX_DIGITS = 300
SURROGATE = re.compile("[\ud800-\udfff]")


def reject(detail: str, pointer: str = "") -> Problem:
    """400, with the place."""
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
            if "\0" in text or SURROGATE.search(text):
                raise ValueError("a string holds a NUL or a lone surrogate")
    except UnicodeDecodeError as fault:
        raise reject("The body is not UTF-8.") from fault
    except json.JSONDecodeError as fault:
        raise reject(f"The body is not JSON: {fault.msg} at character {fault.pos}.") from fault
    except ValueError as fault:
        raise reject(f"The body is not acceptable JSON: {fault}.") from fault
    except RecursionError as fault:
        raise reject(f"The body is nested deeper than {MAX_DEPTH} levels.") from fault
    return value


def limited(receive: Receive, most: int) -> Receive:
    """``receive`` that stops with 413 once more than ``most`` bytes came."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise too_large(most)
        return message

    return counted


def too_large(most: int) -> Problem:
    """413, with the limit."""
    return Problem("payload-too-large", f"The body may hold at most {most} bytes.", meta={"max_bytes": most})


async def read_all(receive: Receive) -> bytes:
    """The whole body."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise reject("The body is incomplete.")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def read_form(scope: Scope, receive: Receive) -> dict[str, list[Any]]:
    """A multipart body; files go to disk beyond a megabyte."""

    async def chunks() -> Any:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise reject("The body is incomplete.")
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
        raise reject("The multipart body cannot be read.") from fault
    for name, value in parsed.multi_items():
        form.setdefault(name, []).append(value)
    return form

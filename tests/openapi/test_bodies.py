"""Bodies as they arrive: JSON to the letter."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.problems import Problem
from openapi.bodies import parse_json


class TestJson:
    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            (b'{"a": [1, -2.5e3, true, null, "\\u00e9"]}', {"a": [1, -2500.0, True, None, "é"]}),
            ('"😀"'.encode(), "😀"),
            (b'"\\ud83d\\ude00"', "😀"),
            (b" \n\t[]\r\n", []),
            (b"9223372036854775807", 2**63 - 1),
            (b"9223372036854775808", float(2**63)),
            (b"-1e-400", -0.0),
            (b"[" * 64 + b"]" * 64, None),
        ],
    )
    def test_takes(self, raw: bytes, value: Any) -> None:
        parsed = parse_json(raw)
        assert value is None or (parsed == value and type(parsed) is type(value))

    @pytest.mark.parametrize(
        ("raw", "told"),
        [
            (b'"\xff"', "not UTF-8"),
            (b'{"a":1,"a":1}', "twice"),
            (b'{"a":{"b":1,"b":2}}', "twice"),
            (b"NaN", "NaN"),
            (b"[-Infinity]", "Infinity"),
            (b"1e400", "too large"),
            (b"9" * 301, "300 digits"),
            (b'"\\u0000"', "NUL"),
            (b'{"\\u0000":1}', "NUL"),
            (b'"\\udfff"', "surrogate"),
            (b"[" * 67 + b"]" * 67, "64 levels"),
            (b"[" * 200_000, "64 levels"),
            (b"{]", "character 1"),
            (b"", "character 0"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_refuses(self, raw: bytes, told: str) -> None:
        with pytest.raises(Problem, match=told) as refused:
            parse_json(raw)
        assert (refused.value.status, len(refused.value.faults)) == (400, 1)

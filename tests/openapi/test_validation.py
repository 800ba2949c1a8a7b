"""What arrives, against the contract: JSON to the letter, typed parameters, types by preference."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.problems import Problem
from openapi.validation import Parameter, _best, compile_schema, faults_of, parse_json


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


class TestFaults:
    SCHEMA = {
        "type": "object",
        "required": ["id"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "at": {"type": "string", "format": "date-time"},
            "a/b": {"type": "array", "items": {"type": "integer", "nullable": True, "maximum": 3}},
            "kind": {"type": "string", "nullable": True, "enum": ["one"]},
        },
    }

    def faults(self, value: Any) -> dict[str, str]:
        return {f["pointer"]: f["detail"] for f in faults_of(compile_schema(self.SCHEMA), value)}

    def test_all_are_told_with_their_places(self) -> None:
        found = self.faults(
            {"id": "no", "at": "2026-13-01", "a/b": [1, 9, None, "x"], "kind": "two", "more": 1}
        )
        assert found.keys() == {"/id", "/at", "/a~1b/1", "/a~1b/3", "/kind", ""}
        assert "more" in found[""]

    def test_none_is_no_fault_where_it_may_be(self) -> None:
        assert self.faults({"id": "01934c5e-7d2a-7c3b-9a44-5f1d2b6c8e90", "a/b": [None], "kind": None}) == {}

    def test_the_value_is_never_repeated(self) -> None:
        assert "secret" not in str(self.faults({"id": "secret-secret", "kind": "secret"}))

    def test_a_hundred_are_enough(self) -> None:
        found = faults_of(compile_schema(self.SCHEMA), {"id": 1, "a/b": ["x"] * 1000})
        assert len(found) == 100


class TestParameters:
    @pytest.mark.parametrize(
        ("schema", "values", "read"),
        [
            ({"type": "integer"}, ["7"], 7),
            ({"type": "integer", "default": 3}, [], 3),
            ({"type": "number"}, ["-1.5e2"], -150.0),
            ({"type": "boolean"}, ["false"], False),
            ({"type": "string"}, ["7"], "7"),
            ({"type": "array", "items": {"type": "integer"}}, ["1", "2"], [1, 2]),
            *(
                ({"type": "string", "format": "date-time"}, [text], text)
                for text in ("9999-12-31T23:59:59Z", "2026-11-26T12:00:00.123456789+02:00")
            ),
            (
                {"type": "string", "format": "uuid"},
                ["01934C5E-7D2A-7C3B-9A44-5F1D2B6C8E90"],
                "01934c5e-7d2a-7c3b-9a44-5f1d2b6c8e90",
            ),
        ],
    )
    def test_have_their_type(self, schema: dict[str, Any], values: list[str], read: Any) -> None:
        value, faults = Parameter({"name": "p", "in": "query"}, schema).read(values)
        assert (value, faults) == (read, [])

    @pytest.mark.parametrize(
        ("schema", "values"),
        [
            ({"type": "integer"}, ["1.0"]),
            ({"type": "integer"}, ["٣"]),
            ({"type": "integer"}, ["9" * 5000]),
            ({"type": "integer", "maximum": 5}, ["6"]),
            ({"type": "number"}, ["nan"]),
            ({"type": "number"}, ["1e999"]),
            ({"type": "boolean"}, ["yes"]),
            ({"type": "string", "format": "uuid"}, ["none"]),
            ({"type": "string", "format": "date-time"}, ["2026-11-26"]),
            ({"type": "string", "format": "date-time"}, ["2026-02-30T12:00:00Z"]),
            ({"type": "string", "format": "date-time"}, ["2026-11-26T12:00:00"]),
            ({"type": "string", "format": "date-time"}, ["2026-11-26t12:00:00z"]),
            ({"type": "string", "format": "date-time"}, ["2016-12-31T23:59:60Z"]),
            ({"type": "string", "format": "date-time"}, ["0001-01-01T00:00:00+02:00"]),
            ({"type": "string", "format": "date-time"}, ["9999-12-31T23:59:59-02:00"]),
            ({"type": "string"}, ["a", "b"]),
        ],
    )
    def test_are_refused_by_name(self, schema: dict[str, Any], values: list[str]) -> None:
        _, faults = Parameter({"name": "p", "in": "query"}, schema).read(values)
        assert [fault["parameter"] for fault in faults] == ["p"]

    def test_a_missing_one_is_told(self) -> None:
        _, faults = Parameter({"name": "p", "in": "query", "required": True}, {"type": "string"}).read([])
        assert faults == [{"parameter": "p", "detail": "is required"}]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("text/*;q=0.9, application/json;q=0.1", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/csv;q=0, */*", "application/json"),
        ("image/png, */*;q=0.1", "application/json"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("image/png", None),
        ("application/json;q=0", None),
        ("application/json;q=nonsense", None),
        (",;=,", None),
    ],
)
def test_the_type_that_is_preferred(accept: str, chosen: str | None) -> None:
    assert _best(accept, ["application/json", "text/csv"]) == chosen

"""Typed parameters, against the contract."""

from __future__ import annotations

from typing import Any

import pytest

from openapi.validation import Parameter


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

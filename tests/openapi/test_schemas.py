"""What a value has wrong by a schema."""

from __future__ import annotations

from typing import Any

from openapi.schemas import compile_schema, faults_of


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

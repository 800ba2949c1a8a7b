"""The bundle: what follows from an operation's kind, and what the sources may not do."""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from connexion.spec import create_spec_validator

from openapi import bundle
from openapi.contract import Contract

OK: dict[str, Any] = {"description": "It is there.", "content": {}}


def completed(path: str, **methods: Any) -> dict[str, Any]:
    """The operations of one path after the rules were applied."""
    made: dict[str, Any] = {
        method: {"operationId": f"things.{method}", "responses": {"200": dict(OK)}, **operation}
        for method, operation in methods.items()
    }
    item: dict[str, Any] = bundle.complete({"paths": {path: made}, "components": {}})["paths"][path]
    return item


def names(operation: dict[str, Any]) -> set[str]:
    return {parameter["$ref"].rpartition("/")[2] for parameter in operation.get("parameters", [])}


class TestComplete:
    def test_every_operation_may_fail_in_these_ways(self) -> None:
        assert {"400", "406", "429", "500", "503"} <= completed("/things", get={})["get"]["responses"].keys()

    def test_a_guarded_one_may_be_refused(self) -> None:
        assert {"401", "403"} <= completed("/things", get={})["get"]["responses"].keys()
        public = completed("/things", get={"security": [{}]})["get"]
        assert not {"401", "403"} & public["responses"].keys()

    def test_a_path_with_an_id_may_lead_nowhere(self) -> None:
        assert "404" in completed("/things/{id}", get={})["get"]["responses"]
        assert "404" not in completed("/things", get={})["get"]["responses"]

    def test_a_body_may_be_too_large_or_of_another_type(self) -> None:
        assert {"413", "415"} <= completed("/things", post={"requestBody": {}})["post"]["responses"].keys()

    def test_a_post_is_answered_once(self) -> None:
        once = completed("/things", post={})["post"]
        assert names(once) == {"IdempotencyKey"}
        assert "Idempotent-Replayed" in once["responses"]["200"]["headers"]
        often = completed("/things", post={"x-idempotent": False})["post"]
        assert names(often) == set()
        assert "409" not in often["responses"]

    def test_an_item_has_a_version(self) -> None:
        item = completed("/things/{id}", get={}, put={}, delete={"responses": {"204": dict(OK)}})
        assert [names(item[method]) for method in ("get", "put", "delete")] == [
            {"IfNoneMatch"},
            {"IfMatch"},
            {"IfMatch"},
        ]
        assert "ETag" in item["get"]["responses"]["200"]["headers"]
        assert {"304"} <= item["get"]["responses"].keys()
        assert {"412"} <= item["put"]["responses"].keys() & item["delete"]["responses"].keys()

    def test_a_stored_file_has_parts(self) -> None:
        file = completed("/things/{id}/content", get={"x-ranges": True, "x-item": True})["get"]
        assert names(file) == {"IfNoneMatch", "Range", "IfRange"}
        assert {"206", "416"} <= file["responses"].keys()
        whole, part = (file["responses"][status]["headers"].keys() for status in ("200", "206"))
        assert {"Accept-Ranges", "ETag"} <= whole
        assert part - whole == {"Content-Range"}
        assert "206" not in completed("/things/{id}", get={})["get"]["responses"]

    def test_a_verb_below_an_item_has_none(self) -> None:
        assert "412" not in completed("/things/{id}/stop", post={})["post"]["responses"]

    def test_what_was_written_stays(self) -> None:
        own = {"description": "Nobody may.", "content": {}}
        operation = completed("/things", get={"responses": {"200": dict(OK), "403": own}})["get"]
        assert operation["responses"]["403"]["description"] == "Nobody may."

    def test_parameters_of_a_path_stand_in_each_operation(self) -> None:
        shared = {"name": "id", "in": "path", "required": True}
        spec = {
            "paths": {"/things/{id}": {"parameters": [shared], "get": {"responses": {"200": dict(OK)}}}},
            "components": {},
        }
        item = bundle.complete(spec)["paths"]["/things/{id}"]
        assert "parameters" not in item
        assert shared in item["get"]["parameters"]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small contract of its own."""
    (tmp_path / "paths").mkdir()
    (tmp_path / "components").mkdir()
    (tmp_path / "openapi.yaml").write_text("openapi: 3.0.3\ninfo: {title: T, version: '1'}\n")
    (tmp_path / "components/common.yaml").write_text(
        "schemas: {Used: {type: string}, Unused: {type: string}}\n"
    )
    (tmp_path / "paths/things.yaml").write_text(
        "/things/{id}: {parameters: [{schema: {$ref: '#/components/schemas/Used'}}]}\n/things/all: {}\n"
    )
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    monkeypatch.setattr(bundle, "DIST", tmp_path / "dist" / "openapi.yaml")
    return tmp_path


class TestSources:
    def test_fixed_paths_come_first(self, sources: Path) -> None:
        assert list(bundle.bundle()["paths"]) == ["/things/all", "/things/{id}"]

    def test_a_path_in_two_files_is_refused(self, sources: Path) -> None:
        (sources / "paths/zz.yaml").write_text("/things/all: {}\n")
        with pytest.raises(bundle.BundleError, match=r"paths/zz\.yaml: /things/all stands elsewhere"):
            bundle.bundle()

    def test_a_component_in_two_files_is_refused(self, sources: Path) -> None:
        (sources / "components/zz.yaml").write_text("schemas: {Used: {type: integer}}\n")
        with pytest.raises(bundle.BundleError, match=r"components/zz\.yaml: Used"):
            bundle.bundle()

    def test_a_reference_to_nothing_is_refused(self, sources: Path) -> None:
        (sources / "paths/zz.yaml").write_text("/zz: {x: {$ref: '#/components/schemas/Missing'}}\n")
        with pytest.raises(bundle.BundleError, match="schemas/Missing is referred to"):
            bundle.bundle()

    def test_what_nobody_uses_is_left_out(self, sources: Path) -> None:
        (sources / "paths/zz.yaml").write_text(
            "/zz: {get: {x: {$ref: '#/components/schemas/Used'}, responses: {}}}\n"
        )
        # What every operation gets stands in the real components only.
        common = Path(bundle.__file__).parent / "components/common.yaml"
        (sources / "components/common.yaml").write_text(
            common.read_text().replace(
                "schemas:\n", "schemas:\n  Used: {type: string}\n  Unused: {type: string}\n", 1
            )
        )
        schemas = bundle.bundle()["components"]["schemas"]
        assert "Used" in schemas
        assert "Unused" not in schemas

    def test_writing_tells_whether_it_changed(self, sources: Path) -> None:
        assert [bundle.is_current(), bundle.write(), bundle.write(), bundle.is_current()] == [
            False,
            True,
            False,
            True,
        ]


def test_connexion_takes_it() -> None:
    """What Connexion would ask at each start, defaults against their schemas too, is asked here."""
    schema = pkgutil.get_data("connexion", "resources/schemas/v3.0/schema.json")
    assert schema is not None
    spec = Contract().spec
    create_spec_validator(spec)(json.loads(schema)).validate(spec)

"""The guards hold, and each of them notices what it is there for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers import personas, problems
from handlers.schemas import personas as wire
from models.errors import DomainError
from openapi import bundle
from openapi.contract import Contract, ContractError
from tests.contract import guards
from tests.contract.guards import Guard, Spec

LIST, ITEM = "/api/v1/chat/personas", "/api/v1/chat/personas/{id}"


@pytest.fixture(scope="module")
def published() -> Spec:
    spec: Spec = yaml.load(bundle.DIST.read_bytes(), Loader=yaml.CSafeLoader)  # noqa: S506 - the safe loader
    return spec


@pytest.fixture
def spec(published: Spec) -> Spec:
    """A copy to break."""
    return copy.deepcopy(published)


@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda guard: guard.__name__)
def test_holds(guard: Guard, published: Spec) -> None:
    assert guard(published) == []


def _links(spec: Spec) -> Any:
    return spec["paths"][LIST]["post"]["responses"]["201"]["links"]


def _schema(spec: Spec, name: str) -> Any:
    return spec["components"]["schemas"][name]


def _swap_paths(spec: Spec) -> None:
    spec["paths"]["/api/v1/chat/personas/assigned"] = spec["paths"].pop("/api/v1/chat/personas/assigned", {})


BREAKS: list[tuple[Guard, Callable[[Spec], object], str]] = [
    (
        guards.described,
        lambda s: s["paths"][LIST]["get"].pop("summary"),
        "personas.yaml (personas.list): summary",
    ),
    (guards.described, lambda s: s["paths"][LIST]["get"].update(tags=["Nowhere"]), "one tag"),
    (
        guards.extensions_known,
        lambda s: s["paths"][LIST]["post"].update({"x-idempotant": False}),
        "x-idempotant",
    ),
    (
        guards.exemplified,
        lambda s: s["components"]["examples"]["Persona"]["value"].update(version="one"),
        "personas.yaml (personas.create): example of the response 201: {'pointer': '/version'",
    ),
    (
        guards.exemplified,
        lambda s: s["paths"][LIST]["post"]["requestBody"]["content"]["application/json"].pop("examples"),
        "the request as application/json has no example",
    ),
    (
        guards.linked,
        lambda s: _links(s)["get"].update(operationId="personas.fetch"),
        "no operation personas.fetch",
    ),
    (guards.linked, lambda s: _links(s)["get"].update(parameters={}), "id of personas.get is left open"),
    (
        guards.linked,
        lambda s: _links(s)["get"]["parameters"].update(id="$response.body#/identity"),
        "#/identity stands nowhere",
    ),
    (
        guards.linked,
        lambda s: _links(s)["get"]["parameters"].update(key="$response.body#/id"),
        "takes no key",
    ),
    (guards.bounded, lambda s: _schema(s, "PersonaName").pop("maxLength"), "(schemas.PersonaName): string"),
    (guards.bounded, lambda s: _schema(s, "IdList").pop("maxItems"), "(schemas.IdList): array"),
    (guards.bounded, lambda s: _schema(s, "Count").pop("maximum"), "(schemas.Count): integer"),
    (guards.closed, lambda s: _schema(s, "PersonaCreate").pop("additionalProperties"), "(personas.create)"),
    (guards.static_first, _swap_paths, "/personas/assigned stands behind"),
    (guards.codes_agree, lambda s: _schema(s, "ProblemCode")["enum"].remove("conflict"), "conflict"),
    (guards.codes_agree, lambda s: _schema(s, "ProblemCode")["enum"].append("gone"), "common.yaml"),
    (guards.wire_agrees, lambda s: _schema(s, "Persona")["properties"].pop("slug"), "slug is no property"),
    (
        guards.wire_agrees,
        lambda s: _schema(s, "Persona")["properties"].update(mood={"type": "boolean"}),
        "handlers/schemas/personas.py (Persona): mood of the component is not written",
    ),
    (guards.wire_agrees, lambda s: s["components"]["schemas"].pop("Persona"), "no used schema"),
    (
        guards.no_orphans,
        lambda s: s["paths"][ITEM].pop("put"),
        "handlers/personas.py: replace is no operation",
    ),
]


@pytest.mark.parametrize(
    ("guard", "change", "told"), BREAKS, ids=[f"{g.__name__}-{t[-20:]}" for g, _, t in BREAKS]
)
def test_notices(guard: Guard, change: Callable[[Spec], object], told: str, spec: Spec) -> None:
    # Wire and references are resolved from the copy, so that what uses a removed schema does not matter here.
    change(spec)
    assert any(told in fault for fault in guard(spec)), guard(spec)


class TestErrorTable:
    def test_a_new_error_needs_a_place(self, spec: Spec) -> None:
        class Unheard(DomainError):
            """Of this test."""

        assert any("Unheard" in fault for fault in guards.errors_mapped(spec))
        del Unheard

    def test_the_more_special_stands_first(self, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(problems, "OF_DOMAIN", tuple(reversed(problems.OF_DOMAIN)))
        assert any("stands behind" in fault for fault in guards.errors_mapped(spec))

    def test_a_status_needs_a_title(self, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(problems.CODES, "conflict", 418)
        assert any("418 of conflict has no title" in fault for fault in guards.errors_mapped(spec))
        assert any("418" in fault for fault in guards.codes_documented(spec))


class TestStart:
    """What the server refuses to start with."""

    @pytest.fixture
    def starts(self, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Contract]:
        def start() -> Contract:
            (tmp_path / "broken.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
            monkeypatch.setattr(bundle, "DIST", tmp_path / "broken.yaml")
            return Contract()

        return start

    def test_with_what_is_published(self, starts: Callable[[], Contract]) -> None:
        assert "personas.list" in starts().operations

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"operationId": "personas.conjure"}, "handlers/personas.py has no function conjure"),
            ({"operationId": "conjurers.list"}, "handlers/conjurers.py is missing"),
            ({"operationId": "listPersonas"}, "openapi/paths"),
            ({"operationId": "personas.update"}, "personas.update stands twice"),
            ({"x-required-scope": None}, "names x-required-scope"),
            ({"x-required-scope": "personas:conjure"}, "unknown scope personas:conjure"),
            ({"security": [{}]}, "a public one an empty requirement"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_with_a_broken_operation(
        self, spec: Spec, starts: Callable[[], Contract], change: dict[str, Any], told: str
    ) -> None:
        spec["paths"][LIST]["get"].update(change)
        with pytest.raises(ContractError, match=told.replace(".", r"\.")):
            starts()

    def test_with_a_parameter_that_the_handler_does_not_take(
        self, spec: Spec, starts: Callable[[], Contract]
    ) -> None:
        spec["paths"][LIST]["get"]["parameters"][0]["name"] = "stack"
        with pytest.raises(ContractError, match=r"handlers/personas\.py.*list.*stack"):
            starts()

    def test_with_an_argument_that_nothing_fills(
        self, starts: Callable[[], Contract], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def get(id: str, mood: str) -> dict[str, Any]:
            raise NotImplementedError(id, mood)

        monkeypatch.setattr(personas, "get", get)
        with pytest.raises(ContractError, match="mood"):
            starts()

    def test_with_a_body_that_may_be_missing(self, spec: Spec, starts: Callable[[], Contract]) -> None:
        spec["paths"][LIST]["post"]["requestBody"]["required"] = False
        with pytest.raises(ContractError, match=r"create needs a default for body"):
            starts()


class TestBundle:
    def test_is_current(self) -> None:
        assert bundle.is_current(), "run `booga spec bundle` and commit openapi/dist/openapi.yaml"

    def test_is_stale_after_any_change(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "openapi.yaml").write_bytes(bundle.DIST.read_bytes() + b"\n")
        monkeypatch.setattr(bundle, "DIST", tmp_path / "openapi.yaml")
        assert not bundle.is_current()

    @pytest.mark.parametrize(
        "file",
        [*sorted(bundle.ROOT.rglob("*.yaml"))],
        ids=lambda file: str(file.relative_to(bundle.ROOT)),
    )
    def test_reads_alike_in_every_yaml(self, file: Path) -> None:
        assert not guards.readers_disagree(file.read_text()), (
            f"{file}: quote what YAML 1.1 takes for another type"
        )

    @pytest.mark.parametrize("text", ["at: 9:00", "country: no", "on: [push]", "mode: 010", "few: 1e3"])
    def test_notices_what_reads_differently(self, text: str) -> None:
        assert guards.readers_disagree(text)


def test_wire_fields_are_compared_both_ways(published: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = dict(wire.Persona._declared_fields)
    fields.pop("name")
    monkeypatch.setattr(wire.Persona, "_declared_fields", fields)
    assert guards.wire_agrees(published) == [
        "handlers/schemas/personas.py (Persona): name of the component is not written"
    ]

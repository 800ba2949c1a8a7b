"""Every operation of the contract, called by all who should be let in and by all who should not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract import matrix
from tests.contract.matrix import ACTORS, VISITORS, Cast, Headers
from tests.contract.specimens import GLOBAL, Operation, Specimens, comparable, operations, unknown_id, with_id
from tests.servers import Server, Tenant

OURS = [operation for operation in operations() if not operation.is_visitors]
VISITED = [operation for operation in operations() if operation.is_visitors]


def of(chosen: list[Operation]) -> pytest.MarkDecorator:
    """One test for each."""
    return pytest.mark.parametrize("operation", chosen, ids=[operation.id for operation in chosen])


@pytest.fixture(scope="module")
def cast(server: Server, operator_key: str, without_capability: Tenant) -> Iterator[Cast]:
    """Who makes the actors' credentials."""
    made = Cast(server, operator_key, without_capability)
    yield made
    made.close()


@pytest.fixture(scope="module")
def credentials(cast: Cast) -> dict[str, Headers]:
    """What each actor sends."""
    return {actor.name: actor.credential(cast) for actor in ACTORS}


@pytest.fixture(scope="module")
def visits(cast: Cast) -> dict[str, tuple[dict[str, Any], Headers]]:
    """Which bot each visitor talks to, and what each sends."""
    return {visitor.name: visitor.call(cast) for visitor in VISITORS}


@of(OURS)
def test_actors(operation: Operation, cast: Cast, credentials: dict[str, Headers]) -> None:
    wrong = {}
    for actor in ACTORS:
        came = matrix.told(cast.anonymous.request(**matrix.probe(operation), headers=credentials[actor.name]))
        foretold = matrix.foretold(operation, actor)
        if came != foretold:
            wrong[actor.name] = f"{came}, not {foretold}"
    assert not wrong, f"{operation.id} answered {wrong}"


@of(VISITED)
def test_visitors(
    operation: Operation, cast: Cast, visits: dict[str, tuple[dict[str, Any], Headers]]
) -> None:
    wrong = {}
    for visitor in VISITORS:
        bot, headers = visits[visitor.name]
        ids = {"public_key": bot["public_key"], "id": bot["session_id"]}
        came = matrix.told(cast.anonymous.request(**matrix.probe(operation, ids), headers=headers))
        foretold = matrix.foretold_to_visitor(operation, visitor)
        if came != foretold:
            wrong[visitor.name] = f"{came}, not {foretold}"
    assert not wrong, f"{operation.id} answered visitors {wrong}"


def test_the_table_foretells_every_refusal_and_every_welcome() -> None:
    """A rule that foretells the same to all would hold of a server that does the same to all."""
    everything = set()
    for operation in OURS:
        expected = {matrix.foretold(operation, actor) for actor in ACTORS}
        assert expected & {matrix.PASSES, matrix.WELCOME}, operation.id
        assert operation.is_public or expected >= {matrix.NOBODY, matrix.NARROW}, operation.id
        everything |= expected
    assert everything >= {matrix.NOT_HERE, matrix.NOT_PAID}


def _places() -> list[Any]:
    return [
        pytest.param(operation, place, id=f"{operation.id}-{place}")
        for operation in OURS
        if not operation.is_public
        for place in operation.places
        if not operation.is_operators  # these see every tenant
        if place.kind not in GLOBAL
    ]


@pytest.mark.parametrize(("operation", "place"), _places())
def test_another_tenants_id_is_as_if_it_never_was(
    operation: Operation, place: Any, ours: Specimens, theirs: Specimens
) -> None:
    foreign, unknown = theirs.the(place.kind), unknown_id()
    if foreign is None:
        pytest.skip(f"the contract makes no {place.kind or place.name} to compare with")
    if place.where == "path":
        name = place.name[0]
        calls = [ours.call(operation, **{name: id}) for id in (foreign, unknown)]
    else:
        made = [with_id(ours.call(operation), operation, place, id) for id in (foreign, unknown)]
        calls = [call for call in made if call is not None]
        if not calls:
            pytest.skip(f"the contract takes no {place} beside its example's other fields")
        name_fields = [call["json"] for call in calls if "name" in call.get("json", {})]
        for fields in name_fields:
            fields["name"] = "The same name"
    answers = [ours.client.request(**call) for call in calls]
    assert comparable(answers[0], foreign) == comparable(answers[1], unknown)
    # In bulk each id is told for itself; where a rule lists who is eligible, nobody else is.
    assert answers[0].status_code in (404, 422) or "not_found" in answers[0].text
    assert place.where == "body" or answers[0].status_code == 404

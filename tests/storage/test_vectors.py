"""Vectors in Chroma, embedded and as a server: what is found, for whom, and what happens while it is away."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.base import new_id
from storage import vectors
from storage.embeddings import Vectors
from storage.settings import settings
from storage.vectors import VectorsUnavailable, client
from tests.installed import Of, until

ROOT = Path(__file__).parents[2]
DIMENSIONS = 8


def unit(*angles: float) -> Vectors:
    """Vectors in a plane, by their angle in degrees; the cosine of two is that of the angle between."""
    turned = np.radians(angles)
    rows = np.zeros((len(angles), DIMENSIONS), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(turned), np.sin(turned)
    return rows


@pytest.fixture
def place(of: Of) -> str:
    return vectors.collection(of.tenant_id, new_id(), "embedder")


def positions(within: dict[str, list[str] | None], limit: int = 10) -> list[tuple[str, int]]:
    return [(hit.document_id, hit.position) for hit in vectors.nearest(within, unit(0)[0], limit)]


def test_the_nearest_come_first_with_their_cosines(place: str) -> None:
    vectors.upsert(place, "d", [0, 1, 2], unit(90, 0, 60))
    hits = vectors.nearest({place: None}, unit(0)[0], 10)
    assert [(hit.document_id, hit.position) for hit in hits] == [("d", 1), ("d", 2), ("d", 0)]
    assert [hit.cosine for hit in hits] == pytest.approx([1, 0.5, 0], abs=1e-5)
    assert positions({place: None}, limit=1) == [("d", 1)]


def test_a_vector_of_the_same_position_is_replaced(place: str) -> None:
    vectors.upsert(place, "d", [0], unit(90))
    vectors.upsert(place, "d", [0], unit(0))
    assert vectors.count(place) == 1
    assert vectors.nearest({place: None}, unit(0)[0], 1)[0].cosine == pytest.approx(1, abs=1e-5)


def test_only_the_documents_named_are_found(place: str) -> None:
    for number, name in enumerate("abc"):
        vectors.upsert(place, name, [0], unit(10 * number))
    assert positions({place: ["b", "c", "unknown"]}) == [("b", 0), ("c", 0)]
    assert positions({place: []}) == []
    assert positions({place: ["b"] + [f"other {n}" for n in range(2500)]}) == [("b", 0)]


def test_a_collection_that_is_not_there_holds_nothing(place: str) -> None:
    assert positions({place: None}) == []
    assert vectors.count(place) == 0
    assert vectors.remove(place, "d") == 0


def test_collections_are_searched_together_and_apart(of: Of, place: str) -> None:
    other = vectors.collection(of.tenant_id, None, "embedder")
    vectors.upsert(place, "a", [0], unit(30))
    vectors.upsert(other, "b", [0], unit(10))
    assert positions({place: None, other: None}) == [("b", 0), ("a", 0)]
    assert positions({place: None}) == [("a", 0)]


def test_names_keep_tenants_indices_and_embedders_apart() -> None:
    ids = [new_id() for _ in range(2)]
    names = {
        vectors.collection(tenant, index, embedder)
        for tenant in ids
        for index in (*ids, None)
        for embedder in ("one", "other")
    }
    assert len(names) == 12


def test_removal_says_how_many_there_were(place: str) -> None:
    vectors.upsert(place, "a", range(100), np.repeat(unit(20), 100, axis=0))
    vectors.upsert(place, "b", [0], unit(40))
    assert vectors.remove(place, "a") == 100
    assert vectors.remove(place, "a") == 0
    assert positions({place: None}) == [("b", 0)]


def test_an_index_is_dropped_whatever_its_embedder(of: Of) -> None:
    index, other = new_id(), new_id()
    for name in ("one", "another"):
        vectors.upsert(vectors.collection(of.tenant_id, index, name), "a", [0, 1], unit(0, 10))
    kept = vectors.collection(of.tenant_id, other, "one")
    vectors.upsert(kept, "b", [0], unit(0))
    assert vectors.drop(of.tenant_id, index) == 4
    assert vectors.drop(of.tenant_id, index) == 0
    assert vectors.count(kept) == 1
    again = vectors.collection(of.tenant_id, index, "one")
    vectors.upsert(again, "c", [0], unit(0))
    assert positions({again: None}) == [("c", 0)]


def test_holdings_count_each_document(of: Of, place: str) -> None:
    vectors.upsert(place, "a", range(600), np.repeat(unit(20), 600, axis=0))
    vectors.upsert(place, "b", [0], unit(40))
    assert vectors.holdings()[place] == {"a": 600, "b": 1}


def test_health_loads_nothing_that_nobody_needs(of: Of) -> None:
    vectors.close()
    before = vectors.health()
    assert before.ok
    vectors.nearest({}, unit(0)[0], 1)
    vectors.count("nothing.at.all")
    after = vectors.health()
    assert after.ok
    assert after.loaded
    assert after.latency_ms is not None
    assert before.loaded == (before.mode == "server")


class TestAway:
    def test_searches_fail_at_once_for_a_while_and_then_recover(
        self, of: Of, chroma_away: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = vectors.collection(of.tenant_id, None, "embedder")
        with pytest.raises(VectorsUnavailable):
            vectors.nearest({place: None}, unit(0)[0], 1)
        asked: list[str] = []
        monkeypatch.setattr(client._Chroma, "ask", lambda self, what, *rest: asked.append(what))
        with pytest.raises(VectorsUnavailable, match="a moment ago"):
            vectors.nearest({place: None}, unit(0)[0], 1)
        assert asked == [], "nobody waits in vain"
        monkeypatch.undo()
        chroma_away()
        vectors.upsert(place, "d", [0], unit(0))
        assert positions({place: None}) == [("d", 0)]

    def test_writes_say_so(self, of: Of, chroma_away: Callable[[], None]) -> None:
        place = vectors.collection(of.tenant_id, None, "embedder")
        for write in (
            lambda: vectors.upsert(place, "d", [0], unit(0)),
            lambda: vectors.remove(place, "d"),
            lambda: vectors.drop(of.tenant_id, None),
        ):
            with pytest.raises(VectorsUnavailable):
                write()

    def test_health_tells(self, of: Of, chroma_away: Callable[[], None]) -> None:
        assert not vectors.health().ok

    def test_its_process_is_replaced_by_itself_when_it_dies_and_nothing_is_lost(self, place: str) -> None:
        vectors.upsert(place, "d", [0, 1], unit(0, 10))
        chroma = client._chroma()
        assert chroma._process is not None
        first = chroma._process.pid
        chroma._process.kill()
        until(lambda: chroma._process is not None and chroma._process.pid != first)
        until(lambda: not chroma.is_lost())
        assert vectors.health().ok
        assert vectors.count(place) == 2

    def test_an_answer_that_takes_too_long_is_not_waited_for(
        self, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vectors.upsert(place, "d", [0], unit(0))
        monkeypatch.setattr(client, "SEARCH_SECONDS", 0.0)
        process = client._chroma()._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(VectorsUnavailable, match="did not answer within"):
                vectors.nearest({place: None}, unit(0)[0], 1)
        finally:
            process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
class TestEmbedded:
    def test_one_process_alone_holds_the_folder(self, of: Of, place: str) -> None:
        vectors.upsert(place, "d", [0], unit(0))
        told = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", "from storage import vectors; print(vectors.health().detail)"],
            cwd=ROOT,
            env={"BOOGA_DATA_DIR": str(settings().data_dir)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "another process" in told

    def test_it_ends_with_its_parent(self, of: Of) -> None:
        vectors.close()
        program = (
            "import os, signal; from storage import vectors; from storage.vectors import client;"
            "vectors.count('x'); print(client._chroma()._process.pid, flush=True);"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        told = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"BOOGA_DATA_DIR": str(settings().data_dir)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == -9
        child = Path("/proc") / told.stdout.strip()
        until(lambda: not child.exists() or " Z " in (child / "stat").read_text())
        # The folder is free again.
        assert vectors.count("x") == 0

    def test_it_is_for_its_owner_alone(self, of: Of, place: str) -> None:
        vectors.upsert(place, "d", [0], unit(0))
        folder = settings().data_dir / "chroma"
        assert [path for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077] == []

"""From a file to vectors: every format, every refusal, and a fall at every step."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select, update

from handlers.jobs import KINDS, embed, ingest
from models.base import new_id
from models.knowledge.library import Document
from models.work import Job
from storage import library, queue, vectors
from storage.database import platform, transaction
from storage.library import making
from storage.queue import Kind, Work
from storage.retrieval import Reach, search
from storage.settings import settings
from tests import documents
from tests.installed import PATIENCE, Of, add, found, idle, make_due, runner, settled, until

ROOT = Path(__file__).parents[3]
COVER = (
    "UNITED STATES SECURITIES AND EXCHANGE COMMISSION\nFORM 10-K\n"
    "For the fiscal year ended December 31, 2021\nACME HOLDINGS, INC.\n"
    "(Exact name of registrant as specified in its charter)\nACMX The Nasdaq Stock Market"
)
LONG = "\n\n".join(f"Paragraph {n} about revenue, costs and the weather. " * 12 for n in range(160))


def vectors_of(document: Document) -> int:
    assert document.embedder is not None
    held = vectors.holdings().get(library.place_of_vectors(document, document.embedder), {})
    return held.get(document.id, 0)


@pytest.mark.parametrize(
    ("name", "content", "pages"),
    [
        ("a.pdf", documents.pdf(["One page of words.", "And another one."]), 2),
        ("a.docx", documents.word([(1, "Title"), "A paragraph of words."]), None),
        ("a.xlsx", documents.workbook({"Sheet": [["Name", "Amount"], ["Rent", 5]]}), None),
        ("a.csv", documents.comma_separated([["Name", "Amount"], ["Rent", 5]]), None),
        ("a.html", documents.web_page("<h1>Title</h1><p>A paragraph.</p>"), None),
        ("a.md", b"# Title\n\nA paragraph.", None),
        ("a.txt", b"A paragraph.", None),
    ],
)
def test_every_format_becomes_ready(
    of: Of, index: str, working: None, name: str, content: bytes, pages: int | None
) -> None:
    id = add(of, index, name, content)
    settled(of, id)
    document = found(of, id)
    assert (document.status, document.progress, document.error_code) == ("ready", 1.0, None)
    assert document.page_count == pages
    assert document.chunk_count == document.vector_count == vectors_of(document) > 0


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.pdf", documents.pdf(["Secret."], password="shut"), "encrypted_file"),
        ("a.pdf", documents.scanned_pdf(), "needs_ocr"),
        ("a.pdf", b"%PDF-1.7 and then nothing of the kind", "invalid_file"),
        ("a.txt", b"   \n ", "empty_file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    of: Of, index: str, working: None, name: str, content: bytes, code: str
) -> None:
    id = add(of, index, name, content)
    settled(of, id)
    document = found(of, id)
    assert (document.status, document.error_code) == ("failed", code)
    assert document.error_detail
    with platform(writes=False) as db:
        assert db.scalar(select(Job.id).where(Job.subject_id == id)) is None, "it is not our fault: no retry"


def test_a_cover_tells_what_the_document_is_and_its_owner_knows_better(
    of: Of, index: str, working: None
) -> None:
    id = add(of, index, "a.pdf", documents.pdf([COVER]), attributes={"fiscal_year": 1999, "ticker": None})
    settled(of, id)
    attributes = found(of, id).attributes
    assert attributes["form"] == "10-K"
    assert attributes["period"] == "2021-12-31"
    assert (attributes["fiscal_year"], attributes["ticker"]) == (1999, None)


def test_words_are_found_while_vectors_are_yet_to_come(of: Of, index: str) -> None:
    with runner({library.INGEST: KINDS[library.INGEST]}):
        id = add(of, index, "a.txt", "The lighthouse was repainted in 1907.")
        until(lambda: found(of, id).status == "embedding")
    assert found(of, id).progress == library.EMBEDDING_FROM
    hits = search(of, "When was the lighthouse repainted?", reach=Reach(index_ids=[index])).hits
    assert [hit.document_id for hit in hits] == [id]


def test_chroma_comes_back_and_vectors_follow_by_themselves(
    of: Of, index: str, chroma_away: Callable[[], None]
) -> None:
    with runner():
        id = add(of, index, "a.txt", "The lighthouse was repainted in 1907.")
        until(lambda: postponed(id) >= 2 or hurried())
        assert found(of, id).status == "embedding"
        hits = search(of, "When was the lighthouse repainted?", reach=Reach(index_ids=[index])).hits
        assert [hit.document_id for hit in hits] == [id]
    chroma_away()
    with runner():
        make_due()
        settled(of, id)
    assert vectors_of(found(of, id)) == 1


def hurried() -> bool:
    """Let no job wait, and go on waiting for what it does."""
    make_due()
    return False


def postponed(id: str) -> int:
    with platform(writes=False) as db:
        return db.scalar(select(Job.postponed).where(Job.subject_id == id)) or 0


def test_without_an_embedder_it_is_ready_with_words_alone(
    of: Of, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOGA_EMBEDDINGS", "none")
    settings.cache_clear()
    try:
        with runner():
            id = add(of, index, "a.txt", "Some words.")
            settled(of, id)
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    document = found(of, id)
    assert (document.status, document.vector_count, document.embedder) == ("ready", 0, None)


def test_our_own_fault_is_told_after_the_last_try(
    of: Of, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*passages: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ingest, "document_postings", broken)
    with runner():
        id = add(of, index, "a.txt", "Some words.")
        until(lambda: idle() or hurried())
    document = found(of, id)
    assert (document.status, document.error_code) == ("failed", "internal_error")


def work_on(of: Of, id: str) -> Work:
    """The job in our own hands."""
    with platform(writes=False) as db:
        job = db.scalars(select(Job).where(Job.subject_id == id)).one()
    return Work(job.id, of.tenant_id, id, {}, 1, "me", threading.Event())


class Fall(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    "step", ["clear_passages", "parse", "document_postings", "write_passages", "after", "_insert"]
)
def test_reading_that_fell_at_any_step_is_begun_anew(
    of: Of, index: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    id = add(of, index, "a.pdf", documents.pdf([COVER, "Words on the second page."]))

    def fall(*arguments: object, **more: object) -> None:
        raise Fall

    if step == "after":
        ingest.run(work_on(of, id))
    else:
        owner = {"parse": ingest, "document_postings": ingest, "_insert": making}.get(step, library)
        monkeypatch.setattr(owner, step, fall)
        with pytest.raises(Fall):
            ingest.run(work_on(of, id))
        monkeypatch.undo()
    with runner():
        settled(of, id)
    document = found(of, id)
    assert document.status == "ready"
    assert document.chunk_count == document.vector_count == vectors_of(document) == 2


def test_vectors_go_on_where_they_fell(of: Of, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with runner({library.INGEST: KINDS[library.INGEST]}):
        id = add(of, index, "a.txt", LONG)
        until(lambda: found(of, id).status == "embedding")
    monkeypatch.setattr(ingest, "TOLD_SECONDS", 0.0)
    real, batches = vectors.upsert, []

    def third_time_unlucky(place: str, document_id: str, positions: list[int], made: object) -> None:
        batches.append(positions[0])
        if len(batches) == 3:
            raise Fall
        real(place, document_id, positions, made)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(vectors, "upsert", third_time_unlucky)
    with pytest.raises(Fall):
        embed.run(work_on(of, id))
    assert found(of, id).vector_count == 2 * embed.BATCH
    with runner():
        settled(of, id)
    document = found(of, id)
    assert batches[:4] == [0, embed.BATCH, 2 * embed.BATCH, 2 * embed.BATCH]
    assert document.chunk_count == document.vector_count == vectors_of(document)


@pytest.mark.parametrize("told_seconds", [0.0, 1000.0])
def test_a_document_deleted_while_its_vectors_are_made_leaves_none(
    of: Of, index: str, monkeypatch: pytest.MonkeyPatch, told_seconds: float
) -> None:
    monkeypatch.setattr(ingest, "TOLD_SECONDS", told_seconds)
    with runner({library.INGEST: KINDS[library.INGEST]}):
        id = add(of, index, "a.txt", LONG)
        until(lambda: found(of, id).status == "embedding")
    document = found(of, id)
    real, calls = vectors.upsert, []

    def deleted_meanwhile(place: str, document_id: str, positions: list[int], made: object) -> None:
        calls.append(positions)
        if len(calls) == 2:
            with transaction(of) as db:
                library.delete_document(db, db.require(Document, id))
        real(place, document_id, positions, made)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(vectors, "upsert", deleted_meanwhile)
    with suppress(queue.Released):
        embed.run(work_on(of, id))
    assert len(calls) == 2
    assert vectors_of(document) == 0


def test_a_document_deleted_while_it_is_read_ends_the_job_quietly(
    of: Of, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = add(of, index, "a.txt", "Some words.")
    work = work_on(of, id)
    real = ingest.document_postings

    def deleted_meanwhile(passages: object) -> object:
        with transaction(of) as db:
            library.delete_document(db, db.require(Document, id))
        return real(passages)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(ingest, "document_postings", deleted_meanwhile)
    ingest.run(work)
    with platform(writes=False) as db:
        assert list(db.scalars(select(Job.kind).where(Job.subject_id == id))) == [library.FORGET]


def test_jobs_of_documents_that_are_gone_end_at_once(of: Of) -> None:
    with transaction(of) as db:
        for kind in (library.INGEST, library.EMBED):
            queue.enqueue(db, kind, new_id())
    with runner():
        until(idle)


@pytest.mark.timeout(300)  # it starts the program three times
def test_a_worker_that_is_killed_in_the_middle_ends_in_ready_after_a_restart(of: Of, index: str) -> None:
    vectors.close()
    ids = [add(of, index, f"{n}.txt", f"{n} {LONG[:40_000]}") for n in range(2)]
    for passed in (("pending",), ("pending", "parsing")):
        with worker() as process:
            # Parsing is over within a tenth of a second: a look may find the moment after the one meant.
            until(lambda passed=passed: found(of, ids[0]).status not in passed)  # type: ignore[misc]  # mypy: lambda defaults
            process.kill()
    with platform() as db:  # a lease of twenty seconds is not worth waiting for
        db.execute(update(Job).values(lease_until=None, worker=None, status="queued"))
    with worker() as process:
        until(lambda: all(found(of, id).status in ("ready", "failed") for id in ids))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    for id in ids:
        document = found(of, id)
        assert document.status == "ready"
        assert document.chunk_count == document.vector_count == vectors_of(document)


class worker:  # noqa: N801 - reads as a statement
    """``booga worker``, as its host runs it."""

    def __enter__(self) -> "subprocess.Popen[bytes]":
        given = {name: value for name, value in os.environ.items() if name.startswith("BOOGA_")}
        given["PATH"] = os.environ["PATH"]
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [Path(sys.executable).parent / "booga", "worker"], cwd=ROOT, env=given, stderr=subprocess.DEVNULL
        )
        return self.process

    def __exit__(self, *fault: object) -> None:
        self.process.kill()
        self.process.wait()


def test_kinds_are_all_runnable() -> None:
    assert all(isinstance(kind, Kind) for kind in KINDS.values())
    assert {library.INGEST, library.EMBED, library.FORGET} <= KINDS.keys()

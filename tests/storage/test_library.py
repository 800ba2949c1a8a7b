"""Deleting a document takes away all that was made of it, on every store, and nothing of another's."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from models.chat.conversations import ChatMessage, ChatSession, Citation
from models.knowledge.library import Chunk, Document, Posting
from models.tenancy import Product, Region, Stack
from models.work import Job
from storage import files, library, vectors
from storage.database import platform, reading, transaction
from storage.embeddings import OfflineEmbedder
from storage.library import Removed
from storage.settings import settings
from storage.vectors import VectorsUnavailable
from tests.installed import Of, add, found, idle, new_index, new_tenant, runner, settled, until

MARKER = "zyxwvutmarker"
TEXT = f"The {MARKER} of our revenue grew by a third, to 4,711 million dollars."


def rows_of(document_id: str) -> dict[str, int]:
    with platform(writes=False) as db:
        return {
            table.__tablename__: db.scalar(select(func.count()).where(table.document_id == document_id)) or 0
            for table in (Chunk, Posting)
        }


def vectors_of(document: Document) -> int:
    assert document.embedder is not None
    held = vectors.holdings().get(library.place_of_vectors(document, document.embedder), {})
    return held.get(document.id, 0)


def delete(of: Of, document_id: str) -> Removed:
    with transaction(of) as db:
        return library.delete_document(db, db.require(Document, document_id))


def holding(words: str) -> list[Path]:
    """The files of the data folder in which these words stand."""
    paths = (path for path in settings().data_dir.rglob("*") if path.is_file())
    return [path for path in paths if words.encode() in path.read_bytes()]


def a_message(of: Of, document: Document, content: str, quote: str) -> str:
    """A reply that cites a document."""
    with transaction(of) as db:
        stack = Stack(
            name="s",
            product_id=db.put(Product(name="p", slug=document.id, capabilities=[])).id,
            region_id=db.put(Region(name="r", slug=document.id)).id,
        )
        session = db.put(ChatSession(stack_id=db.put(stack).id))
        message = db.put(ChatMessage(session_id=session.id, role="assistant", content=content))
        db.put(
            Citation(
                message_id=message.id,
                number=1,
                document_id=document.id,
                document_name=document.name,
                heading="A heading",
                start=0,
                end=1,
                score=0.5,
                quote=quote,
                content_sha256=document.content_sha256,
            )
        )
        return message.id


class TestDeleting:
    def test_it_says_how_much_there_was(self, of: Of, index: str, working: None) -> None:
        id = add(of, index, "a.md", "# One\n\nFirst text.\n\n# Two\n\nSecond text.")
        settled(of, id)
        document = found(of, id)
        assert document.vector_count == document.chunk_count == vectors_of(document) > 1
        assert delete(of, id) == Removed(document.chunk_count, document.chunk_count)
        assert rows_of(id) == {"chunks": 0, "keyword_postings": 0}
        assert vectors_of(document) == 0

    def test_its_text_is_in_no_file_afterwards(self, of: Of, index: str, working: None) -> None:
        id = add(of, index, "a.txt", TEXT)
        settled(of, id)
        message = a_message(of, found(of, id), f"Here it is: [1]\n“{TEXT}”\n“Of another”", TEXT)
        if settings().is_sqlite:
            assert {path.name for path in holding(MARKER)} > {found(of, id).content_sha256}
        delete(of, id)
        until(idle)
        assert holding(MARKER) == []
        with reading(of) as db:
            kept = db.require(ChatMessage, message)
            assert kept.content == "Here it is: [1]\n“…”\n“Of another”"
            assert [(c.quote, c.heading, c.document_name) for c in kept.citations] == [("", None, "a.txt")]

    def test_the_file_stays_while_another_document_has_its_content(
        self, of: Of, index: str, working: None
    ) -> None:
        first, second = add(of, index, "a.txt", TEXT), add(of, new_index(of, "Other"), "b.txt", TEXT)
        settled(of, first, second)
        path = files.path_of(of.tenant_id, found(of, first).content_sha256)
        delete(of, first)
        until(idle)
        assert path.read_text() == TEXT
        assert vectors_of(found(of, second)) == 1
        delete(of, second)
        until(idle)
        assert not path.exists()

    def test_nothing_is_deleted_while_chroma_is_away(
        self, of: Of, index: str, request: pytest.FixtureRequest
    ) -> None:
        with runner():
            id = add(of, index, "a.txt", TEXT)
            settled(of, id)
        back: Callable[[], None] = request.getfixturevalue("chroma_away")
        with pytest.raises(VectorsUnavailable):
            delete(of, id)
        back()
        assert rows_of(id)["chunks"] == 1
        assert vectors_of(found(of, id)) == 1

    def test_what_a_crash_left_is_removed_by_the_job(self, of: Of, index: str) -> None:
        with runner():
            id = add(of, index, "a.txt", TEXT)
            settled(of, id)
        document = found(of, id)
        delete(of, id)
        # As if the vectors had not been reached before the fall; no job has run since.
        assert document.embedder is not None
        place = library.place_of_vectors(document, document.embedder)
        maker = vectors.embedder()
        vectors.upsert(place, id, [0], maker.embed([TEXT]))  # type: ignore[union-attr]  # it is there
        assert files.path_of(of.tenant_id, document.content_sha256).exists()
        with runner():
            until(idle)
        assert vectors_of(document) == 0
        assert not files.path_of(of.tenant_id, document.content_sha256).exists()

    def test_a_document_that_waits_to_be_read_takes_its_job_along(self, of: Of, index: str) -> None:
        id = add(of, index, "a.txt", TEXT)
        assert delete(of, id) == Removed(0, 0)
        with platform(writes=False) as db:
            assert list(db.scalars(select(Job.kind).where(Job.subject_id == id))) == [library.FORGET]

    def test_an_index_goes_with_all_its_documents(self, of: Of, index: str, working: None) -> None:
        other = new_index(of, "Other")
        ids = [add(of, index, f"{n}.txt", f"{TEXT} {n}") for n in range(3)]
        kept = add(of, other, "kept.txt", TEXT)
        settled(of, *ids, kept)
        documents = [found(of, id) for id in ids]
        with transaction(of) as db:
            assert library.delete_index(db, index) == Removed(3, 3)
        until(idle)
        assert [vectors_of(document) for document in documents] == [0, 0, 0]
        assert [rows_of(id)["chunks"] for id in [*ids, kept]] == [0, 0, 0, 1]
        assert vectors_of(found(of, kept)) == 1
        for document in documents:
            assert not files.path_of(of.tenant_id, document.content_sha256).exists()


class TestAdding:
    def test_the_same_content_twice_in_an_index_is_one_document(self, of: Of, index: str) -> None:
        first = add(of, index, "a.txt", TEXT)
        assert add(of, index, "b.txt", TEXT) == first
        assert add(of, new_index(of, "Other"), "a.txt", TEXT) != first
        stranger = new_tenant("B")
        assert add(stranger, new_index(stranger, "Filings"), "a.txt", TEXT) != first

    def test_what_could_not_be_read_is_read_again_when_it_comes_again(
        self, of: Of, index: str, working: None
    ) -> None:
        id = add(of, index, "a.pdf", b"%PDF-1.7 this is none")
        settled(of, id)
        assert found(of, id).status == "failed"
        assert add(of, index, "a.pdf", b"%PDF-1.7 this is none") == id
        settled(of, id)
        assert found(of, id).error_code == "invalid_file"


class TestReindexing:
    def test_another_embedding_model_gets_vectors_of_its_own_and_takes_the_old_ones_place(
        self, of: Of, index: str
    ) -> None:
        with runner():
            current, outdated = (add(of, index, f"{name}.txt", f"{name}: {TEXT}") for name in ("one", "two"))
            settled(of, current, outdated)
        maker = vectors.embedder()
        assert isinstance(maker, OfflineEmbedder)
        document = found(of, outdated)
        before = library.place_of_vectors(document, "an-older-model")
        vectors.upsert(before, outdated, [0], maker.embed([TEXT]))
        vectors.remove(library.place_of_vectors(document, maker.name), outdated)
        with transaction(of) as db:
            db.require(Document, outdated).embedder = "an-older-model"
        with platform() as db:
            assert library.reindex(db, maker.name) == 1
        assert (found(of, outdated).status, found(of, current).status) == ("embedding", "ready")
        with runner():
            settled(of, outdated)
        assert vectors_of(found(of, outdated)) == vectors_of(found(of, current)) > 0
        assert found(of, outdated).embedder == maker.name
        assert outdated not in vectors.holdings().get(before, {})
        with platform() as db:
            assert library.reindex(db, maker.name) == 0

    def test_everything_is_read_anew_when_that_is_asked_for(self, of: Of, index: str) -> None:
        with runner():
            id = add(of, index, "one.txt", TEXT)
            settled(of, id)
        first = found(of, id)
        with platform() as db:
            assert library.reindex(db, first.embedder or "", everything=True) >= 1
        with runner():
            settled(of, id)
        again = found(of, id)
        assert again.parsed_at is not None
        assert first.parsed_at is not None
        assert again.parsed_at > first.parsed_at
        assert vectors_of(again) == vectors_of(first) > 0

"""Search finds what answers, within what may be read, and says how it searched."""

import io
from collections.abc import Callable
from dataclasses import asdict

import pytest
from sqlalchemy import select, text

from models.base import new_id
from models.chat.conversations import ChatSession
from models.knowledge.library import Category, Chunk, Document
from models.tenancy import Product, Region, Stack
from storage import files, library, retrieval
from storage.database import reading, transaction
from storage.retrieval import Found, Narrow, Reach, search
from storage.settings import settings
from tests import documents, scale
from tests.installed import Of, add, new_index, new_tenant, runner, settled

PAGES = [
    "ACME CORP\nConsolidated Balance Sheets\nCash and cash equivalents 1,234\nTotal assets 98,765",
    "ACME CORP\nLegal proceedings\nA lawsuit about a dam was settled out of court in March.",
    "ACME CORP\nEmployees\nWe had 4,200 employees at the end of the year, most of them in Ohio.",
]
OTHER = ["OTHER INC\nConsolidated Balance Sheets\nCash and cash equivalents 77\nTotal assets 500"]


@pytest.fixture
def filing(of: Of, index: str) -> str:
    with runner():
        id = add(of, index, "acme.pdf", documents.pdf(PAGES))
        settled(of, id)
    return id


def asked(of: Of, question: str, index: str | None = None, **more: object) -> Found:
    reach = Reach(index_ids=[index]) if index else Reach(everything=True)
    return search(of, question, **{"reach": reach, "threshold": 0.0, **more})  # type: ignore[arg-type]  # by name


def test_the_page_that_answers_comes_first_with_its_words(of: Of, index: str, filing: str) -> None:
    found = asked(of, "How many employees were there in Ohio?", index)
    best = found.hits[0]
    assert (best.number, best.document_id, best.index_id, best.page) == (1, filing, index, 3)
    assert "4,200 employees" in best.quote
    assert best.document_name == "acme.pdf"
    assert (found.mode, found.searched, found.degraded) == ("hybrid", True, None)
    assert best.scores.keys() == {"keyword", "vector", "fused"}
    with reading(of) as db:
        chunk = db.scalars(select(Chunk).where(Chunk.document_id == filing, Chunk.page == 3)).one()
        assert (best.quote, best.start, best.end) == (chunk.text, chunk.start, chunk.end)


def test_meaning_finds_what_no_word_names(of: Of, index: str, filing: str) -> None:
    found = asked(of, "litigation", index, mode="vector")
    assert found.mode == "vector"
    assert found.hits[0].page == 2
    assert asked(of, "litigation", index, mode="keyword", threshold=0.3).hits == []


def test_no_more_than_asked_for_and_nothing_below_the_threshold(of: Of, index: str, filing: str) -> None:
    assert len(asked(of, "Acme employees cash lawsuit", index, limit=2).hits) == 2
    assert asked(of, "employees", index, threshold=0.999).hits == []


def test_the_trace_tells_how_the_question_was_read(of: Of, index: str, filing: str) -> None:
    told = asked(of, "What was cash in 2023?", index)
    assert told.query["years"] == [2023]
    assert "cash" in told.query["terms"]
    assert told.query["documents"] == 1
    assert {"scope_ms", "keywords_ms", "vectors_ms", "ranking_ms"} <= told.timings.keys()


def test_a_search_reads_neither_all_of_a_table_nor_all_of_a_tenant(of: Of, index: str, filing: str) -> None:
    with scale.statements() as sent:
        hits = asked(of, "Which employees and what cash did Acme have?", index).hits
        retrieval.pages(of, [asdict(hit) for hit in hits])
    assert len(hits) > 1
    with reading(of) as db:
        if db.connection().dialect.name == "postgresql":
            # So few rows are read whole with good reason; asked is whether an index could serve.
            db.execute(text("SET LOCAL enable_seqscan = off"))
        for statement, parameters in sent:
            lines = scale.plan(db, statement, parameters)
            assert not scale.whole_tables(lines) + scale.whole_tenants(lines), (statement, lines)


REPORT = [
    *(
        f"{topic}\nOur {topic.lower()} may affect revenue, net sales, income, cash, debt, assets and equity "
        f"in ways that we cannot foresee. A change of interest rates or of inventories in region {number} "
        "could reduce our profit, our cash flow and the return for shareholders. " * 3
        for number, topic in enumerate(
            f"{kind} of {matter}"
            for kind in ("Risks", "Regulation", "Strategy", "Competition", "Seasons")
            for matter in ("stores", "suppliers", "currencies", "people", "technology", "weather", "brands")
        )
    ),
    "Tarn Lamps plc\nConsolidated Statements of Operations\n(in millions)\n2024 2023\n"
    "Net sales 8,120 7,460\nCost of sales 5,230 4,910\nGross profit 2,890 2,550\n"
    "Research and development 402 377\nOperating income 911 804\nInterest expense 61 58\n"
    "Provision for income taxes 190 171\nNet income 660 575",
    "Tarn Lamps plc\nConsolidated Balance Sheets\n(in millions)\n2024 2023\n"
    "Cash and cash equivalents 1,310 1,105\nAccounts receivable, net 705 640\nInventories 988 930\n"
    "Total current assets 3,190 2,870\nAccounts payable 612 571\nTotal current liabilities 1,540 1,430\n"
    "Long-term debt 1,250 1,400\nTotal assets 6,870 6,310\nTotal stockholders' equity 3,720 3,190",
    "Tarn Lamps plc\nConsolidated Statements of Cash Flows\n(in millions)\n2024 2023\nNet income 660 575\n"
    "Depreciation and amortization 280 266\nNet cash provided by operating activities 1,020 930\n"
    "Purchases of property, plant and equipment (410) (385)\nPayments of dividends (120) (110)",
]
INCOME, BALANCE, CASH_FLOW = range(len(REPORT) - 2, len(REPORT) + 1)
COMPUTED = {
    "How many days of sales stood in receivables at the end of 2024?": {INCOME, BALANCE},
    "What was the return on assets in 2024?": {INCOME, BALANCE},
    "What was the return on equity in 2024?": {INCOME, BALANCE},
    "How large was free cash flow as a percentage of revenue?": {INCOME, CASH_FLOW},
    "How many times did operating cash flow cover the interest bill?": {INCOME, CASH_FLOW},
    "What share of long-term debt could operating cash flow repay?": {BALANCE, CASH_FLOW},
    "What was days payable outstanding?": {INCOME, BALANCE},
    "By how much did inventories grow compared with cost of sales?": {INCOME, BALANCE},
    "What part of net income was paid out as dividends?": {INCOME, CASH_FLOW},
    "What was EBITDA as % of total assets?": {INCOME, BALANCE},
}


def test_what_is_computed_finds_the_page_of_every_figure(of: Of, index: str) -> None:
    with runner():
        id = add(of, index, "report.pdf", documents.pdf(REPORT))
        settled(of, id)
    for mode in ("hybrid", "keyword"):
        for question, needed in COMPUTED.items():
            found = asked(of, question, narrow=Narrow(document_ids=[id]), limit=10, mode=mode)
            assert needed <= {hit.page for hit in found.hits}, (mode, question)


class TestReach:
    def test_nothing_given_nothing_found(self, of: Of, filing: str) -> None:
        found = search(of, "employees", reach=Reach())
        assert (found.hits, found.searched) == ([], False)

    def test_another_tenant_s_index_is_empty_to_us(self, of: Of, index: str, filing: str) -> None:
        assert not asked(new_tenant("B"), "employees", index).searched
        assert not asked(new_tenant("B"), "employees").searched

    def test_a_category_reaches_its_documents_in_any_index(self, of: Of, index: str, filing: str) -> None:
        with transaction(of) as db:
            category = db.put(Category(name="annual"))
        with runner():
            other = add(of, new_index(of, "B"), "o.pdf", documents.pdf(OTHER), category_ids=[category.id])
            settled(of, other)
        reach = Reach(category_ids=[category.id])
        assert {hit.document_id for hit in asked(of, "cash", reach=reach).hits} == {other}
        both = Reach(index_ids=[index], category_ids=[category.id])
        assert {hit.document_id for hit in asked(of, "cash", reach=both).hits} == {filing, other}
        narrow = Narrow(category_ids=[category.id])
        assert {hit.document_id for hit in asked(of, "cash", reach=both, narrow=narrow).hits} == {other}

    def test_narrowing_never_widens(self, of: Of, index: str, filing: str) -> None:
        other_index = new_index(of, "B")
        with runner():
            other = add(of, other_index, "o.pdf", documents.pdf(OTHER))
            settled(of, other)
        for narrow in (
            Narrow(index_ids=[other_index]),
            Narrow(document_ids=[other]),
            Narrow(document_ids=[]),
            Narrow(index_ids=[]),
        ):
            assert not asked(of, "cash", index, narrow=narrow).searched
        one = Narrow(document_ids=[filing])
        assert {hit.document_id for hit in asked(of, "cash", narrow=one).hits} == {filing}

    def test_what_others_hold_changes_no_score(self, of: Of, index: str, filing: str) -> None:
        before = asked(of, "cash and employees", index)
        with runner():
            ids = [
                add(of, new_index(of, "Noise"), f"{n}.txt", f"cash employees cash {n} employees")
                for n in (1,)
            ]
            settled(of, *ids)
        after = asked(of, "cash and employees", index)
        assert [(hit.score, hit.scores) for hit in after.hits] == [(h.score, h.scores) for h in before.hits]

    def test_files_of_a_session_are_found_in_it_alone(self, of: Of, filing: str) -> None:
        mine, other = a_session(of), a_session(of)
        with runner():
            with (
                files.receiving(of, io.BytesIO(b"The secret figure is 42 zlotys.")) as incoming,
                transaction(of) as db,
            ):
                document, _ = library.add_document(
                    db, incoming, name="n.txt", media_type="text/plain", session_id=mine
                )
            settled(of, document.id)
        found = asked(of, "What is the secret figure in zlotys?", reach=Reach(), session_id=mine)
        assert [(hit.document_id, hit.index_id) for hit in found.hits] == [(document.id, None)]
        assert "vector" in found.hits[0].scores
        assert not asked(of, "secret figure", reach=Reach(), session_id=other).searched
        assert document.id not in {hit.document_id for hit in asked(of, "secret figure zlotys").hits}


def a_session(of: Of) -> str:
    with transaction(of) as db:
        product = db.put(Product(name="p", slug=new_id(), capabilities=[]))
        region = db.put(Region(name="r", slug=product.id))
        stack = db.put(Stack(name="s", product_id=product.id, region_id=region.id))
        return db.put(ChatSession(stack_id=stack.id)).id


class TestDegrading:
    def test_without_chroma_words_still_find_and_the_reason_is_told(
        self, of: Of, index: str, filing: str, request: pytest.FixtureRequest
    ) -> None:
        back: Callable[[], None] = request.getfixturevalue("chroma_away")
        found = asked(of, "How many employees were there in Ohio?", index)
        assert found.hits[0].page == 3
        assert (found.mode, found.searched) == ("keyword", True)
        assert found.degraded
        only = asked(of, "How many employees were there in Ohio?", index, mode="vector")
        assert only.hits == []
        assert only.degraded
        back()
        assert asked(of, "How many employees were there in Ohio?", index).degraded is None

    def test_without_an_embedder_too(self, of: Of, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BOOGA_EMBEDDINGS", "none")
        settings.cache_clear()
        try:
            with runner():
                id = add(of, index, "acme.pdf", documents.pdf(PAGES))
                settled(of, id)
            found = asked(of, "How many employees were there in Ohio?", index)
        finally:
            monkeypatch.undo()
            settings.cache_clear()
        assert (found.hits[0].page, found.mode) == (3, "keyword")
        assert found.degraded is not None
        assert "switched off" in found.degraded


def test_a_deleted_document_is_never_a_hit(of: Of, index: str, filing: str) -> None:
    with transaction(of) as db:
        library.delete_document(db, db.require(Document, filing))
    found = asked(of, "employees", index)
    assert (found.hits, found.searched) == ([], False)


def test_a_document_read_anew_is_found_by_its_new_passages(of: Of, index: str, filing: str) -> None:
    first = asked(of, "employees", index)
    with runner():
        with transaction(of) as db:
            library.read_again(db, db.require(Document, filing))
        settled(of, filing)
    again = asked(of, "employees", index)
    assert [(hit.page, hit.quote, hit.score) for hit in again.hits] == [
        (hit.page, hit.quote, hit.score) for hit in first.hits
    ]


def test_layouts_leave_when_they_take_too_much(of: Of, index: str, filing: str) -> None:
    cache = retrieval._Layouts(1)
    with reading(of) as db:
        known = retrieval._in_reach(db, Reach(everything=True), Narrow(), None)
        assert cache.of(db, known).keys() == {filing}
        assert cache._held == {}
        assert cache._bytes == 0
        assert cache.of(db, known).keys() == {filing}

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from models.knowledge import ranking, relevance
from models.knowledge.expansion import analyse
from models.knowledge.keywords import Layout, document_postings
from models.knowledge.ranking import DocumentView, Method, Mode, Ranked, VectorHit, rank


class Piece:
    def __init__(self, unit: int, text: str, context: str = "") -> None:
        self.unit, self.text, self.context = unit, text, context


def view(pieces: Sequence[Piece], **metadata: Any) -> DocumentView:
    made = document_postings(pieces)
    return DocumentView(Layout.from_bytes(made.layout), made.terms, metadata)


PROSE = "Our people and our partners make the difference every day in every market where we sell."
REPORT = [
    Piece(1, "We make lamps. " + PROSE),
    Piece(2, "Spending on new halls was higher than a year ago. " + PROSE),
    Piece(
        3,
        "LARK MILLS\nCONSOLIDATED STATEMENTS OF CASH FLOWS\nNet income 310 290 205\nDepreciation 44 41 39\n"
        "Purchases of property and equipment (120) (98) (77)\nDividends paid (30) (28) (25)",
    ),
    Piece(4, "Risks: rain may delay our deliveries. " + PROSE),
    Piece(4, "Our lamps may break. " + PROSE),
]


def found(hits: Sequence[Ranked]) -> list[tuple[str, int]]:
    return [(hit.document_id, hit.unit) for hit in hits]


def test_words_find_their_page_and_passage() -> None:
    hits = rank(analyse("Could a lamp break?"), {"a": view(REPORT)}, mode="keyword")
    assert (hits[0].unit, hits[0].position) == (4, 4)


def test_expansion_and_the_statement_boost_lead_to_the_statement() -> None:
    query = analyse("What was capex?")
    assert rank(query, {"a": view(REPORT)}, mode="keyword", threshold=0)[0].unit == 3
    plain = rank(analyse("What was capex?", expand=False), {"a": view(REPORT)}, mode="keyword", threshold=0)
    assert plain == []


def test_a_hit_says_why() -> None:
    metadata = {"company": "Lark Mills, Inc.", "fiscal_year": 2021}
    hits = rank(
        analyse("What was Lark Mills' net income in 2021?"),
        {"a": view(REPORT, **metadata)},
        [VectorHit("a", 2, 0.7)],
        threshold=0,
    )
    assert hits[0].reasons[-2:] == ("company: Lark Mills, Inc.", "fiscal year: 2021")
    assert any(reason.startswith("words: ") and "income" in reason for reason in hits[0].reasons)
    assert "meaning: 0.70" in hits[0].reasons
    assert set(hits[0].scores) == {"keyword", "vector", "fused"}


def test_one_hit_a_page() -> None:
    hits = rank(analyse("lamps and people"), {"a": view(REPORT)}, mode="keyword", threshold=0)
    assert len({hit.unit for hit in hits}) == len(hits)


@pytest.mark.parametrize("mode", ["hybrid", "vector"])
def test_meaning_finds_what_words_do_not(mode: Mode) -> None:
    hits = rank(analyse("bad weather"), {"a": view(REPORT)}, [VectorHit("a", 3, 0.62)], mode)
    assert found(hits) == [("a", 4)]
    assert hits[0].position == 3


def test_keyword_mode_does_not_look_at_vectors() -> None:
    assert rank(analyse("bad weather"), {"a": view(REPORT)}, [VectorHit("a", 3, 0.9)], "keyword") == []


def test_a_vector_of_a_document_out_of_scope_is_left_out() -> None:
    assert rank(analyse("bad weather"), {"a": view(REPORT)}, [VectorHit("b", 0, 0.9)]) == []


def test_a_vector_that_is_yet_to_come_says_nothing_against_a_page() -> None:
    whole = view(REPORT)
    begun = DocumentView(whole.layout, whole.postings, {}, embedded=1)
    query, near = analyse("Could a lamp break?"), [VectorHit("a", 0, 0.6)]

    def scores(document: DocumentView, mode: Mode = "hybrid") -> dict[int, float]:
        return {hit.unit: hit.score for hit in rank(query, {"a": document}, near, mode, threshold=0)}

    assert scores(begun)[4] == scores(whole, "keyword")[4] != scores(whole)[4]
    assert scores(begun)[1] == scores(whole)[1]


def test_the_company_that_the_question_names_comes_first() -> None:
    documents = {
        "wren": view(REPORT, company="Wren Works Inc."),
        "lark": view(REPORT, company="Lark Mills Inc.", ticker="LRK"),
    }
    for question in ("What was Lark Mills' net income?", "LRK net income"):
        assert found(rank(analyse(question), documents, mode="keyword", threshold=0))[0] == ("lark", 3)
    without = rank(
        analyse("LRK net income"), documents, mode="keyword", threshold=0, method=Method(metadata=False)
    )
    assert found(without)[0] == ("wren", 3)


def test_a_ticker_counts_only_in_capitals() -> None:
    metadata = {"company": "Wren Works Inc.", "ticker": "COST"}
    assert relevance.mentions("What did COST earn?", metadata)
    assert not relevance.mentions("What did it cost?", metadata)


def test_the_filing_of_the_year_comes_first_and_the_one_before_it_last() -> None:
    documents = {str(year): view(REPORT, fiscal_year=year) for year in (2019, 2022, 2021, 2020)}
    hits = rank(analyse("net income in 2020"), documents, mode="keyword", threshold=0)
    assert [hit.document_id for hit in hits if hit.unit == 3] == ["2020", "2021", "2022", "2019"]


def test_a_document_that_does_not_tell_its_company_is_not_held_back() -> None:
    documents = {"unknown": view(REPORT), "lark": view(REPORT, company="Lark Mills Inc.")}
    hits = rank(analyse("What was Lark Mills' net income?"), documents, mode="keyword", threshold=0, limit=2)
    assert found(hits) == [("unknown", 3), ("lark", 3)]
    assert hits[1].score > hits[0].score


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("net income for the period to June 30, 2021", "half"),
        ("net income in Q2 of 2021", "half"),
        ("net income in 2021, as in the annual report", "year"),
        ("net income", "year"),
    ],
)
def test_the_period_and_form_that_the_question_names_come_first(question: str, first: str) -> None:
    documents = {
        "year": view(REPORT, fiscal_year=2021, period="2021-12-31", form="10-K"),
        "half": view(REPORT, fiscal_year=2021, period="2021-06-30", form="10-Q"),
    }
    assert found(rank(analyse(question), documents, mode="keyword", threshold=0))[0] == (first, 3)


def test_a_table_under_the_title_of_the_statement_asked_for_is_lifted() -> None:
    title = "LARK MILLS CONSOLIDATED BALANCE SHEETS\n"
    table = view(
        [
            Piece(1, "Goodwill. Goodwill is tested for impairment."),
            Piece(2, title + "Goodwill 310 290 205 198 177"),
        ]
    )
    query = analyse("goodwill")
    assert rank(query, {"a": table}, mode="keyword", threshold=0)[0].unit == 2
    assert "statement: balance" in rank(query, {"a": table}, mode="keyword", threshold=0)[0].reasons
    plain = rank(query, {"a": table}, mode="keyword", threshold=0, method=Method(statement_boost=0))
    assert plain[0].unit == 1


def test_a_page_beyond_the_vectors_that_were_asked_for_may_be_as_near_as_the_last_of_them() -> None:
    near = [VectorHit("a", position, 0.8) for position in (0, 1, 3, 4)]
    one_short = rank(analyse("dividends paid"), {"a": view(REPORT)}, near)
    assert ("a", 3) in found(one_short)
    assert "vector" not in next(hit for hit in one_short if hit.unit == 3).scores


def test_statistics_are_those_of_the_documents_passed_in() -> None:
    query = analyse("lamps and rain")
    alone = rank(query, {"a": view(REPORT)}, mode="keyword", threshold=0)
    others = {f"x{number}": view([Piece(1, "rain " * 50)]) for number in range(20)}
    beside = rank(query, {"a": view(REPORT)} | others, mode="keyword", threshold=0, limit=100)
    again = rank(query, {"a": view(REPORT)}, mode="keyword", threshold=0)
    assert again == alone
    assert [hit for hit in beside if hit.document_id == "a"] != alone


def test_the_order_of_rows_and_vectors_changes_nothing() -> None:
    query = analyse("What did dividends and depreciation come to?")
    one = view(REPORT)
    turned = DocumentView(
        one.layout, {term: one.postings[term] for term in sorted(one.postings, reverse=True)}
    )
    hits = [VectorHit("a", 2, 0.6), VectorHit("a", 0, 0.5), VectorHit("a", 3, 0.4)]
    assert rank(query, {"a": one}, hits) == rank(query, {"a": turned}, hits[::-1])


OFF_TOPIC = ("best pasta recipe", "who won the world cup", "how do I train a puppy")


@pytest.mark.parametrize("question", OFF_TOPIC)
@pytest.mark.parametrize("mode", ["hybrid", "keyword"])
def test_a_question_about_something_else_finds_nothing(question: str, mode: Mode) -> None:
    far = [VectorHit("a", position, 0.15) for position in range(len(REPORT))]
    assert rank(analyse(question), {"a": view(REPORT)}, far, mode) == []


def test_scores_are_absolute() -> None:
    near = rank(analyse("net income"), {"a": view(REPORT)}, [VectorHit("a", 2, 1.0)], threshold=0)
    assert all(0 <= hit.score < 1 for hit in near)
    assert (
        near[0].score
        > rank(analyse("net income"), {"a": view(REPORT)}, [VectorHit("a", 2, 0.3)], threshold=0)[0].score
    )


@pytest.mark.parametrize(
    "documents",
    [{}, {"a": view([])}, {"a": view([]), "b": view(REPORT)}, {"a": view([Piece(1, "of the and")])}],
)
@pytest.mark.parametrize("question", ["", "of the", "net income", "unheard-of words"])
def test_nothing_to_find_is_no_error(documents: Mapping[str, DocumentView], question: str) -> None:
    hits = rank(analyse(question), documents, threshold=0)
    assert all(hit.document_id == "b" for hit in hits)


def test_limit() -> None:
    query = analyse("people and partners")
    assert len(rank(query, {"a": view(REPORT)}, mode="keyword", limit=2, threshold=0)) == 2
    assert rank(query, {"a": view(REPORT)}, mode="keyword", limit=0) == []


def test_a_score_is_needed_to_pass() -> None:
    query = analyse("people and partners")
    hits = rank(query, {"a": view(REPORT)}, mode="keyword", threshold=0)
    best = max(hit.score for hit in hits)
    kept = rank(query, {"a": view(REPORT)}, mode="keyword", threshold=best)
    assert {hit.score for hit in kept} == {best}
    assert not rank(query, {"a": view(REPORT)}, mode="keyword", threshold=min(best + 1e-6, 1.0))
    assert ranking.relevance.DEFAULT_THRESHOLD > 0

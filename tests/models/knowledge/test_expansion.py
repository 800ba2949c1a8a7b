from datetime import date
from typing import Any

import pytest

from models.knowledge import expansion
from models.knowledge.expansion import analyse, compile_vocabulary


def raw(**changed: Any) -> dict[str, Any]:
    return {
        "statements": {name: {"titles": [name], "named": [name]} for name in expansion.STATEMENTS},
        "lines": [{"names": ["alpha beta", "gamma"], "statements": ["income"]}],
        "ratios": [{"names": ["delta"], "needs": ["alpha beta"]}],
        "topics": [{"asks": ["epsilon"], "finds": ["zeta"]}],
        "framing": ["compute"],
    } | changed


def test_a_line_is_searched_by_its_other_names() -> None:
    query = analyse("capex at Acme")
    assert query.asked == {"capex", "acm"}
    assert query.terms["capex"] == 1.0
    assert {"purchas", "properti", "equip", "expenditur"} <= query.terms.keys()
    assert query.terms["purchas"] == expansion.EXPANSION_WEIGHT
    assert query.statements == {"cash_flow"}
    assert "purchases of property and equipment" in query.vector_text


def test_a_ratio_asks_for_its_lines_and_their_statements() -> None:
    query = analyse("What was Acme's DPO?")
    assert query.statements == {"income", "balance"}
    assert {"payabl", "cost", "sale"} <= query.terms.keys()


def test_the_longest_name_wins() -> None:
    assert analyse("cost of sales").concepts.keys() == {"cost of sales"}


def test_the_words_of_a_name_may_be_turned_round() -> None:
    assert analyse("turnover of inventory").concepts.keys() == analyse("inventory turnover").concepts.keys()


def test_a_named_statement_is_not_a_synonym_but_a_place() -> None:
    query = analyse("What does the balance sheet show for goodwill?")
    assert query.named_statements == {"balance"}


def test_how_to_answer_is_not_searched_for() -> None:
    query = analyse("Compute the goodwill, please, and round it to two decimal places in USD millions.")
    assert query.asked == {"goodwil", "two"}


def test_without_expansion_only_the_own_words_remain() -> None:
    query = analyse("Acme's DPO in FY2018", expand=False)
    assert query.terms.keys() == {"acm", "dpo", "2018"}
    assert not query.statements
    assert query.vector_text == "Acme's DPO in FY2018"


def test_periods_and_forms_are_read() -> None:
    query = analyse("Revenue in Q2 of FY22 and on 30 June 2021, per the 10-Q and the annual report")
    assert query.years == {2021, 2022}
    assert query.quarters == {2}
    assert query.dates == {date(2021, 6, 30)}
    assert query.forms == {"10-Q", "10-K"}


@pytest.mark.parametrize("question", ["", "???", "of the and", "\ud800", "x" * 20_000])
def test_any_text_is_a_question(question: str) -> None:
    analyse(question)


def test_the_packaged_file_fits_together() -> None:
    assert set(expansion.vocabulary().statement_titles) == set(expansion.STATEMENTS)


@pytest.mark.parametrize(
    "changed",
    [
        {"ratios": [{"names": ["delta"], "needs": ["no such line"]}]},
        {"lines": [{"names": ["alpha beta"], "statements": ["no such statement"]}]},
        {"topics": [{"asks": ["of the"], "finds": ["zeta"]}]},
        {"statements": {}},
    ],
)
def test_a_file_that_contradicts_itself_is_refused(changed: dict[str, Any]) -> None:
    compile_vocabulary(raw())
    with pytest.raises(ValueError, match=r"needs|statement|name"):
        compile_vocabulary(raw(**changed))


@pytest.mark.parametrize(
    ("lead", "expected"),
    [
        ("ACME CORP\nCONSOLIDATED BALANCE SHEETS\n", {"balance"}),
        ("Consolidated Statements of Cash Flows", {"cash_flow"}),
        ("CONSOLIDATED STATEMENTS OF OPERATIONS (in millions)", {"income"}),
        ("Notes to the accounts", set()),
    ],
)
def test_a_statement_is_known_by_its_title(lead: str, expected: set[str]) -> None:
    bits = expansion.statement_bits(lead)
    assert {name for bit, name in enumerate(expansion.STATEMENTS) if bits >> bit & 1} == expected

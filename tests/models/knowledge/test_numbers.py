"""Figures of an answer, held against what it cites."""

from __future__ import annotations

from decimal import Decimal

import pytest

from models.knowledge.numbers import check, evaluate, figures_in

TABLE = """Consolidated statement of income
(in millions, except per share)
Net sales $ 26,251 $ 20,156
Net loss (1,234) (987)
Gross margin 41.5 % 38.2 %
Per share 3.28"""


def statuses(answer: str, *pages: str) -> list[str]:
    return [c["status"] for c in check(answer, dict(enumerate(pages or (TABLE,), 1)))]


class TestFigures:
    @pytest.mark.parametrize(
        ("text", "figure", "value"),
        [
            ("It was $26,251 million.", "$26,251 million", "26251000000"),
            ("about 26.3 billion", "26.3 billion", "26300000000"),
            ("a result of (1,234) then", "(1,234)", "-1234"),
            ("a result of $(1,234)", "$(1,234)", "-1234"),
            ("minus -5.5% there", "-5.5%", "-5.5"),
            ("sold 3.5bn of it", "3.5bn", "3500000000"),
            ("it (about 12.5 percent) rose", "12.5 percent", "12.5"),
            ("$1.2M", "$1.2M", "1200000"),
        ],
    )
    def test_scale_unit_and_sign_are_read(self, text: str, figure: str, value: str) -> None:
        (found,) = figures_in(text)
        assert (found.text, found.value) == (figure, Decimal(value))
        assert text[found.start : found.end] == figure

    @pytest.mark.parametrize(
        "text",
        [
            "In 2024 and fiscal 2023",
            "on September 28, 2024",
            "28 September 2024",
            "Sept. 28 and 3 May",
            "the 10-K, page 12, Note 7, Item 1A and 401(k)",
            "COVID-19 in Q3",
            "so it is [1] and [2, 3]",
            "1. First\n2) Second",
        ],
    )
    def test_what_only_names_something_is_no_figure(self, text: str) -> None:
        assert [found.text for found in figures_in(text)] == []

    def test_a_word_that_begins_like_a_month_is_none(self) -> None:
        text = "Marketing 918\nDecreases 12 mayors 14 Marketing people"
        assert [found.text for found in figures_in(text)] == ["918", "12", "14"]


class TestVerified:
    @pytest.mark.parametrize(
        "answer",
        [
            "Net sales were $26,251 million [1].",
            "Net sales were 26.3 billion [1].",
            "Net sales were $26,251,000,000 [1].",
            "Net sales 26,251 [1]",
            "The net loss was (1,234) [1].",
            "A loss of $1,234 million [1].",
            "-1,234 [1]",
            "A margin of 41.5% [1].",
            "It earned $3.28 a share [1].",
        ],
    )
    def test_scale_rounding_and_sign_are_understood(self, answer: str) -> None:
        assert statuses(answer) == ["verified"]

    @pytest.mark.parametrize(
        "answer",
        [
            "Net sales were $26,251 thousand [1].",
            "Net sales were $26,351 million [1].",
            "Net sales were 26.4 billion [1].",
            "Net sales were -26,251 [1].",
            "A margin of 26,251% [1].",
            "€26,251 million [1]",
            "A margin of 41.54% [1].",
        ],
    )
    def test_what_does_not_stand_there_is_unverified(self, answer: str) -> None:
        assert statuses(answer) == ["unverified"]

    def test_what_no_citation_leads_to_is_unverified(self) -> None:
        assert [found["status"] for found in check("It was $26,251 million.", {})] == ["unverified"]

    def test_the_citation_of_its_own_sentence_comes_first(self) -> None:
        (found,) = check("Sales were 26,251 [2].", {1: TABLE, 2: TABLE})
        assert found["citation"] == 2


class TestDerived:
    def test_a_change_is_shown_with_its_operands(self) -> None:
        found = check("Net sales rose 30.2%, from $20,156 million to $26,251 million [1].", {1: TABLE})
        assert [c["status"] for c in found] == ["derived", "verified", "verified"]
        assert found[0]["formula"] == "(26251000000 - 20156000000) / 20156000000 * 100"
        assert [operand["citation"] for operand in found[0]["operands"]] == [1, 1]

    def test_a_difference_and_points(self) -> None:
        assert statuses("From 20,156 to 26,251, which is 6,095 more [1].") == [
            "verified",
            "verified",
            "derived",
        ]
        assert statuses("From 38.2% to 41.5%, up 330 basis points [1].") == [
            "verified",
            "verified",
            "derived",
        ]

    def test_a_formula_that_the_answer_writes_is_evaluated(self) -> None:
        page = "Accounts payable 72,539\nCost of sales 233,307"
        found = check("DPO = 72,539 / 233,307 x 365 = 113.5 days [1].", {1: page})
        assert found[-1]["status"] == "derived"
        assert found[-1]["formula"] == "72539 / 233307 * 365"

    def test_a_formula_that_is_wrong_derives_nothing(self) -> None:
        page = "Accounts payable 72,539\nCost of sales 233,307"
        assert statuses("72,539 / 233,307 x 365 = 131.5 days [1].", page)[-1] == "unverified"

    def test_few_digits_are_made_from_the_figures_beside_them_alone(self) -> None:
        page = "Sales 1,000 and 3,333, costs 725 and 811, staff 412 and 951"
        answer = "Of 1,000 and 3,333 and 412, costs were 725, or 73%, of 951 and 811 [1]."
        assert statuses("Costs were 725 of 1,000, or 73% [1].", page)[-1] == "derived"
        assert statuses(answer, page)[4] == "unverified"

    def test_operands_that_stand_nowhere_derive_nothing(self) -> None:
        assert statuses("It rose 50%, from 100.5 to 150.75 [1].") == ["unverified"] * 3


class TestEvaluate:
    @pytest.mark.parametrize(
        ("formula", "value"),
        [("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("-4 / 2", -2), ("8 - 3 - 2", 3), ("(-2) * 3", -6)],
    )
    def test_arithmetic(self, formula: str, value: int) -> None:
        assert evaluate(formula) == value

    @pytest.mark.parametrize(
        "formula", ["", "1 +", "(1", "1)", "2 ** 9", "__import__('os')", "1 / 0", "1" * 300, "a", "((((1"]
    )
    def test_nothing_else_is_evaluated(self, formula: str) -> None:
        with pytest.raises(ValueError, match="."):
            evaluate(formula)

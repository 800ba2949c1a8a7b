"""Figures of an answer, held against what it cites."""

from __future__ import annotations

import pytest

from models.knowledge.numbers import check, evaluate

TABLE = """Consolidated statement of income
(in millions, except per share)
Net sales $ 26,251 $ 20,156
Net loss (1,234) (987)
Gross margin 41.5 % 38.2 %
Per share 3.28"""


def statuses(answer: str, *pages: str) -> list[str]:
    return [c["status"] for c in check(answer, dict(enumerate(pages or (TABLE,), 1)))]


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

    @pytest.mark.parametrize(
        ("head", "answer"),
        [
            ("(in thousands)", "$285.7 million"),
            ("(dollars in thousands)", "$285,677 thousand"),
            ("$000", "285,677,000"),
            ("US$'000", "$285.7 million"),
            ("(000s omitted)", "$0.2857 billion"),
            ("€m", "€285,677 million"),
            ("£bn", "£285,677 billion"),
        ],
    )
    def test_a_tables_head_gives_the_scale(self, head: str, answer: str) -> None:
        assert statuses(f"It was {answer} [1].", f"Space leased {head}\n2020 2019\nTotal 285,677") == [
            "verified"
        ]
        assert statuses(f"It was {answer} [1].", "Space leased\n2020 2019\nTotal 285,677") == ["unverified"]

    @pytest.mark.parametrize(
        ("page", "answer"),
        [
            ("Umsatz 1.234,56 Mio.", "1.234,56"),
            ("Umsatz 1.234.567,89", "1,234,567.89"),
            ("Chiffre 1 234,56", "1,234.56"),
            ("Chiffre 1\u202f234\u202f567", "1,234,567"),
            ("Chiffre 12\u00a0345,6", "12 345,6"),
            ("Ertrag 1'234.56", "1,234.56"),
            ("Ertrag 1’234’567", "1,234,567"),
            ("Quote 12,5 %", "12.5%"),
            ("Sales 1,234.56", "1'234.56"),
            ("Sales 2,500,000", "EUR 2,5 million"),
            ("Sales 2,000,000", "two million"),
            ("Sales $ 3 billion", "Three billion"),
            ("Sales 2,000,000", "two million, between one and two million"),
            ("A growth of three percent", "3%"),
            ("A growth of 4 %", "four per cent"),
            ("Sales 5,2 million", "5.2 to 7 million"),
        ],
    )
    def test_other_ways_to_write_a_number(self, page: str, answer: str) -> None:
        assert statuses(f"It was {answer} [1].", page)[0] == "verified"
        assert statuses(f"It was {answer} [1].", "Sales 8,888")[0] == "unverified"

    @pytest.mark.parametrize(
        ("page", "answer"),
        [
            ("Sales 1.234", "1.234,56"),
            ("Sales 1.234,56", "1.234"),
            ("Sales 56", "1 234,56"),
            ("Note 1 234", "1,234"),
            ("Columns 12\u00a0345", "12,345"),
            ("Notes 1,2", "1.2"),
            ("Sales 12", "12,5 %"),
            ("Sales 2,500,000 thousand", "two thousand five hundred"),
            ("Sales 2 million", "one hundred and two million"),
            ("Sales 2 million", "twenty-two million"),
            ("Sales 2 million", "three million"),
            ("Sales 2.6 million", "two million"),
        ],
    )
    def test_what_only_looks_alike_is_never_verified(self, page: str, answer: str) -> None:
        assert "verified" not in statuses(f"It was {answer} [1].", page)

    def test_an_income_in_brackets_is_a_loss(self) -> None:
        page = "Net income (loss) (1,234) 2,500\nIncome tax expense (310) (290)"
        assert statuses("Net income was 1,234 [1].", page) == ["unverified"]
        assert statuses("The net loss was 1,234 [1].", page) == ["verified"]
        assert statuses("Net income was (1,234), after 2,500 [1].", page) == ["verified"] * 2
        assert statuses("Income tax expense was 310 [1].", page) == ["verified"]

    def test_a_share_in_brackets_may_be_an_aside(self) -> None:
        assert statuses("Margins were wide (41.5%) [1].") == ["verified"]
        assert statuses("It fell (5.5%) [1].", "Change (5.5)% 3%") == ["verified"]

    def test_rounding_goes_one_way(self) -> None:
        page = "Net sales 26.3 billion"
        assert statuses("It was 26 billion [1].", page) == ["verified"]
        assert statuses("It was 26,251 million [1].", page) == ["unverified"]
        assert statuses("It was 26.4 billion [1].", page) == ["unverified"]

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

    def test_points_of_percent(self) -> None:
        assert statuses("From 38.2% to 41.5%, 3.3 percentage points more [1].")[2] == "derived"
        assert statuses("From 38.2% to 41.5%, 33 basis points more [1].")[2] == "unverified"

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

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
            ("a loss of $(1,234) million", "$(1,234) million", "-1234000000"),
            ("a small fee ($5)", "$5", "5"),
            ("about 25 bp more", "25 bp", "25"),
            ("1.5 percent points", "1.5 percent points", "1.5"),
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
            "Report 2020 v2.pdf, pages 6, 8 and 9 [1]",
            "pages 6 and 7, pp. 12-14, page 3 of 80",
            "Notes 7 and 8(b), Exhibit 10.1, Table 4.2, footnote 12, line 14",
            "Dec. 8 and 9, 2022, and 28 to 30 June",
            "“08, 2022 (GLOBE",
            "2024-09-28, 28/09/2024, 9/28/24 and 28.09.2024",
            "2023/24, 2023-24, fiscal '24, FY 24, H1 24",
            "at 10:30 a.m. or 9 a.m.",
            "the 1st, 2nd, 3rd and 21st",
            "+1 (408) 996-1010, (206) 266-1000, 1-800-955-2292, 0800 123 456",
            "ISIN US0378331005, US0378331005, CUSIP 037833100",
            "Commission file number: 001-36743, No. 94-2404110",
            "(1) Includes gains, (2) excludes losses; 1) one, 2) two",
            "[1–3], [2-4] and [1, 3]",
            "version 3.2.1, rule 12b-5, 10b5-1, 10-K405, ISO 9001",
            "https://example.com/page/12?x=5",
        ],
    )
    def test_what_only_names_something_is_no_figure(self, text: str) -> None:
        assert [found.text for found in figures_in(text)] == []

    @pytest.mark.parametrize(
        ("text", "figures"),
        [
            ("on page 12, 45 stores opened", ["45"]),
            ("Note 7 and 26,251 million", ["26,251 million"]),
            ("in row 3 and 15% of it", ["15%"]),
            ("on September 28, 45 stores", ["45"]),
            ("level 3 assets of (5) and (12)", ["(5)", "(12)"]),
            ("0.5 of 10", ["0.5", "10"]),
            ("ordered 5,000 in 12 months", ["5,000", "12"]),
        ],
    )
    def test_figures_beside_them_stay_figures(self, text: str, figures: list[str]) -> None:
        assert [found.text for found in figures_in(text)] == figures

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("$5-$7 million", [5_000_000, 7_000_000]),
            ("10 to 12.5 billion", [10_000_000_000, 12_500_000_000]),
            ("5–7%", [5, 7]),
            ("from 5 million to 7 percent", [5_000_000, 7]),
        ],
    )
    def test_a_range_has_its_scale_and_unit_once(self, text: str, values: list[int]) -> None:
        assert [found.value for found in figures_in(text)] == values

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

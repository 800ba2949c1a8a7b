"""The figures of a text, as it writes them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from models.knowledge.figures import figures_in


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
def test_scale_unit_and_sign_are_read(text: str, figure: str, value: str) -> None:
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
def test_what_only_names_something_is_no_figure(text: str) -> None:
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
def test_figures_beside_them_stay_figures(text: str, figures: list[str]) -> None:
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
def test_a_range_has_its_scale_and_unit_once(text: str, values: list[int]) -> None:
    assert [found.value for found in figures_in(text)] == values


def test_a_word_that_begins_like_a_month_is_none() -> None:
    text = "Marketing 918\nDecreases 12 mayors 14 Marketing people"
    assert [found.text for found in figures_in(text)] == ["918", "12", "14"]

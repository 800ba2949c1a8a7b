import pytest

from models.knowledge import analysis


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Purchases of property, plant and equipment", ["purchas", "properti", "plant", "equip"]),
        ("the company's R&D", ["compani", "r&d"]),
        ("$40,140 million", ["40140", "million"]),
        ("3.5% in 2020", ["3.5", "2020"]),
        ("Form 10-K of the U.S. parent", ["form", "10k", "us", "parent"]),
        ("a 401(k) plan", ["401k", "plan"]),
        ("pro\ufb01ts", ["profit"]),
        ("Größe ÉTÉ", ["größe", "été"]),
        ("of the and", []),
        ("", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert analysis.terms(text) == expected


def test_inflections_meet() -> None:
    assert analysis.terms("leases leased leasing lease") == ["leas"] * 4


def test_a_hostile_token_stays_short() -> None:
    assert [len(term) for term in analysis.terms("x" * 10_000 + " " + "7" * 10_000)] == [64, 64]


def test_figures_are_told_from_names() -> None:
    assert [
        term for term in analysis.terms("40,140 3.5 10-K 401(k) cash 2020") if analysis.is_figure(term)
    ] == [
        "40140",
        "3.5",
        "2020",
    ]

import pytest

from models.knowledge.metadata import aliases_of, metadata_of

COVER = """UNITED STATES
SECURITIES AND EXCHANGE COMMISSION
FORM {form}
For the {kind} ended {ended}
Commission File Number: 001-00001
{company}
(Exact name of registrant as specified in its charter)
Common stock, $0.01 par value {ticker} New York Stock Exchange
"""


def cover(**values: str) -> str:
    known = {
        "form": "10-K",
        "kind": "fiscal year",
        "ended": "June 30, 2021",
        "company": "Lark Mills, Inc.",
        "ticker": "LRK",
    }
    return COVER.format(**(known | values))


def test_a_cover_page_tells_everything() -> None:
    assert metadata_of([cover()]) == {
        "form": "10-K",
        "company": "Lark Mills, Inc.",
        "aliases": ["Lark Mills"],
        "ticker": "LRK",
        "period": "2021-06-30",
        "fiscal_year": 2021,
    }


def test_a_quarterly_report() -> None:
    found = metadata_of([cover(form="10-Q", kind="quarterly period", ended="March 31, 2022")])
    assert (found["form"], found["period"], found["fiscal_year"]) == ("10-Q", "2022-03-31", 2022)


def test_a_year_that_ends_in_the_first_days_of_january_is_the_one_before() -> None:
    assert metadata_of([cover(ended="January 2, 2021")])["fiscal_year"] == 2020


def test_an_earnings_release() -> None:
    text = (
        "NEWS RELEASE\nLark Mills, Inc. Reports Third Quarter Fiscal Year 2022 Results\n"
        "(NYSE: LRK) for the twelve weeks ended May 9, 2022"
    )
    found = metadata_of([text])
    assert (found["company"], found["ticker"], found["fiscal_year"]) == ("Lark Mills, Inc.", "LRK", 2022)
    assert found["period"] == "2022-05-09"


@pytest.mark.parametrize("text", ["", "Minutes of the garden club, 3 May 2020", "\x00\ud800", "FORM " * 5000])
def test_what_is_no_filing_has_no_metadata(text: str) -> None:
    assert metadata_of([text]) == {}
    assert metadata_of([]) == {}


@pytest.mark.parametrize(
    ("company", "expected"),
    [
        ("Birch & Birch", {"B&B", "BnB"}),
        ("Quiet River Lines, Inc.", {"Quiet River Lines", "Quiet", "QRL"}),
        ("General Lamps Company", {"General Lamps"}),
        ("Heron.com, Inc.", {"Heron.com", "Heron"}),
    ],
)
def test_aliases(company: str, expected: set[str]) -> None:
    assert expected <= set(aliases_of(company))


def test_a_word_that_many_companies_begin_with_is_no_alias() -> None:
    assert "General" not in aliases_of("General Lamps Company")

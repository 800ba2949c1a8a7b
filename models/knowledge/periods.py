"""Years, quarters, dates and kinds of filing, read off a question or a cover page."""

import re
from dataclasses import dataclass
from datetime import date

MONTHS = (
    "january february march april may june july august september october november december".split()  # noqa: SIM905 - plainer
)
_MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in MONTHS)
_DATE = re.compile(rf"\b({_MONTH})\.?\s+(\d{{1,2}})\s*,\s*((?:19|20)\d\d)\b", re.IGNORECASE)
_DATE_DAY_FIRST = re.compile(rf"\b(\d{{1,2}})\s+({_MONTH})\.?,?\s+((?:19|20)\d\d)\b", re.IGNORECASE)
_DATE_ISO = re.compile(r"\b((?:19|20)\d\d)-(\d\d)-(\d\d)\b")
_YEAR = re.compile(r"(?<![\d.,$])(?:19|20)\d\d(?![\d%]|[.,]\d)")
_SHORT_YEAR = re.compile(r"\b(?:fy|fiscal|fiscal year)\s?['’]?(\d\d)\b", re.IGNORECASE)
_FY_YEAR = re.compile(r"\b(?:fy|[1-4]q|q[1-4])\s?-?((?:19|20)\d\d)", re.IGNORECASE)
_QUARTER_YEAR = re.compile(r"\bq([1-4])\s?-?(?:fy)?\s?['’]?((?:19|20)?\d\d)\b", re.IGNORECASE)
_QUARTER = re.compile(
    r"\b(?:q([1-4])|([1-4])q|(first|second|third|fourth)[ -](?:fiscal )?quarter)", re.IGNORECASE
)
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4}
_FORMS = {
    "10-K": re.compile(r"\b(?:10-?k|annual (?:report|filing))\b", re.IGNORECASE),
    "10-Q": re.compile(r"\b(?:10-?q|quarterly (?:report|filing))\b", re.IGNORECASE),
    "8-K": re.compile(r"\b(?:8-?k|earnings (?:release|report|call)|press release)\b", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Periods:
    """What a text says about when."""

    years: frozenset[int] = frozenset()
    dates: frozenset[date] = frozenset()
    quarters: frozenset[int] = frozenset()
    forms: frozenset[str] = frozenset()


def named_in(text: str) -> Periods:
    """The years (of dates too), dates, quarters and forms that a text names."""
    dates = frozenset(dates_in(text))
    years = {int(year) for year in _YEAR.findall(text)}
    years |= {int(year) for year in _FY_YEAR.findall(text)}
    years |= {2000 + int(year) for year in _SHORT_YEAR.findall(text)}
    quarters = {int(match[0] or match[1] or _ORDINALS[match[2].lower()]) for match in _QUARTER.findall(text)}
    for quarter, year in _QUARTER_YEAR.findall(text):
        quarters.add(int(quarter))
        years.add(int(year) if len(year) == 4 else 2000 + int(year))
    forms = frozenset(form for form, pattern in _FORMS.items() if pattern.search(text))
    return Periods(frozenset(years), dates, frozenset(quarters), forms)


def dates_in(text: str) -> list[date]:
    """The full dates of a text in the order in which they stand; impossible ones are left out."""
    found: list[tuple[int, date]] = []
    for match in _DATE.finditer(text):
        _add(found, match.start(), match[3], _month(match[1]), match[2])
    for match in _DATE_DAY_FIRST.finditer(text):
        _add(found, match.start(), match[3], _month(match[2]), match[1])
    for match in _DATE_ISO.finditer(text):
        _add(found, match.start(), match[1], int(match[2]), match[3])
    return [day for _, day in sorted(found)]


def _month(name: str) -> int:
    return [month[:3] for month in MONTHS].index(name[:3].lower()) + 1


def _add(found: list[tuple[int, date]], at: int, year: str, month: int, day: str) -> None:
    try:
        found.append((at, date(int(year), month, int(day))))
    except ValueError:
        # "February 30, 2020" names no day, so it can match no document either.
        return

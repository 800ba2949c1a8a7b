"""The figures of a text, as it writes them: what counts as one, its value, scale, unit and sign. Pure.

Years, dates, quarters, form names, page, note and item numbers, list numbers and citation marks are no
figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import zip_longest
from typing import Final

from models.knowledge.periods import MONTHS

SCALES: Final = {
    "000": 3,
    "thousand": 3,
    "k": 3,
    "million": 6,
    "mn": 6,
    "mm": 6,
    "m": 6,
    "billion": 9,
    "bn": 9,
    "b": 9,
    "trillion": 12,
    "tn": 12,
}
_PERCENT: Final = ("%", "percent", "per cent", "pp")
_WORDS: Final = {
    word: str(number)
    for number, word in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), 1
    )
}
_WORD: Final = rf"(?:{'|'.join(_WORDS)})"
_MORE_WORDS: Final = rf"(?:{_WORD}|\w+teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|a)\b"
_DECIMAL_COMMA: Final = (
    # 1.234,56; 1 234,56; 12,5 %: where a comma can be nothing else
    r"\d{1,3}(?:\.\d{3})+,\d{1,9}(?!\d)|\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+,\d{1,2}(?!\d)"
    r"|\d{1,3},\d{1,2}(?=\s?(?:[%€]|per ?cent|EUR\b|thousand|million|billion|trillion|[mbt]n\b))"
)
_DIGITS: Final = (
    rf"(?<![\w.,])(?:(?P<comma>{_DECIMAL_COMMA})"
    # 1'234.56 and, with spaces that stand nowhere else, 1 234
    r"|\d{1,3}(?:(?:,\d{3})+|(?:['’\u2009\u202f]\d{3})+)(?:\.\d+)?|\d{1,18}(?:\.\d{1,9})?|\.\d{1,9})"
    r"(?!\d|,\d{1,2}(?![\d,]))"
    # two million, three per cent; not a part of twenty-two million or of two million five hundred thousand
    rf"|(?i:(?<![\w-])(?<!hundred )(?<!hundred and )(?<!sand and )(?<!lion and )(?<!point )(?P<word>{_WORD})"
    r"(?=[\s-](?:(?:thousand|million|billion|trillion)s?\b"
    rf"(?!\s(?:and\s)?(?:{_MORE_WORDS}|hundred))|per ?cent\b|percentage\b|basis\b)))"
)
_FIGURE: Final = re.compile(
    r"(?P<open>\(\s?)?(?P<sign>(?<![\w)%])[-−–]\s?)?"
    r"(?:(?P<currency>US\$|[$€£¥]|\b(?:USD|EUR|GBP)\s)\s?(?P<minus>[-−–])?)?(?P<inside>\()?"
    rf"(?P<digits>{_DIGITS})(?P<close>\s?\)(?=\s*%)|\))?"
    r"(?:(?:\s?-?(?=[a-z]{7})|\s?(?=\w))"
    r"(?P<scale>thousand|million|billion|trillion|(?i:mn|bn|tn|mm)|[kKmMbB])s?\b)?"
    r"(?:\s?(?P<unit>%|percent(?:age)? points?|per ?cent\b|pp\b|basis points?\b|bps?\b"
    r"|(?:times|x)\b(?!\s*[\d$(])|days?\b))?(?P<late>\))?",
)
_MONTH: Final = rf"(?i:{'|'.join(f'{name[:3]}(?:{name[3:]})?' for name in (*MONTHS, 'sept'))})\b\.?"
_LABEL: Final = re.compile(
    r"(?:\b(?:pages?|pp?\.|notes?|items?|sections?|part|figure|table|exhibit|step|chapter|rule|form|topic|asu|asc"
    rf"|ifrs|ias|fy|q|quarter|week|cells?|rows?|no\.|{_MONTH})\s*[#'’]?|[A-Za-z]-|[/:#])$",
    re.IGNORECASE,
)
_AFTER_DAY: Final = re.compile(rf"[ ]{_MONTH}", re.IGNORECASE)
_NO_FIGURE_AFTER: Final = re.compile(r"(?:-[A-Z]\b|\([a-z]\)|(?:st|nd|rd|th)\b|[A-Za-z]|:\d|/\d)")
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
_NUMBER: Final = (
    r"\d{1,4}(?:\.\d{1,3}){0,2}[A-Za-z]?(?:\(\w{1,4}\))*"
    r"(?!\w|[.,]\d|\s?(?:%|per ?cent|thousand|million|billion|trillion|basis))"
)
_NAMED: Final = (
    "page|footnote|note|item|section|part|figure|table|exhibit|step|chapter|rule|form|topic|line|column|cell|row|"
    "sheet|slide|paragraph|article|volume|level|tier|phase|stage|appendix|schedule|week|quarter"
)
_DAY: Final = r"\d{1,2}(?:st|nd|rd|th)?(?![\d%]|[.,]\d)"
_NAMES: Final = tuple(
    map(
        re.compile,
        (
            # pages 6, 8 and 9; pp. 4-7; Exhibit 10.1; page 3 of 80
            rf"\b(?i:(?:{_NAMED})s|pp\.|nos\.)\s?{_NUMBER}(?:(?:,\s{_NUMBER})*,?\s(?:and|or|&|to|through)\s{_NUMBER}"
            rf"|\s?[-–]\s?{_NUMBER})?",
            rf"\b(?i:{_NAMED}|iso|soc|asu|asc|ifrs|ias|p\.|no\.)\s?#?{_NUMBER}(?:\s?[-–]\s?(?:{_NUMBER}|\d{{5,}}\b))?"
            r"(?:(?<=\d)\sof\s\d{1,4}\b(?![.,]\d))?",
            # September 28 and 29, 2024; 28 to 30 June; 2024-09-28; 28.9.24; 2023/24; FY '24; 9:30; 9 a.m.
            rf"\b{_MONTH}\s{_DAY}(?:(?:\s?[-–]\s?|,?\s(?:and|or|to|through)\s){_DAY})?"
            r"(?:,\s(?:19|20)\d\d(?:,?\sand\s\d{1,2},\s(?:19|20)\d\d)*)?",
            rf"\b{_DAY}(?:\s?[-–]\s?|\s(?:and|or|to|through)\s){_DAY}\s{_MONTH}",
            r"\b(?:19|20)\d\d-\d\d-\d\d\b|\b\d{1,2}([/.])\d{1,2}\1(?:\d{4}|\d\d)\b",
            r"(?:^|[\n“\"])\d{1,2},\s(?:19|20)\d\d\b",
            r"\b(?:19|20)\d\d[-–/]\d\d(?![\d%]|[.,]\d)",
            r"\b(?:[Ff]iscal|FY|CY|[12]H|H[12]|Q[1-4]|[1-4]Q)\s?['’]?\d\d\b(?![.,]\d|%)",
            r"\b\d{1,2}:\d\d(?::\d\d)?\b|\b\d{1,2}\s?[ap]\.?m\b",
            # +1 (408) 996-1010; (206) 266-1000; 1-800-955-2292; 0800 123 456; 001-36743; 3.2.1
            r"\+\d{1,3}[ .(-]{1,2}\d[\d ().-]{5,}\d|\(\d{3}\)\s?\d{3}[-. ]\d{4}\b",
            r"\b(?:1-)?\d{3}-\d{3}-\d{4}\b|(?<![\d.,])0\d[\d -]*\d\b|(?<![\d.,])0\d\b",
            r"\b\d{1,4}(?:\.\d{1,4}){2,}\b|\b\d{2}-\d{7}\b",
            # ISIN US 0378331005; file number: 36743; 10b5-1; 10-K405; links, addresses, files
            r"\b(?i:isin|cusip|sedol|lei|cik|ein|wkn)\b[\s:#]*(?:[A-Z]{2}\s?)?[A-Z0-9][\w-]*",
            r"\b(?i:(?:file|identification|registration|account|invoice|reference|order)\s(?:number|nos?\.?))[\s:#]*"
            r"[A-Z0-9][\w-]*",
            r"\b\d+[A-Za-z]\d*-\d+\b|\b\d{1,2}-[A-Z]+\d*\b",
            r"(?:https?://|www\.)\S+|\S+@\S+\.\w+|\b[\w-]+\.(?:pdf|xlsx|docx|html?|md|txt|csv)\b",
        ),
    )
)
"""Numbers that name, date or address something, with what makes them so; one by one they are twice as quick
as all in one.
"""
_MARKER: Final = re.compile(
    r"(?<![\d$€£¥])\(?(\d{1,2})\)(?=\s+[A-Za-z])(?!\s+(?:thousand|million|billion|per ?cent))"
)
_AFTER_WORD: Final = re.compile(r"(?<=[a-z])\(\d{1,2}\)")
_RANGE: Final = re.compile(r"\s?[-–]\s?(?:US\$|[$€£¥])?$|\sto\s(?:US\$|[$€£¥])?$")
_LIST_NUMBER: Final = re.compile(r"[ \t>*]*\d{1,2}[.)]\s")
CITED: Final = re.compile(r"\[\d{1,3}(?:\s*[,–-]\s*\d{1,3})*\]")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as a text writes it. ``value`` has its scale applied, ``place`` is what its last digit counts.

    ``kind`` is ``amount``, ``percent``, ``points`` (basis points), ``ratio`` or ``days``. ``bracketed``: it
    stands in brackets with its unit, (5%), an aside in prose and a minus in a table.
    """

    text: str
    start: int
    end: int
    value: Decimal
    place: Decimal
    kind: str
    currency: str | None
    scaled: bool
    negative: bool
    bracketed: bool
    digits: int


def figures_in(text: str, *, of_page: bool = False) -> Iterator[Figure]:
    """The figures of a text in order. ``of_page``: of what is held against it, where a number too many harms
    less than one too few.
    """
    marks = {at for mark in CITED.finditer(text) for at in range(*mark.span())} if "[" in text else set()
    if not of_page:
        marks |= _naming(text)
    read = [
        match
        for match in _FIGURE.finditer(text)
        if match.start("digits") not in marks and not _is_label(text, match)
    ]
    for match, after in zip_longest(read, read[1:]):
        figure = _figure(match)
        plain = after is not None and not figure.scaled and figure.kind == "amount"
        if plain and _RANGE.fullmatch(text, match.end(), after.start("digits")):
            figure = _of_range(figure, _figure(after), _scale(after))
        yield figure


def _naming(text: str) -> set[int]:
    """Where numbers stand that are no figures: names, dates, addresses, and the marks of an enumeration."""
    marks = {at for names in _NAMES for match in names.finditer(text) for at in range(*match.span())}
    marks |= {at for match in _AFTER_WORD.finditer(text) for at in range(*match.span())}
    run: list[re.Match[str]] = []
    for match in _MARKER.finditer(text):
        number = int(match.group(1))
        if number == len(run) + 1:
            run.append(match)
        elif number == 1:
            run = [match]
        if len(run) > 1:
            marks |= {at for found in run[-2:] for at in range(*found.span())}
    return marks


def _of_range(figure: Figure, after: Figure, scale: Decimal) -> Figure:
    """The first figure of "5 to 7 million" or "5-7%", in the scale and unit that stand behind the second."""
    return replace(
        figure, value=figure.value * scale, place=figure.place * scale, kind=after.kind, scaled=after.scaled
    )


def _is_label(text: str, match: re.Match[str]) -> bool:
    start, end = match.span("digits")
    plain = not (match["currency"] or match["scale"] or match["unit"])
    before = text[max(0, match.start() - 14) : match.start()]
    if match["open"] or match["inside"]:
        before = before + "("
    line = text.rfind("\n", 0, start) + 1
    return plain and bool(
        (_YEAR.fullmatch(match["digits"]) and not match["close"])
        or _NO_FIGURE_AFTER.match(text, end)
        or (_LABEL.search(before) and not {".", ","} & set(match["digits"]))
        or _AFTER_DAY.match(text, end)
        or (
            "." not in match["digits"]
            and not text[line:start].strip(" \t>*")
            and _LIST_NUMBER.match(text, line)
        )
    )


def _plain(match: re.Match[str]) -> str:
    """Its digits, as Python writes a number."""
    if match["word"]:
        return _WORDS[match["word"].lower()]
    if match["comma"]:
        return re.sub(r"[.\s]", "", match["comma"]).replace(",", ".")
    return re.sub(r"[,'’\s]", "", match["digits"])


def _scale(match: re.Match[str]) -> Decimal:
    return Decimal(10) ** (SCALES[match["scale"].lower()] if match["scale"] else 0)


def _figure(match: re.Match[str]) -> Figure:
    digits, scale = _plain(match), _scale(match)
    value = Decimal(digits) * scale
    place = scale / Decimal(10) ** len(digits.partition(".")[2])
    unit = (match["unit"] or "").strip()
    bracketed = bool((match["open"] or match["inside"]) and (match["close"] or match["late"]))
    # "($5 million)" and "(5%)" may be asides; accountants' brackets hold the number and nothing else.
    tight = bracketed and bool(match["close"]) and (not match["currency"] or bool(match["inside"]))
    negative = bool(match["sign"] or match["minus"]) or tight
    kind = "amount"
    if unit:
        kind = "percent" if unit in _PERCENT or unit.startswith("percent") else "ratio"
        kind = {"b": "points", "d": "days"}.get(unit[0], kind)
    opening, closing = match["open"], match["close"] or match["late"]
    start = match.start() if not opening or (bracketed and negative) else match.start() + len(opening)
    end = match.end() if not closing or bracketed and negative else match.end() - (1 if match["late"] else 0)
    if closing and not (bracketed and negative) and not match["late"] and not match["scale"] and not unit:
        end = match.end("digits")
    text = match.string[start:end].strip()
    start += len(match.string[start:end]) - len(match.string[start:end].lstrip())
    return Figure(
        text=text,
        start=start,
        end=start + len(text),
        value=-value if negative else value,
        place=place,
        kind=kind,
        currency=(match["currency"] or "").strip() or None,
        scaled=bool(match["scale"]),
        negative=negative,
        bracketed=bracketed,
        digits=len(digits.replace(".", "").lstrip("0")),
    )

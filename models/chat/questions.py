"""A question that leans on the one before it, as a question that stands alone. By rule, and pure.

What a search is asked has to name company, matter and period itself. "And the year before?" takes over the
matter and the company, "and Globex?" the matter and the period, "what was its margin?" the company and the
period. A question that leans on nothing is left as it is, letter for letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from models.chat.ports import Message
from models.knowledge import analysis, expansion, periods

LONGEST: Final = 1000
"""Characters of a question made of two; the older one gives way."""

_OPENING: Final = re.compile(
    r"^\s*(?:(?:and|but|or|so|then|ok(?:ay)?|now|also)\b[\s,]*)*"
    r"(?:(?:what|how)\s+about\b|compared\s+(?:to|with)\b|versus\b|vs\.?(?=\s))?[\s,]*",
    re.IGNORECASE,
)
_PRONOUN: Final = re.compile(r"\b(?:its|it|their|they|them|theirs|the company(?:'s)?)\b", re.IGNORECASE)
_EARLIER: Final = re.compile(
    r"\b(?:(?:the\s+)?(?:year|fiscal year)\s+(?:before|earlier|prior)"
    r"|(?:the\s+)?(?:previous|prior|preceding|last)\s+(?:fiscal\s+)?year|a\s+year\s+(?:before|earlier)|year\s+before\s+(?:that|this))\b",
    re.IGNORECASE,
)
_LATER: Final = re.compile(
    r"\b(?:(?:the\s+)?(?:year|fiscal year)\s+(?:after|later)|(?:the\s+)?(?:next|following|subsequent)"
    r"\s+(?:fiscal\s+)?year|a\s+year\s+later)(?:\s+(?:that|this))?\b",
    re.IGNORECASE,
)
_YEAR: Final = re.compile(r"(?<![\d.,$])(?:19|20)\d\d(?![\d%]|[.,]\d)")
_QUARTER: Final = re.compile(
    r"\b(?:Q[1-4]|[1-4]Q|(?:first|second|third|fourth)(?: fiscal)? quarter)\b", re.IGNORECASE
)
_NAME: Final = re.compile(r"[A-Z][\w&.-]*\w(?:\s+(?:[A-Z][\w&.-]*\w|&|of(?=\s[A-Z])))*")
_NO_NAME: Final = (
    frozenset(
        """
    what how which who whom whose when where why is are was were did do does has have had can could please and
    or but so then also compared versus tell show give list explain describe in on for of at by the a an i it
    its they their this that these those fy fiscal year quarter q1 q2 q3 q4 item note form annual report page
    us usd eur gbp ceo cfo capex ebitda ebit eps dpo dso roa roe r&d sg&a ppe ipo esg
    """.split()  # noqa: SIM905 - a list of 80 quoted words would be harder to read and to check
    )
    | frozenset(name[: length or None] for name in periods.MONTHS for length in (0, 3))
)
_SMALL: Final = frozenset(
    "same one ones year years quarter quarters fiscal period annual q1 q2 q3 q4 fy".split()  # noqa: SIM905 - as a list
)


def standalone(question: str, history: Iterable[Message]) -> str:
    """``question`` with what it takes over from the questions before it, oldest first in ``history``."""
    standing = ""
    for message in history:
        if message.role == "user":
            standing = _joined(message.content, standing)
    return _joined(question, standing)


def _joined(question: str, before: str) -> str:
    """One question after another."""
    rest = _OPENING.sub("", question, count=1)
    opened = bool(question[: len(question) - len(rest)].strip())
    names = _names(rest)
    if not before or len(question) > LONGEST:
        return question
    relative = _EARLIER.search(rest) or _LATER.search(rest)
    pronoun = not names and _PRONOUN.search(rest) is not None
    matter = _matter(rest, names)
    if not (opened or relative or pronoun) and (matter or names):
        return question
    if matter and not (opened or pronoun) and (names or not relative):
        return question
    before = before[:LONGEST]
    if not matter:
        return _with_names(_with_period(before, rest), names)
    return _about(rest, before, names)


def _matter(text: str, names: Sequence[str]) -> list[str]:
    """The terms that say what is asked for: neither a name nor a period."""
    for name in names:
        text = text.replace(name, " ")
    text = _QUARTER.sub(" ", _LATER.sub(" ", _EARLIER.sub(" ", _PRONOUN.sub(" ", text))))
    framing = expansion.vocabulary().framing
    return [
        token
        for token in analysis.tokens(text)
        if token not in _SMALL
        and (term := analysis.term_of(token))
        and term not in framing
        and not periods.named_in(token).years
    ]


def _names(text: str) -> list[str]:
    """What is written like a name, without possessives."""
    found = []
    for match in _NAME.finditer(text):
        words = match.group().split()
        while words and words[0].lower() in _NO_NAME:
            words.pop(0)
        while words and words[-1].lower() in _NO_NAME:
            words.pop()
        # A capital at the very start may only be the sentence's: a finance word there is no name.
        alone = match.start() == len(text) - len(text.lstrip()) and len(words) == 1
        key = tuple(sorted(analysis.terms(words[0]))) if alone else ()
        if words and not (key and key in expansion.vocabulary().concepts):
            found.append(" ".join(words))
    return found


def _with_period(before: str, rest: str) -> str:
    """The earlier question for the period that the later one names; unchanged if it names none."""
    shift = -1 if _EARLIER.search(rest) else 1 if _LATER.search(rest) else 0
    wanted = sorted(periods.named_in(rest).years)
    quarter = _QUARTER.search(rest)
    if quarter and _QUARTER.search(before):
        before, quarter = _QUARTER.sub(quarter.group(), before, count=1), None
    years = set(_YEAR.findall(before))
    if years and not wanted and shift:
        before = _YEAR.sub(lambda year: str(int(year.group()) + shift), before)
    elif len(years) == 1 and wanted:
        before = _YEAR.sub(" and ".join(map(str, wanted)), before)
    elif wanted or shift:
        return _added(before, [rest])
    return _added(before, [quarter.group()]) if quarter else before


def _with_names(before: str, names: Sequence[str]) -> str:
    """The earlier question about somebody else."""
    old = _names(before)
    if not names:
        return before
    return before.replace(old[0], " and ".join(names)) if old else _added(before, names)


def _about(rest: str, before: str, names: Sequence[str]) -> str:
    """A new matter, of the same company and period unless it names its own."""
    kept = [] if names else _names(before)[:1]
    shift = -1 if _EARLIER.search(rest) else 1 if _LATER.search(rest) else 0
    if not periods.named_in(rest).years:
        kept += [str(int(year) + shift) for year in dict.fromkeys(_YEAR.findall(before))]
        if not _QUARTER.search(rest) and not shift:
            kept += [quarter.group() for quarter in _QUARTER.finditer(before)][:1]
    return _added(rest, kept)


def _added(question: str, more: Sequence[str]) -> str:
    said = [part.strip(" ?.!") for part in more]
    question = question.strip(" ?.!")
    question = question[:1].upper() + question[1:]
    return f"{question} ({', '.join(said)})?" if said else f"{question}?"

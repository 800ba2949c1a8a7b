"""Whether the figures of an answer stand in what it cites. Pure, and quick enough to run on every answer.

A figure is *verified* where a cited page holds it, as written or rounded; *derived* where a formula makes
it from figures that cited pages hold; else *unverified*, which says that nothing was found, not that it is
wrong.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, DecimalException, localcontext
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from models.knowledge.figures import CITED, SCALES, Figure, figures_in

MOST_FIGURES: Final = 1000
MOST_OPERANDS: Final = 6
"""How many verified figures around a figure a formula is looked for in: more would find one by chance."""
LONGEST_FORMULA: Final = 200
_HEADED: Final = re.compile(
    r"\b(?:in|of)\s+(?:US\s+|U\.S\.\s+)?(?:dollars?\s+in\s+)?(thousand|million|billion)s\b"
    r"|[$€£]\s?(thousand|million|billion|mn|bn|m|k)s?\b(?<!\d)"
    r"|(?:[$€£(]|\bUSD\s?|\bEUR\s?|\bGBP\s?)\s?['’]?(000)['’]?s?\b",
    re.IGNORECASE,
)
_LOSS: Final = re.compile(
    r"\b(?:loss|decreas|declin|outflow|fell|reduc|lower|drop|used in|paid|payments?|purchase|negative)",
    re.IGNORECASE,
)
_GAIN: Final = re.compile(
    r"\b(?:net|operating|gross)\s(?:income|earnings|profit)|\bincome from operations|\bprofit|\bsurplus",
    re.IGNORECASE,
)
_OF_COST: Final = re.compile(r"\b(?:tax|expense|cost|charge)", re.IGNORECASE)
_EQUALS: Final = re.compile(r"[=≈]\s*(?:about|approximately|roughly|~)?\s*[*_$€£(]*$")
_OPERATORS: Final = {
    "×": "*",
    "*": "*",
    "x": "*",
    "·": "*",
    "÷": "/",
    "/": "/",
    "−": "-",
    "–": "-",
    "-": "-",
    "+": "+",
}
_CONSTANTS: Final = frozenset(map(Decimal, (2, 4, 12, 100, 360, 365, 366, 10000)))


@dataclass(frozen=True, slots=True)
class Operand:
    """A figure of the answer with what the cited page says of it."""

    figure: Figure
    value: Decimal
    citation: int


class Evidence:
    """The figures of the cited pages, by citation number, read once for an answer."""

    def __init__(self, pages: Mapping[int, str]) -> None:
        held: list[tuple[Decimal, Decimal, int, Figure, bool, bool]] = []
        for number, text in pages.items():
            headed = {word.lower() for pair in _HEADED.findall(text) for word in pair if word}
            scales = (Decimal(1), *(Decimal(10) ** SCALES[word] for word in sorted(headed)))
            for figure in figures_in(text, of_page=True):
                of_table = not figure.scaled and figure.kind == "amount"
                line = text[text.rfind("\n", 0, figure.start) + 1 : figure.end]
                of_loss = bool(_LOSS.search(line))
                minus = figure.negative and bool(_GAIN.search(line)) and not _OF_COST.search(line)
                for scale in scales if of_table else scales[:1]:
                    held.append(
                        (abs(figure.value) * scale, figure.place * scale, number, figure, of_loss, minus)
                    )
        self._held = sorted(held, key=itemgetter(0))

    def find(self, wanted: Figure, preferred: Iterable[int], *, of_loss: bool = True) -> Operand | None:
        """Where a figure stands: an exact match first, then a citation of its own sentence.

        ``of_loss``: the sentence speaks of a loss or a decrease; else an income in brackets is no match.
        """
        near, best = set(preferred), None
        size, tolerance = abs(wanted.value), _tolerance(wanted)
        first = bisect_left(self._held, size - tolerance, key=itemgetter(0))
        for value, place, number, held, falls, minus in islice(self._held, first, None):
            gap = abs(size - value)
            if gap > tolerance:
                break
            if not _same_kind(wanted, held) or (gap and place > wanted.place):
                continue
            if wanted.negative and not (held.negative or held.bracketed or falls):
                continue
            if minus and not (wanted.negative or wanted.bracketed or of_loss):
                continue
            rank = (gap != 0, number not in near)
            if best is None or rank < best[0]:
                best = rank, Operand(wanted, -value if wanted.negative else value, number)
        return best[1] if best else None


def check(text: str, pages: Mapping[int, str]) -> list[dict[str, Any]]:
    """Each figure of an answer, checked. ``pages`` is the text that each *cited* number leads to."""
    figures = [*islice(figures_in(text), MOST_FIGURES)]
    if not figures:
        return []
    evidence = Evidence(pages)
    found = {
        figure: evidence.find(figure, _cited_near(text, figure), of_loss=_falls(text, figure))
        for figure in figures
    }
    known = [operand for operand in found.values() if operand is not None]
    checks = []
    for figure in figures:
        operand = found[figure]
        if operand is not None:
            checks.append(_told(figure, "verified", citation=operand.citation))
            continue
        around = _around(text, figure, known)
        derived = _written(text, figure, figures, known) or _derived(figure, around)
        if derived is None:
            checks.append(_told(figure, "unverified"))
        else:
            formula, operands = derived
            checks.append(_told(figure, "derived", formula=formula, operands=operands))
    return checks


def evaluate(formula: str) -> Decimal:
    """The value of a formula of numbers, ``+ - * /`` and brackets, and of nothing else; ValueError if it has
    none.
    """
    if len(formula) > LONGEST_FORMULA or re.search(r"[^\d.+\-*/() ]", formula):
        raise ValueError("not a formula")
    try:
        with localcontext(prec=34):
            value = _Formula(re.findall(r"\d+(?:\.\d+)?|[-+*/()]", formula)).value()
    except (DecimalException, IndexError) as fault:
        raise ValueError("it has no value") from fault
    return value


class _Formula:
    """Recursive descent: sum = product (+|- product)*, product = factor (*|/ factor)*."""

    def __init__(self, tokens: list[str]) -> None:
        self._left = tokens[::-1]

    def value(self) -> Decimal:
        value = self._sum()
        if self._left:
            raise ValueError("something is left over")
        return value

    def _next(self, wanted: str) -> str:
        return self._left.pop() if self._left and self._left[-1] in wanted else ""

    def _sum(self) -> Decimal:
        value = self._product()
        while operator := self._next("+-"):
            other = self._product()
            value = value + other if operator == "+" else value - other
        return value

    def _product(self) -> Decimal:
        value = self._factor()
        while operator := self._next("*/"):
            other = self._factor()
            value = value * other if operator == "*" else value / other
        return value

    def _factor(self) -> Decimal:
        if self._next("-"):
            return -self._factor()
        if self._next("("):
            value = self._sum()
            if not self._next(")"):
                raise ValueError("a bracket is not closed")
            return value
        token = self._left.pop()
        if not token[0].isdigit():
            raise ValueError(f"{token} stands where a number should")
        return Decimal(token)


def _same_kind(wanted: Figure, held: Figure) -> bool:
    if wanted.currency and held.currency and wanted.currency[-1] != held.currency[-1]:
        return False
    if wanted.kind == held.kind:
        return True
    if wanted.kind in ("percent", "points", "days", "ratio") and held.kind == "amount":
        return not held.currency and not held.scaled and wanted.kind != "percent"
    return (
        held.kind in ("ratio", "days")
        and not wanted.currency
        and not wanted.scaled
        and wanted.kind == "amount"
    )


def _tolerance(figure: Figure) -> Decimal:
    """Half of what the last digit counts; a short whole number without scale has to be exact."""
    if not figure.scaled and figure.place >= 1 and figure.digits < 3:  # noqa: PLR2004 - 12 is as often a count as a rounding
        return Decimal(0)
    return figure.place / 2


def _sentence(text: str, at: int) -> tuple[int, int]:
    start = max(text.rfind(". ", 0, at) + 1, text.rfind("\n", 0, at) + 1)
    ends = [end for end in (text.find(". ", at), text.find("\n", at)) if end >= 0]
    end = min(ends, default=len(text))
    after = CITED.match(text, end + 2) if text[end : end + 2] == ". " else None
    return start, after.end() if after else end


def _cited_near(text: str, figure: Figure) -> set[int]:
    start, end = _sentence(text, figure.start)
    return {int(number) for mark in CITED.findall(text[start:end]) for number in re.findall(r"\d+", mark)}


def _falls(text: str, figure: Figure) -> bool:
    return bool(_LOSS.search(text, *_sentence(text, figure.start)))


def _around(text: str, figure: Figure, known: Sequence[Operand]) -> list[Operand]:
    """The verified figures of the same paragraph, nearest first, each value once."""
    start = text.rfind("\n\n", 0, figure.start) + 1
    end = text.find("\n\n", figure.end)
    inside = [o for o in known if o.figure.start >= start and (end < 0 or o.figure.end <= end)]
    inside.sort(key=lambda o: abs(o.figure.start - figure.start))
    return list({o.value: o for o in reversed(inside[:MOST_OPERANDS])}.values())[::-1]


def _written(
    text: str, figure: Figure, figures: Sequence[Figure], known: Sequence[Operand]
) -> tuple[str, list[Operand]] | None:
    """The formula that the answer itself writes in front of a figure (``72,539 / 233,307 x 365 = 113.5``)."""
    equals = _EQUALS.search(text, max(0, figure.start - 40), figure.start)
    if equals is None:
        return None
    begin = max(text.rfind("\n", 0, equals.start()), text.rfind("=", 0, equals.start())) + 1
    by_figure = {operand.figure: operand for operand in known}
    tokens: list[str] = []
    operands: list[Operand] = []
    at = equals.start()
    for before in reversed([f for f in figures if begin <= f.start and f.end <= equals.start()]):
        between = _operators(text[before.end : at])
        if between is None:
            break
        operand = by_figure.get(before)
        if operand is None and before.value not in _CONSTANTS:
            return None
        if operand is not None:
            operands.insert(0, operand)
        tokens = [_plain(operand.value if operand else before.value), *between, *tokens]
        at = before.start
    tokens = [*(token for token in _operators(text[begin:at].rpartition(" ")[2] or "") or ()), *tokens]
    formula = " ".join(tokens).replace("( ", "(").replace(" )", ")")
    missing = formula.count(")") - formula.count("(")
    formula = "(" * max(0, missing) + formula
    return (formula, operands) if operands and _makes(formula, figure) else None


def _operators(between: str) -> list[str] | None:
    """The operators that stand between two figures; None where something else does."""
    found = []
    for token in CITED.sub(" ", between).replace("$", " ").split():
        for sign in token if len(token) > 1 else (token,):
            if sign in "()":
                found.append(sign)
            elif sign in _OPERATORS:
                found.append(_OPERATORS[sign])
            else:
                return None
    return found


def _derived(figure: Figure, around: Sequence[Operand]) -> tuple[str, list[Operand]] | None:
    """The first usual formula that makes the figure from two verified ones beside it.

    The fewer digits it has, the fewer are tried: with many, one would make two digits by chance.
    """
    around = around[: 2 * max(1, figure.digits - 1)]
    if figure.digits < 2 and figure.kind == "amount":  # noqa: PLR2004 - one digit is met by chance
        return None
    for template in _usual(figure):
        for a in around:
            for b in around:
                if a is b or not _fits(figure, template, a, b):
                    continue
                formula = template.format(a=_bracketed(a.value), b=_bracketed(b.value))
                if _makes(formula, figure):
                    return formula, [a, b]
    return None


def _usual(figure: Figure) -> tuple[str, ...]:
    if figure.kind == "percent":
        return ("({a} - {b}) / {b} * 100", "{a} / {b} * 100", "{a} - {b}")
    if figure.kind == "points":
        return ("({a} - {b}) * 100",)
    if figure.kind == "days":
        return ("{a} / {b} * 365",)
    if figure.kind == "ratio" or (not figure.currency and not figure.scaled and figure.place < 1):
        return ("{a} / {b}",)
    return ("{a} - {b}", "{a} + {b}", "({a} + {b}) / 2")


def _fits(figure: Figure, template: str, a: Operand, b: Operand) -> bool:
    of_percents = figure.kind == "points" or (figure.kind == "percent" and template == "{a} - {b}")
    return a.figure.kind == b.figure.kind == ("percent" if of_percents else "amount")


def _makes(formula: str, figure: Figure) -> bool:
    try:
        value = evaluate(formula)
    except ValueError:
        return False
    if figure.kind == "percent" and "100" not in formula and "/" in formula:
        value *= 100
    return abs(abs(value) - abs(figure.value)) <= figure.place / 2


def _bracketed(value: Decimal) -> str:
    return f"({_plain(value)})" if value < 0 else _plain(value)


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() and abs(value) < 2**53 else float(value)


def _told(
    figure: Figure,
    status: str,
    *,
    citation: int | None = None,
    formula: str | None = None,
    operands: Sequence[Operand] = (),
) -> dict[str, Any]:
    return {
        "text": figure.text[:200],
        "start": figure.start,
        "end": figure.end,
        "status": status,
        "value": _number(figure.value),
        "citation": citation,
        "operands": [
            {"text": o.figure.text[:200], "value": _number(o.value), "citation": o.citation} for o in operands
        ],
        "formula": formula,
    }

"""What a question asks for, in the words that filings use.

`analyse` turns a question into weighted search terms. The vocabulary is data (`finance.yaml` beside this
module); it holds for any company, and a line added there needs no code.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import resources
from types import MappingProxyType

import yaml

from models.knowledge import analysis, periods

# What a synonym counts beside a word of the question itself.
EXPANSION_WEIGHT = 0.4
# What a line counts that the question does not name but its ratio is computed from.
OPERAND_WEIGHT = 0.4

STATEMENTS = ("income", "balance", "cash_flow", "equity")
_LONGEST_NAME = 6


@dataclass(frozen=True, slots=True)
class Concept:
    """A matter that a question can name: its other names, the statements it stands on, the lines it needs."""

    name: str
    alternatives: tuple[str, ...]
    statements: frozenset[str] = frozenset()
    needs: tuple["Concept", ...] = ()


@dataclass(frozen=True, slots=True)
class AnalysedQuery:
    """A question, ready for ranking.

    `terms` are the words to search for with their weights (1 for the question's own), `asked` the question's
    own terms alone, `spelled` how it writes them, `concepts` the matters it names with the terms of each,
    `synonyms` what else may stand for a term of its own, `statements` those it points at.
    `vector_text` is what to embed. `years`, `dates`, `quarters`, `forms` are the periods and kinds of filing
    it names.
    """

    text: str
    terms: Mapping[str, float]
    asked: frozenset[str]
    spelled: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    concepts: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    synonyms: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    statements: frozenset[str] = frozenset()
    named_statements: frozenset[str] = frozenset()
    years: frozenset[int] = frozenset()
    dates: frozenset[date] = frozenset()
    quarters: frozenset[int] = frozenset()
    forms: frozenset[str] = frozenset()
    vector_text: str = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The finance vocabulary, keyed by the sorted terms of each name."""

    concepts: Mapping[tuple[str, ...], tuple[Concept, ...]]
    statement_names: Mapping[tuple[str, ...], str]
    statement_titles: Mapping[str, tuple[str, ...]]
    framing: frozenset[str]


def analyse(question: str, *, expand: bool = True) -> AnalysedQuery:
    """Read a question: its terms, what filings call them, and the periods and statements it names."""
    known = vocabulary()
    when = periods.named_in(question)
    spelled = _searched(question, known.framing)
    words = [term for term, _ in spelled]
    asked = dict.fromkeys(words, 1.0)
    if not expand:
        return AnalysedQuery(
            text=question,
            terms=asked,
            asked=frozenset(asked),
            spelled=dict(spelled),
            years=when.years,
            dates=when.dates,
            quarters=when.quarters,
            forms=when.forms,
            vector_text=question,
        )
    found, named = _concepts_in(words, known)
    weights = dict(asked)
    synonyms: dict[str, set[str]] = {}
    phrases: list[str] = []
    statements = set(named)
    for spoken, concept in found:
        others = {term for name in concept.alternatives for term in analysis.terms(name)}
        for term in others:
            weights[term] = max(weights.get(term, 0.0), EXPANSION_WEIGHT)
        for term in spoken:
            synonyms.setdefault(term, set()).update(others)
        statements |= concept.statements
        phrases += concept.alternatives[:2] if not concept.needs else ()
        for line in concept.needs:
            needed = _line_terms(line)
            for term in needed:
                weights[term] = max(weights.get(term, 0.0), OPERAND_WEIGHT * needed[term])
            for term in spoken:
                synonyms.setdefault(term, set()).update(needed)
            statements |= line.statements
            phrases.append(line.name)
    return AnalysedQuery(
        text=question,
        terms=weights,
        asked=frozenset(asked),
        spelled=dict(spelled),
        concepts={concept.name: frozenset(analysis.terms(concept.name)) for _, concept in found},
        synonyms={term: frozenset(others - {term}) for term, others in synonyms.items()},
        statements=frozenset(statements),
        named_statements=frozenset(named),
        years=when.years,
        dates=when.dates,
        quarters=when.quarters,
        forms=when.forms,
        vector_text=_expanded(question, phrases),
    )


def _searched(question: str, framing: frozenset[str]) -> list[tuple[str, str]]:
    """A question's terms in order, each with the word as written, without what only tells how to answer.

    FY2018 and Q2'18 are searched for as 2018.
    """
    words: list[tuple[str, str]] = []
    for token in analysis.tokens(question):
        term = analysis.term_of(token)
        years = periods.named_in(token).years
        if years and not token.isdigit():
            words += [(str(year), token) for year in sorted(years)]
        elif term and term not in framing:
            words.append((term, token))
    return words


def statement_bits(lead: str) -> int:
    """Which statements' titles stand in a page's first words, one bit each in the order of `STATEMENTS`."""
    padded = f" {' '.join(analysis.terms(lead))} "
    titles = vocabulary().statement_titles
    return sum(
        1 << bit for bit, name in enumerate(STATEMENTS) if any(title in padded for title in titles[name])
    )


@cache
def vocabulary() -> Vocabulary:
    """The packaged vocabulary; raises ValueError where the file names a line that it does not hold."""
    raw = yaml.safe_load(resources.files(__package__).joinpath("finance.yaml").read_text("utf-8"))
    return compile_vocabulary(raw)


def compile_vocabulary(raw: Mapping[str, object]) -> Vocabulary:
    """Turn the file's mapping into lookup tables; raises ValueError for what does not fit together."""
    file = _File(**raw)  # type: ignore[arg-type]  # the checks below name what is wrong
    if tuple(file.statements) != STATEMENTS:
        raise ValueError(f"statements must be {', '.join(STATEMENTS)}, in this order")
    concepts: dict[tuple[str, ...], list[Concept]] = {}
    lines: dict[str, Concept] = {}
    for entry in file.lines:
        names = tuple(entry["names"])
        on = frozenset(entry.get("statements", ()))
        if not on <= set(STATEMENTS):
            raise ValueError(f"{names[0]}: unknown statement in {sorted(on)}")
        kinds = [_known(lines, key, names[0]) for key in entry.get("also", ())]
        also = tuple(name for kind in kinds for name in kind.alternatives)
        lines[names[0]] = Concept(names[0], names + also, on)
        _name(concepts, names, lines[names[0]])
    for entry in file.ratios:
        names = tuple(entry["names"])
        needs = tuple(_known(lines, key, names[0]) for key in entry["needs"])
        _name(concepts, names, Concept(names[0], names, frozenset(), needs))
    for entry in file.topics:
        asks = tuple(entry["asks"])
        _name(concepts, asks, Concept(asks[0], tuple(entry["finds"])))
    return Vocabulary(
        concepts={key: tuple(listed) for key, listed in concepts.items()},
        statement_names={_key(name): kind for kind, of in file.statements.items() for name in of["named"]},
        statement_titles={
            kind: tuple(f" {' '.join(analysis.terms(title))} " for title in of["titles"])
            for kind, of in file.statements.items()
        },
        framing=frozenset(term for word in file.framing for term in analysis.terms(word)),
    )


@dataclass(frozen=True)
class _File:
    statements: dict[str, dict[str, list[str]]]
    lines: list[dict[str, list[str]]]
    ratios: list[dict[str, list[str]]]
    topics: list[dict[str, list[str]]]
    framing: list[str]


def _known(lines: Mapping[str, Concept], key: str, user: str) -> Concept:
    if key not in lines:
        raise ValueError(f"{user}: needs the line {key!r}, which is not there")
    return lines[key]


def _name(concepts: dict[tuple[str, ...], list[Concept]], names: Iterable[str], concept: Concept) -> None:
    for key in {_key(name) for name in names}:
        concepts.setdefault(key, []).append(concept)


def _key(name: str) -> tuple[str, ...]:
    key = tuple(sorted(analysis.terms(name)))
    if not 0 < len(key) <= _LONGEST_NAME:
        raise ValueError(f"{name!r}: a name has one to {_LONGEST_NAME} terms")
    return key


def _concepts_in(
    words: list[str], known: Vocabulary
) -> tuple[list[tuple[tuple[str, ...], Concept]], set[str]]:
    """The concepts that a question names, longest names first: "cost of sales" is not also "sales".

    The terms of a name may stand in any order ("turnover of inventory") but side by side.
    """
    taken = [False] * len(words)
    found: list[tuple[tuple[str, ...], Concept]] = []
    statements: set[str] = set()
    for size in range(min(_LONGEST_NAME, len(words)), 0, -1):
        for start in range(len(words) - size + 1):
            if any(taken[start : start + size]):
                continue
            spoken = tuple(words[start : start + size])
            key = tuple(sorted(spoken))
            if key in known.statement_names:
                statements.add(known.statement_names[key])
            elif key in known.concepts:
                found += [(spoken, concept) for concept in known.concepts[key]]
            else:
                continue
            taken[start : start + size] = [True] * size
    return found, statements


def _line_terms(line: Concept) -> dict[str, float]:
    """A line's terms: its key counts whole, its other names half."""
    weights = {term: 0.5 for name in line.alternatives for term in analysis.terms(name)}
    weights.update(dict.fromkeys(analysis.terms(line.name), 1.0))
    return weights


def _expanded(question: str, phrases: Iterable[str]) -> str:
    lowered = question.lower()
    added = [phrase for phrase in dict.fromkeys(phrases) if phrase.lower() not in lowered]
    return f"{question} ({', '.join(added)})" if added else question

"""How well a document or a page fits a question, on scales that mean the same for every question.

Ranks say which page is best, not whether it is any good. The score does: it is built from what does not
depend on the other hits, so that one threshold serves every question.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from models.knowledge import analysis
from models.knowledge.expansion import AnalysedQuery
from models.knowledge.metadata import names_of

Floats = npt.NDArray[np.float64]

# Right pages reach 0.44 and more with vectors where the question names the company, 0.26 where it does not,
# and 0.39 with words alone. Questions about other things stay below (one of 40 reached 0.29: "capital" of a
# country); with words alone more than one in five passes, because all its few words do stand on some page,
# and only vectors know that they mean something else there.
DEFAULT_THRESHOLD = 0.25

# Shares of the combined score.
VECTOR_SHARE = 0.6
# So many of the rarest terms on one page say as much as 1 - 1/e of any number of them.
ENOUGH_TERMS = 3.0
# What naming the document's company takes away of the doubt in words alone.
COMPANY_SHARE = 0.25
HIGHEST = 0.999

# What the pages of a document keep of their rank when the question names another company, or a year that the
# document covers less fully: a filing shows two or three years before its own, and none after it.
OTHER_COMPANY = 0.5
YEARS_AFTER = {0: 1.0, 1: 0.9, 2: 0.85}
OTHER_YEAR = 0.8
# The same for another closing date than the one named, and for another kind of filing.
OTHER_DATE = 0.9
OTHER_FORM = 0.9
_YEARLY_FORMS = frozenset({"10-K", "20-F", "40-F"})

_WORD = re.compile(r"[\w.]+")


@dataclass(frozen=True, slots=True)
class CosineScale:
    """What an embedder's cosines mean: up to `unrelated` nothing, from `same` on the same matter."""

    unrelated: float
    same: float


# all-MiniLM-L6-v2: unrelated text lies below 0.2, a question and the passage that answers it at 0.5 to 0.85.
MINILM = CosineScale(unrelated=0.2, same=0.8)


@dataclass(frozen=True, slots=True)
class Fit:
    """How far a document is the one that a question means; `weight` is 0..1."""

    weight: float
    company: bool
    reasons: tuple[str, ...]


def keyword_score(covered: Floats, matched: Floats, company: Floats) -> Floats:
    """The score of words alone: the share of the question that stands on the page, and how telling it is.

    `covered` is that share by idf (0..1), `matched` the same in units of the rarest term, `company` 1 where
    the question names the page's company, else 0. A single common word that is all of a question says little.
    """
    words = np.sqrt(covered * -np.expm1(-matched / ENOUGH_TERMS))
    doubt = (1.0 - words) * np.where(words > 0, 1.0 - COMPANY_SHARE * company, 1.0)
    return np.minimum(1.0 - doubt, HIGHEST)


def vector_score(cosines: Floats, scale: CosineScale) -> Floats:
    """The score of meaning alone, rising with the cosine between the scale's ends."""
    return np.clip((cosines - scale.unrelated) / (scale.same - scale.unrelated), 0.0, HIGHEST)


def combined(keyword: Floats | None, vector: Floats | None) -> Floats:
    """The score of a page from what is known of it; ValueError when nothing is."""
    if keyword is not None and vector is not None:
        return VECTOR_SHARE * vector + (1.0 - VECTOR_SHARE) * keyword
    if keyword is not None:
        return keyword
    if vector is not None:
        return vector
    raise ValueError("neither words nor vectors")


def document_fits(query: AnalysedQuery, documents: Sequence[Mapping[str, Any]]) -> list[Fit]:
    """How far each document is the one a question means.

    What a document does not tell of itself is not held against it, nor is a date that no document ends on.
    """
    companies = [mentions(query.text, metadata) for metadata in documents]
    dates = {day.isoformat() for day in query.dates}
    dated = any(str(metadata.get("period")) in dates for metadata in documents)
    return [
        _fit(query, metadata, company, named=any(companies), dated=dated)
        for company, metadata in zip(companies, documents, strict=True)
    ]


def mentions(question: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a question names the company of a document; tickers only as they are written, in capitals."""
    names, ticker = names_of(metadata)
    if len(ticker) > 1 and ticker in {word.rstrip(".") for word in _WORD.findall(question)}:
        return True
    return any(_spoken(name) in _spoken(question) for name in names)


@lru_cache(maxsize=1 << 14)
def _spoken(text: str) -> str:
    """A text's words without case and possessives, each between two spaces."""
    words = (token.removesuffix("'s").removesuffix("’s") for token in analysis.tokens(text))
    return f" {' '.join(words)} "


def _fit(
    query: AnalysedQuery, metadata: Mapping[str, Any], company: bool, *, named: bool, dated: bool
) -> Fit:
    weight, reasons = 1.0, []
    if company:
        reasons.append(f"company: {metadata.get('company') or metadata.get('ticker')}")
    elif named and any(names_of(metadata)):
        weight *= OTHER_COMPANY
    period, year, form = metadata.get("period"), metadata.get("fiscal_year"), metadata.get("form")
    if dated and period:
        if str(period) in {day.isoformat() for day in query.dates}:
            reasons.append(f"period: {period}")
        else:
            weight *= OTHER_DATE
    if query.years and isinstance(year, int):
        share = max(YEARS_AFTER.get(year - asked, OTHER_YEAR) for asked in query.years)
        weight *= share
        if share == 1.0:
            reasons.append(f"fiscal year: {year}")
    if form and (form not in query.forms if query.forms else query.quarters and form in _YEARLY_FORMS):
        weight *= OTHER_FORM
    return Fit(weight, company, tuple(reasons))

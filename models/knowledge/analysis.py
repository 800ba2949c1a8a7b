"""Text to terms: one normal form for passages, questions and the finance vocabulary.

Passages and questions meet only in what this module returns, so that a change here asks for a re-index;
`VERSION` says which normal form an index was made with.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from threading import Lock

import snowballstemmer  # type: ignore[import-untyped]  # it ships no types

VERSION = 1

# Words with inner "&" or "'" stay whole (r&d, company's); figures keep their decimals and lose their commas;
# form names and plan numbers keep their letter (10-k, 401(k)).
_TOKEN = re.compile(
    r"10-[kq]\b|8-k\b|20-f\b|40[13]\([a-z]\)"
    r"|\d+(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|[^\W_]+(?:['’&][^\W_]+)*"
)
_DROPPED_INSIDE = str.maketrans("", "", ",-()")
_POSSESSIVE = re.compile(r"['’]s?$")
_INITIALISM = re.compile(r"\b(?:[a-z]\.){2,}")

# Function words and the words that only make a sentence a question. "not", "no" and "without" are kept out as
# well: BM25 has no negation, and every page contains them.
STOP_WORDS = frozenset(
    """
    a about above after all also am an and any are as at be because been before being below between both
    but by can could did do does doing down during each either for from further had has have having he
    her here hers him his how i if in into is it its itself just many may me might more most much must
    my no nor not of on once only or other our ours out over own per please same shall she should so
    some such tell than that the their theirs them then there these they this those through to too under
    until up upon very was we were what when where whether which while who whom whose why will with
    within without would you your yours
    """.split()  # noqa: SIM905 - a list of 130 quoted words would be harder to read and to check
)

# One stemmer serves all threads: it keeps the word it works on inside itself, hence the lock.
_stemmer = snowballstemmer.stemmer("english")
_stemming = Lock()


def tokens(text: str) -> list[str]:
    """The words and figures of a text in order, lower-case, ligatures opened, not yet stemmed."""
    plain = unicodedata.normalize("NFKC", text).lower() if not text.isascii() else text.lower()
    plain = _INITIALISM.sub(lambda match: match.group().replace(".", ""), plain)
    return _TOKEN.findall(plain)


@lru_cache(maxsize=1 << 16)
def term_of(token: str) -> str:
    """The index term of one token; "" for a function word, which is not indexed.

    English words are stemmed by Snowball's Porter2 (https://snowballstem.org/algorithms/english/stemmer.html),
    figures keep their digits: "40,140" and "40140" are one term.
    """
    if token in STOP_WORDS:
        return ""
    if token[0].isdigit():
        return token.translate(_DROPPED_INSIDE)[:64]
    word = _POSSESSIVE.sub("", token.translate(_DROPPED_INSIDE))
    if word in STOP_WORDS:
        return ""
    with _stemming:
        return str(_stemmer.stemWord(word))[:64]


def terms(text: str) -> list[str]:
    """The index terms of a text in order, repeated as often as they stand there, function words left out."""
    return [term for term in map(term_of, tokens(text)) if term]


def is_figure(term: str) -> bool:
    """Whether a term is a figure rather than a word ("40140", "3.5", but not "10k" or "401k")."""
    return term[0].isdigit() and term[-1].isdigit()


def figure_share(found: Iterable[str]) -> float:
    """The share of figures among terms, 0..1: high on tables and statements, low in prose."""
    listed = list(found)
    return sum(map(is_figure, listed)) / len(listed) if listed else 0.0

"""Content filtering by rules: what may not be asked or answered at each level. Pure.

| level | catches |
|---|---|
| ``low`` | private keys, access keys, tokens; cards, IBANs and national ids by their check digits |
| ``medium`` | that, and abuse: threats, slurs, insults, instructions for self-harm |
| ``high`` | that, and attempts to override instructions or to have them told |

A number counts as a card only when it is written as one and its check digit fits; figures of reports, with
their separators and units, are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from stdnum import iban, luhn
from stdnum.de import idnr
from stdnum.es import dni
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.it import codicefiscale
from stdnum.us import ssn

LEVELS = ("low", "medium", "high")
HELD_BACK = 120
"""Characters of a streamed text that wait for what follows: longer than anything a rule looks for needs to
be recognised.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of content: how it is spelt, and what else has to hold of a match."""

    name: str
    level: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = bool


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule caught, and where it begins. The text itself is not kept."""

    rule: str
    start: int


_ISSUERS = re.compile(
    r"4\d{15}|(?:5[1-5]|2[2-7]|6[05]|64|35)\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}", re.ASCII
)
"""First digits and lengths of the large schemes (ISO/IEC 7812): Visa, Mastercard, Discover, JCB, American
Express, Diners Club.
"""
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def _is_card(text: str) -> bool:
    """A card's number; a row of four figures, or of years, may look like one and is none."""
    digits = re.sub(r"\D", "", text)
    return (
        _ISSUERS.fullmatch(digits) is not None
        and len(set(digits)) > 1
        and luhn.is_valid(digits)
        and not _YEAR.search(text)
    )


def _rule(name: str, level: str, pattern: str, holds: Callable[[str], bool] = bool) -> Rule:
    return Rule(name, level, re.compile(pattern, re.IGNORECASE), holds)


_AROUND = r"(?<![\w$€£])(?<!\d[.,])", r"(?!\w|[.,]\d)"


def _number(pattern: str) -> str:
    """A number that stands alone: no part of an amount, a longer number or a word."""
    return _AROUND[0] + pattern + _AROUND[1]


def _alone(pattern: str) -> str:
    """The same, with no other figure beside it either, as there is in the row of a table."""
    return r"(?<!\d[ \t])" + _number(pattern) + r"(?![ \t]+[(\d-])"


RULES: tuple[Rule, ...] = (
    _rule("private_key", "low", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    _rule(
        "access_key",
        "low",
        r"\b(?:sk-[A-Za-z0-9_-]{20}|gh[pousr]_[A-Za-z0-9]{20}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10}"
        r"|bk_(?:live|oper)_[0-9A-Za-z]{20})",
    ),
    _rule("token", "low", r"\beyJ[A-Za-z0-9_-]{10,40}\.eyJ[A-Za-z0-9_-]{10}"),
    _rule(
        "payment_card", "low", _alone(r"[2-6]\d{3}(?P<gap>[ -]?)\d{4}(?P=gap)\d{4}(?P=gap)\d{4}"), _is_card
    ),
    _rule("payment_card", "low", _alone(r"3\d{3}(?P<gap>[ -]?)\d{6}(?P=gap)\d{4,5}"), _is_card),
    _rule("iban", "low", _number(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"), iban.is_valid),
    _rule("national_id", "low", _number(r"\d{3}-\d{2}-\d{4}"), ssn.is_valid),
    _rule("national_id", "low", _number(r"\d{8}-?[A-Z]"), dni.is_valid),
    _rule("national_id", "low", _number(r"[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}"), nir.is_valid),
    _rule("national_id", "low", _number(r"[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]"), codicefiscale.is_valid),
    _rule(
        "national_id",
        "low",
        r"\b(?:steuer-?id|idnr)\D{0,20}\d{2} ?\d{3} ?\d{3} ?\d{3}",
        lambda text: idnr.is_valid(_tail(text, 11)),
    ),
    _rule(
        "national_id",
        "low",
        r"\bnhs\D{0,20}\d{3} ?\d{3} ?\d{4}",
        lambda text: nhs.is_valid(_tail(text, 10)),
    ),
    _rule(
        "threat",
        "medium",
        r"\b(?:i|we)(?:'ll| will| am going to|'m going to| are going to)"
        r" (?:kill|murder|rape|shoot|stab|hurt) (?:you|him|her|them|your)\b",
    ),
    _rule(
        "self_harm",
        "medium",
        r"\bhow (?:to|do i|can i) (?:kill myself|commit suicide|hang myself|cut myself)\b"
        r"|\bkill yourself\b",
    ),
    _rule(
        "slur",
        "medium",
        r"\b(?:nigg(?:er|a)s?|faggots?|kikes?|spics?|chinks?|trann(?:y|ies))\b",
    ),
    _rule(
        "insult",
        "medium",
        r"\b(?:fuck (?:you|off)|piece of shit"
        r"|you (?:stupid|worthless|fucking) (?:idiot|bitch|cunt|bastard|moron))\b",
    ),
    _rule(
        "override",
        "high",
        r"\b(?:ignore|disregard|forget|override|bypass)\s+(?:all\s+|any\s+|of\s+|the\s+|your\s+|my\s+|these\s+)*"
        r"(?:previous|prior|above|earlier|preceding|system|existing)?\s*(?:instructions?|rules?|prompts?|guidelines?|directions?)\b",
    ),
    _rule(
        "prompt_leak",
        "high",
        r"\b(?:reveal|show|print|repeat|tell|output|display)\s+(?:me\s+|us\s+)?(?:the\s+|your\s+|all\s+of\s+)*"
        r"(?:system|hidden|initial|secret|original)\s+(?:prompt|instructions?|message)\b",
    ),
    _rule(
        "jailbreak",
        "high",
        r"\byou are now (?:dan|in developer mode|unrestricted|jailbroken)\b"
        r"|\bpretend (?:that )?you have no (?:rules|restrictions|limits)\b|\bdeveloper mode enabled\b",
    ),
)


def _tail(text: str, digits: int) -> str:
    return re.sub(r"\D", "", text)[-digits:]


def find(text: str, level: str, *, is_whole: bool = True) -> Found | None:
    """The first thing in the text that is not allowed at this level. What touches the end of a text that is
    not whole may still become something else, and is not judged yet.
    """
    wanted = LEVELS[: LEVELS.index(level) + 1]
    found = [
        Found(rule.name, match.start())
        for rule in RULES
        if rule.level in wanted
        for match in rule.pattern.finditer(text)
        if (is_whole or match.end() < len(text)) and rule.holds(match[0])
    ]
    return min(found, key=lambda one: one.start, default=None)


class Filter:
    """Looks at a text that comes in pieces, and lets go of what is certain to be allowed."""

    def __init__(self, level: str) -> None:
        self.level = level
        self.found: Found | None = None
        self._held = ""
        self._context = ""

    def feed(self, text: str) -> str:
        """What may be shown, now that this came, too. Nothing more, once something was found."""
        self._held += text
        return self._release(HELD_BACK)

    def end(self) -> str:
        """The rest, now that no more comes."""
        return self._release(0)

    def _release(self, keep: int) -> str:
        if self.found is not None:
            return ""
        seen = self._context + self._held
        found = find(seen, self.level, is_whole=keep == 0)
        if found is not None:
            self.found = found
            shown = seen[len(self._context) : max(found.start, len(self._context))]
            self._held = ""
            return shown
        border = max(0, len(self._held) - keep)
        shown, self._held = self._held[:border], self._held[border:]
        self._context = (self._context + shown)[-HELD_BACK:]
        return shown

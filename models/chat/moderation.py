"""What stands between a reply and its readers while content filtering is on.

The rules of ``filtering`` look at every text. From ``medium`` on, texts that pass them are also shown to the
moderation of the turn's own provider, where it has one: it knows more kinds of abuse, in more languages. It
is asked for the question, and for the reply in portions, none of which is let go before it was judged. Where
it cannot be asked the rules stand alone, and the trace tells so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.chat.filtering import LEVELS, Filter, find
from models.chat.ports import Candidate, Moderator, ProviderError

PORTION = 600
"""Characters of a reply that are judged together: fewer are more calls, more keep readers waiting."""
BEFORE = 200
"""Characters that were judged already and are shown again, so that a sentence is not judged by its halves."""


NOTHING_CUT: Mapping[str, object] = {"cut": None, "categories": [], "caught_by": None}


class Filtered(Exception):
    """Content filtering ended a reply; the text says why, and holds none of what was found."""


@dataclass(slots=True)
class Guard:
    """Looks at one turn. What it returns may be read by anybody; it raises ``Filtered`` at what may not."""

    level: str
    candidates: Sequence[Candidate]
    facts: dict[str, object] = field(default_factory=dict)
    """For the trace: who judged, whether it could, and what was cut for which reasons."""
    _rules: Filter = field(init=False)
    _waiting: str = ""
    _judged: str = ""

    def __post_init__(self) -> None:
        self._rules = Filter(self.level)
        self.facts |= {"level": self.level, "moderated_by": None, "moderation_error": None, **NOTHING_CUT}

    async def check(self, question: str) -> None:
        """Refuse a question that may not be asked."""
        found = find(question, self.level)
        named = [found.rule] if found else await self._objections(question)
        if named:
            self._note("question", named, by_rules=found is not None)
            raise Filtered(f"The question was not answered: {', '.join(named)}.")

    async def feed(self, text: str) -> str:
        """What may be read, now that this came, too."""
        return await self._let_go(self._rules.feed(text), is_whole=False)

    async def end(self) -> str:
        """The rest, now that no more comes."""
        return await self._let_go(self._rules.end(), is_whole=True)

    @property
    def reason(self) -> str | None:
        """Why no more may be read, once a rule found something. What was let go before may be read still."""
        found = self._rules.found
        return f"The reply was cut off: {found.rule}." if found else None

    async def _let_go(self, text: str, *, is_whole: bool) -> str:
        self._waiting += text
        if self._rules.found is not None:
            self._note("reply", [self._rules.found.rule], by_rules=True)
        if self._moderator is None:
            text, self._waiting = self._waiting, ""
            return text
        over = is_whole or self._rules.found is not None
        if not self._waiting or (len(self._waiting) < PORTION and not over):
            return ""
        named = await self._objections(self._judged[-BEFORE:] + self._waiting)
        if named:
            self._note("reply", named, by_rules=False)
            raise Filtered(f"The reply was cut off: {', '.join(named)}.")
        text, self._waiting = self._waiting, ""
        self._judged = text
        return text

    def _note(self, cut: str, categories: list[str], *, by_rules: bool) -> None:
        by = "rules" if by_rules else self.facts["moderated_by"]
        self.facts |= {"cut": cut, "categories": categories, "caught_by": by}

    @property
    def _moderator(self) -> Moderator | None:
        """Who is asked: the first of the turn's providers whose server may be able to judge."""
        if LEVELS.index(self.level) < LEVELS.index("medium") or self.facts["moderation_error"] is not None:
            return None
        providers = (candidate.provider for candidate in self.candidates)
        return next((one for one in providers if isinstance(one, Moderator)), None)

    async def _objections(self, text: str) -> list[str]:
        moderator = self._moderator
        if moderator is None:
            return []
        try:
            named = await moderator.moderate(text)
        except ProviderError as fault:
            self.facts["moderation_error"] = fault.code
            return []
        if named is None:
            self.facts["moderation_error"] = "not_served"
            return []
        self.facts["moderated_by"] = getattr(moderator, "name", None)
        return named

"""What a turn needs to know of the persona that answers it, read once per version of the persona."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import select

from handlers import turns
from handlers.schemas.search import citation_of
from handlers.turns import Order
from models.access import Caller
from models.chat.ports import Message
from models.chat.prompts import Evidence, Instructions
from models.chat.questions import standalone
from models.errors import NotFound
from models.knowledge.relevance import DEFAULT_THRESHOLD
from models.personas import Persona
from storage import retrieval
from storage.conversations import Begun
from storage.database import Session
from storage.provision import candidates
from storage.retrieval import Reach

MAX_DOCUMENTS = 8
"""Passages that a provider is given, unless the persona says otherwise."""
KEPT = 2000


@dataclass(frozen=True, slots=True)
class Briefing:
    """A persona as one version of it answers; a running reply ends on the version that it began with."""

    persona_id: str
    version: int
    is_active: bool
    instructions: Instructions
    llm_provider: str | None
    reach: Reach
    max_documents: int
    score_threshold: float

    @property
    def reads(self) -> bool:
        """Whether there is any knowledge in reach."""
        return bool(self.reach.index_ids or self.reach.category_ids)

    def order(
        self,
        of: Caller,
        *,
        session_id: str | None,
        searches: bool,
        begun: Begun,
        question: str,
        chat_model: str | None = None,
        system: str = "",
        background: bool = False,
        began: float | None = None,
    ) -> Order:
        """A turn of this persona. ``system`` is added to its prompt; ``chat_model`` takes the place of its
        own. ``searches``: there is something to search, in reach or in the session's own files.
        """
        model = chat_model or self.instructions.chat_model or None
        prompt = "\n\n".join(part for part in (self.instructions.system_prompt, system) if part)
        return Order(
            tenant_id=of.tenant_id,
            user_id=of.user_id,
            persona_id=self.persona_id,
            session_id=session_id,
            question_id=begun.question_id,
            reply_id=begun.reply_id,
            question=question,
            history=begun.history,
            is_first=begun.is_first,
            is_new=begun.is_new,
            instructions=replace(self.instructions, chat_model=model or "", system_prompt=prompt),
            candidates=candidates(of, self.llm_provider, model),
            search=partial(self.search, of, question, begun.history, session_id) if searches else None,
            pages=partial(retrieval.pages, of) if searches else None,
            background=background,
            facts={"persona_id": self.persona_id, "persona_version": self.version},
            began=time.monotonic() if began is None else began,
        )

    def search(
        self, of: Caller, question: str, history: Sequence[Message], session_id: str | None
    ) -> tuple[Evidence, list[dict[str, Any]], dict[str, Any]]:
        """Retrieval of one turn: what the persona may read, and the session's own files."""
        asked = standalone(question, history)
        found = retrieval.search(
            of,
            asked,
            reach=self.reach,
            session_id=session_id,
            limit=self.max_documents,
            threshold=self.score_threshold,
        )
        sources = turns.numbered(found.hits)
        hits = found.hits[: len(sources)]
        facts = {
            "timings": {"retrieval_ms": round(found.took_ms, 1)},
            "asked": question,
            "question": None if asked == question else asked,
            "mode": found.mode,
            "query": found.query,
            "degraded": found.degraded,
            "hits": [
                {"number": hit.number, "score": hit.score, "scores": hit.scores, "reasons": hit.reasons}
                for hit in hits
            ],
        }
        return (
            Evidence(sources, found.searched, found.degraded, asked),
            [citation_of(hit) for hit in hits],
            facts,
        )


_briefings: dict[tuple[str, int], Briefing] = {}


def briefing_of(db: Session, persona_id: str) -> Briefing:
    """The briefing on a persona as it stands now."""
    version = db.scalar(select(Persona.version).where(Persona.id == persona_id))
    if version is None:
        raise NotFound()
    known = _briefings.get((persona_id, version))
    if known is not None:
        return known
    if len(_briefings) >= KEPT:
        _briefings.clear()
    made = _briefings[persona_id, version] = _brief(db.require(Persona, persona_id))
    return made


def _brief(persona: Persona) -> Briefing:
    reads = persona.allow_knowledge_search
    threshold = persona.default_score_threshold
    return Briefing(
        persona_id=persona.id,
        version=persona.version,
        is_active=persona.is_active,
        instructions=Instructions(
            persona.system_prompt,
            persona.default_chat_model or "",
            persona.temperature,
            persona.max_output_tokens,
        ),
        llm_provider=persona.llm_provider,
        reach=Reach(
            index_ids=tuple(index.id for index in persona.accessible_indices) if reads else (),
            category_ids=tuple(category.id for category in persona.accessible_categories) if reads else (),
        ),
        max_documents=persona.default_max_documents or MAX_DOCUMENTS,
        score_threshold=DEFAULT_THRESHOLD if threshold is None else threshold,
    )

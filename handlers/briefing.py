"""What a turn needs to know of the persona that answers it, read once per version of the persona."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from sqlalchemy import Table, bindparam, select

from handlers.schemas.search import citation_of, citation_of_page
from handlers.turns import UNSEARCHED, Order
from models.access import Caller
from models.chat import rewriting
from models.chat.ports import Message, Source
from models.chat.prompts import Evidence, Instructions
from models.chat.questions import standalone
from models.configuration import Effective
from models.errors import FeatureDisabled, NotFound
from models.personas import Persona, Rewriter
from storage import retrieval, websearch
from storage.conversations import Begun
from storage.database import Session
from storage.provision import candidates
from storage.retrieval import Reach
from storage.websearch import WebSearchFailure

KEPT = 2000


@dataclass(frozen=True, slots=True)
class Briefing:
    """A persona as one version of it answers; a running reply ends on the version that it began with."""

    persona_id: str
    stack_id: str
    version: int
    is_active: bool
    allows_web_search: bool
    instructions: Instructions
    llm_provider: str | None
    reach: Reach
    max_documents: int | None
    score_threshold: float | None
    rewriter: str

    @property
    def reads(self) -> bool:
        """Whether there is any knowledge in reach."""
        return bool(self.reach.index_ids or self.reach.category_ids)

    def asks_first(self, question: str, history: Sequence[Message]) -> bool:
        """Whether its provider, if it is a language model, makes this question stand alone."""
        return self.rewriter == Rewriter.PROVIDER and rewriting.can_be_asked(question, history)

    def order(
        self,
        of: Caller,
        *,
        session_id: str | None,
        searches: bool,
        begun: Begun,
        question: str,
        configuration: Effective,
        chat_model: str | None = None,
        system: str = "",
        background: bool = False,
        web_search: bool = False,
        began: float | None = None,
    ) -> Order:
        """A turn of this persona. ``system`` is added to its prompt; ``chat_model`` takes the place of its
        own. ``searches``: there is something to search, in reach or in the session's own files.
        """
        model = configuration.chat_model(chat_model or self.instructions.chat_model)
        configuration.check_model(model, "/model")
        place = "/web_search" if web_search else None
        if web_search and not (configuration["enable_web_search"] and self.allows_web_search):
            raise FeatureDisabled("Web search is switched off here.", pointer=place)
        if web_search and not websearch.is_available(configuration["web_search_provider"]):
            raise FeatureDisabled("No web search is configured on this server.", pointer=place)
        reads = searches and (configuration["enable_knowledge_search"] or session_id is not None)
        prompt = "\n\n".join(part for part in (self.instructions.system_prompt, system) if part)
        return Order(
            tenant_id=of.tenant_id,
            user_id=of.user_id,
            persona_id=self.persona_id,
            stack_id=self.stack_id,
            session_id=session_id,
            question_id=begun.question_id,
            reply_id=begun.reply_id,
            question=question,
            history=begun.history,
            is_first=begun.is_first,
            is_new=begun.is_new,
            instructions=replace(self.instructions, chat_model=model or "", system_prompt=prompt),
            candidates=candidates(of, self.llm_provider, model),
            search=partial(
                self.search, of, question, begun.history, session_id, configuration, reads, web_search
            )
            if reads or web_search
            else None,
            rewrites=self.asks_first(question, begun.history),
            pages=partial(retrieval.pages, of) if reads else None,
            background=background,
            is_whole=not configuration["enable_streaming"],
            filter_level=configuration.filter_level,
            facts={
                "persona_id": self.persona_id,
                "persona_version": self.version,
                "configuration": {"values": {**configuration.values}, "origins": {**configuration.origins}},
            },
            began=time.monotonic() if began is None else began,
        )

    def search(
        self,
        of: Caller,
        question: str,
        history: Sequence[Message],
        session_id: str | None,
        configuration: Effective,
        reads: bool,
        web_search: bool,
        rewritten: str | None,
    ) -> tuple[Evidence, list[dict[str, Any]], dict[str, Any]]:
        """Retrieval of one turn: what the persona may read, the session's own files, and the web.

        ``rewritten``: the question as the provider made it stand alone, if it did.
        """
        evidence, facts = Evidence(), dict(UNSEARCHED)
        citations: list[dict[str, Any]] = []
        asked = rewritten or standalone(question, history)
        if reads:
            evidence, citations, facts = self._read(of, asked, session_id, configuration)
        rewriter = Rewriter.PROVIDER if rewritten else Rewriter.RULE
        facts |= {"asked": question, "question": None, "rewritten_by": None}
        if asked != question:
            facts |= {"question": asked, "rewritten_by": rewriter.value}
        if not web_search:
            return evidence, citations, facts
        began = time.monotonic()
        try:
            pages = websearch.search(asked, most=configuration["web_search_max_results"])
            facts["web"] = {"results": len(pages)}
        except WebSearchFailure as fault:
            pages, facts["web"] = [], {"results": 0, "error": str(fault)}
        facts["web"]["ms"] = round((time.monotonic() - began) * 1000, 1)
        first = len(citations) + 1
        found = [citation_of_page(page, number) for number, page in enumerate(pages, first)]
        sources = _of_web(found)
        return replace(evidence, sources=[*evidence.sources, *sources]), citations + found, facts

    def _read(
        self, of: Caller, asked: str, session_id: str | None, configuration: Effective
    ) -> tuple[Evidence, list[dict[str, Any]], dict[str, Any]]:
        threshold, most = self.score_threshold, self.max_documents or configuration["default_max_documents"]
        if threshold is None:
            threshold = configuration["default_score_threshold"]
        within = self.reach if configuration["enable_knowledge_search"] else Reach()
        found = retrieval.search(
            of,
            asked,
            reach=within,
            session_id=session_id,
            limit=most,
            threshold=threshold,
        )
        # What words alone would find is not shown as if the documents had been searched.
        hits = [] if found.away else found.hits
        facts = {
            "timings": {"retrieval_ms": round(found.took_ms, 1)},
            "mode": found.mode,
            "query": found.query,
            "filters": {
                "index_ids": within.index_ids,
                "category_ids": within.category_ids,
                "session_id": session_id,
                "max_documents": most,
                "score_threshold": threshold,
            },
            "degraded": found.degraded,
            "hits": [
                {"number": hit.number, "score": hit.score, "scores": hit.scores, "reasons": hit.reasons}
                for hit in hits
            ],
        }
        return (
            Evidence(_of_hits(hits), found.searched and not found.away, found.degraded, asked, found.away),
            [citation_of(hit) for hit in hits],
            facts,
        )


def _of_web(citations: Sequence[dict[str, Any]]) -> list[Source]:
    """Pages of the web as passages of a prompt."""
    return [
        Source(c["number"], c["document_name"], None, None, None, c["url"], c["quote"], c["score"])
        for c in citations
    ]


def _of_hits(hits: Sequence[Any]) -> list[Source]:
    """Search hits as the passages of a prompt."""
    return [
        Source(
            hit.number, hit.document_name, hit.page, hit.sheet, hit.cell, hit.heading, hit.quote, hit.score
        )
        for hit in hits
    ]


_PERSONAS = cast(Table, Persona.__table__).c
_VERSION = select(_PERSONAS.version).where(
    _PERSONAS.id == bindparam("id"), _PERSONAS.tenant_id == bindparam("tenant_id")
)
_briefings: dict[tuple[str, int], Briefing] = {}


def briefing_of(db: Session, persona_id: str) -> Briefing:
    """The briefing on a persona as it stands now."""
    asked = {"id": persona_id, "tenant_id": db.tenant_id}
    version = db.connection().execute(_VERSION, asked).scalar()
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
    return Briefing(
        persona_id=persona.id,
        stack_id=persona.stack_id,
        version=persona.version,
        is_active=persona.is_active,
        allows_web_search=persona.allow_web_search,
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
        max_documents=persona.default_max_documents,
        score_threshold=persona.default_score_threshold,
        rewriter=persona.question_rewriting,
    )

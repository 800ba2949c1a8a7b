"""What a provider is told: the persona's prompt, the conversation so far, the numbered passages, then the
question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from models.chat.ports import MESSAGE_OVERHEAD, Message, Prompt, Source, estimate_tokens

CONTEXT_TOKENS = 12_000
"""Tokens that a prompt may take by estimate: half for the passages, the rest for the conversation."""
PASSAGE_TOKENS = CONTEXT_TOKENS // 2

CITING = (
    "Passages from the company's documents stand before the question, each with a number. Answer from them. "
    "After each statement write the number of the passage that it stands on, like [1]. Never cite a number "
    "that is not there, and say plainly when the passages do not hold the answer."
)
NO_EVIDENCE = (
    "The company's documents were searched for this question and nothing relevant was found. Say that the "
    "documents hold no sufficient evidence; do not guess."
)
NO_SEARCH = (
    "The company's documents could not be searched just now, and the reader is told so above your answer. "
    "Answer without them only where that is safe."
)
UNSEARCHABLE = "The documents cannot be searched just now, so this answer does without them.\n\n"
"""What a reply begins with then, whoever writes it."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """What of a persona, session and configuration shapes a turn."""

    system_prompt: str
    chat_model: str
    temperature: float | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What retrieval found for the question. ``searched``: whether there was anything to search."""

    sources: Sequence[Source] = field(default_factory=tuple)
    searched: bool = False
    degraded: str | None = None
    question: str = ""
    """What was searched for, where that is not the question as it was asked."""
    away: bool = False
    """Whether the documents could not be searched, since the vector store does not answer."""

    @property
    def answer_status(self) -> str | None:
        """None where nothing was searched; else whether anything was found."""
        if not self.searched:
            return None
        return "answered" if self.sources else "insufficient_evidence"


def place_of(source: Source) -> str:
    """Where a passage stands, for people: ``Report.pdf, page 12``."""
    parts = [source.document_name]
    if source.page is not None:
        parts.append(f"page {source.page}")
    if source.sheet is not None:
        parts.append(f"sheet {source.sheet}" + (f", cells {source.cell}" if source.cell else ""))
    elif source.heading:
        parts.append(source.heading)
    return ", ".join(parts)


def fitting(sources: Sequence[Source], budget: int = PASSAGE_TOKENS) -> list[Source]:
    """The best passages that fit ``budget`` tokens together; at least one."""
    kept: list[Source] = []
    for source in sources:
        budget -= estimate_tokens(source.text) + 20
        if budget < 0 and kept:
            break
        kept.append(source)
    return kept


def recent(history: Sequence[Message], budget: int) -> list[Message]:
    """The newest messages that fit ``budget`` tokens, beginning with a question."""
    kept: list[Message] = []
    for message in reversed(history):
        budget -= estimate_tokens(message.content) + MESSAGE_OVERHEAD
        if budget < 0:
            break
        kept.append(message)
    kept.reverse()
    while kept and kept[0].role != "user":
        kept.pop(0)
    return kept


def compose(
    instructions: Instructions, history: Sequence[Message], question: str, evidence: Evidence
) -> Prompt:
    """The prompt of one turn. The question stands last, behind the passages."""
    sources = list(evidence.sources)
    rules = [instructions.system_prompt] if instructions.system_prompt else []
    if sources:
        rules.append(CITING)
    elif evidence.searched:
        rules.append(NO_EVIDENCE)
    elif evidence.away:
        rules.append(NO_SEARCH)
    asked = question
    if sources:
        passages = "\n\n".join(f"[{source.number}] {place_of(source)}\n{source.text}" for source in sources)
        asked = f"Passages:\n\n{passages}\n\nQuestion: {question}"
    system = [Message("system", "\n\n".join(rules))] if rules else []
    spent = sum(estimate_tokens(message.content) for message in system) + estimate_tokens(asked)
    return Prompt(
        chat_model=instructions.chat_model,
        messages=(*system, *recent(history, CONTEXT_TOKENS - spent), Message("user", asked)),
        temperature=instructions.temperature,
        max_output_tokens=instructions.max_output_tokens,
        question=evidence.question or question,
        sources=tuple(sources),
        searched=evidence.searched,
    )

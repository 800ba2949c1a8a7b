"""What a provider is told: the persona's prompt, the conversation so far, the numbered passages, then the
question.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from models.chat.context import Room
from models.chat.ports import Message, Prompt, ProviderError, Source

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


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits, and what had to be left out for it: passages from the tail, the oldest messages."""

    prompt: Prompt
    room: Room
    counted: int
    reserved: int
    passages_left_out: Sequence[Source]
    messages_left_out: int

    def facts(self) -> dict[str, Any]:
        """For the trace."""
        return {
            "context_window": self.room.window,
            "reserved_tokens": self.reserved,
            "prompt_tokens": self.room.scaled(self.counted),
            "factor": round(self.room.factor, 3),
            "messages_left_out": self.messages_left_out,
            "passages_left_out": [
                {"number": source.number, "place": place_of(source)} for source in self.passages_left_out
            ],
        }


def compose(
    instructions: Instructions,
    history: Sequence[Message],
    question: str,
    evidence: Evidence,
    room: Room | None = None,
) -> Fitted:
    """The prompt of one turn. The question stands last, behind the passages.

    What does not fit is left out: first the oldest messages, then passages from the tail. Raises
    ``ProviderError`` where not even instructions and question fit.
    """
    room = room or Room()
    reserved = room.reserved(instructions.max_output_tokens)
    alone = evidence.question or question
    sources, left = list(evidence.sources), math.inf
    if room.window is not None:
        longest = max((question, alone), key=len) if history else question
        fixed = sum(map(room.measured, (_rules(instructions, evidence), _asked(longest, bool(sources)))))
        left = room.window - reserved - fixed
        if left < 0:
            raise ProviderError(
                "provider_rejected",
                f"Instructions and question take {fixed} tokens, which with {reserved} for the answer is "
                f"more than the model's context of {room.window}.",
            )
        sources, left = _leading(sources, left, room)
    kept = _recent(history, left, room)
    given = replace(evidence, sources=sources)
    rules = _rules(instructions, given)
    # A question that leans on a conversation of which nothing is left is asked as it stands alone.
    asked = _asked(question if kept or not history else alone, bool(sources), map(_passage, sources))
    messages = (*([Message("system", rules)] if rules else []), *kept, Message("user", asked))
    counted = sum(room.counted(message.content) for message in messages)
    most = instructions.max_output_tokens
    if most is not None and room.window is not None:
        most = max(1, min(most, room.window - room.scaled(counted)))
    prompt = Prompt(
        chat_model=instructions.chat_model,
        messages=messages,
        temperature=instructions.temperature,
        max_output_tokens=most,
        question=alone,
        sources=tuple(sources),
        searched=evidence.searched,
    )
    left_out = evidence.sources[len(sources) :]
    return Fitted(prompt, room, counted, reserved, left_out, len(history) - len(kept))


def _rules(instructions: Instructions, evidence: Evidence) -> str:
    rules = [instructions.system_prompt] if instructions.system_prompt else []
    if evidence.sources:
        rules.append(CITING)
    elif evidence.searched:
        rules.append(NO_EVIDENCE)
    elif evidence.away:
        rules.append(NO_SEARCH)
    return "\n\n".join(rules)


def _passage(source: Source) -> str:
    return f"[{source.number}] {place_of(source)}\n{source.text}"


def _asked(question: str, has_sources: bool, passages: Iterable[str] = ()) -> str:
    return "\n\n".join(["Passages:", *passages, f"Question: {question}"]) if has_sources else question


def _leading(sources: Sequence[Source], budget: float, room: Room) -> tuple[list[Source], float]:
    """The first passages that fit together, and what is left then."""
    kept: list[Source] = []
    for source in sources:
        tokens = room.scaled(room.count(f"{_passage(source)}\n\n"))
        if tokens > budget:
            break
        kept.append(source)
        budget -= tokens
    return kept, budget


def _recent(history: Sequence[Message], budget: float, room: Room) -> list[Message]:
    """The newest messages that fit, beginning with a question."""
    kept: list[Message] = []
    for message in reversed(history):
        budget -= room.measured(message.content)
        if budget < 0:
            break
        kept.append(message)
    kept.reverse()
    while kept and kept[0].role != "user":
        kept.pop(0)
    return kept

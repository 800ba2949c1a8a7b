"""What a turn is made of: all that it needs to know, gathered before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.chat import rewriting
from models.chat.extractive import ExtractiveProvider
from models.chat.ports import Candidate, Message, estimate_tokens
from models.chat.prompts import Evidence, Instructions

Search = Callable[[str | None], tuple[Evidence, list[dict[str, Any]], dict[str, Any]]]
"""Retrieval of a turn, run in a thread: evidence, citations as the contract shows them, facts for the
trace. It is given the question as the provider made it stand alone; None leaves that to the rule.
"""
Pages = Callable[[Sequence[dict[str, Any]]], dict[int, str]]
"""The text of the pages that citations lead to, by number, read in a thread, for its figures."""

UNSEARCHED: dict[str, Any] = {"timings": {"retrieval_ms": 0.0}}
"""The facts of a turn that had nothing to search."""

PASSAGES_TOKENS, ANSWER_TOKENS = 2_000, 500
"""What passages and an answer without a limit of its own are taken to cost until they are known."""


@dataclass(slots=True)
class Order:
    """All that a turn needs. ``session_id`` None: nothing is stored (the OpenAI-compatible door).

    ``search`` None: there is nothing to search. ``cites``: how citations are shown to who asked.
    """

    tenant_id: str
    user_id: str | None
    persona_id: str | None
    stack_id: str
    session_id: str | None
    question_id: str
    reply_id: str
    question: str
    history: Sequence[Message]
    instructions: Instructions
    candidates: Sequence[Candidate]
    search: Search | None
    pages: Pages | None = None
    rewrites: bool = False
    """Whether the provider is to make the question stand alone, if it is a language model."""
    background: bool = False
    bot_id: str | None = None
    cites: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    is_first: bool = False
    is_new: bool = True
    is_whole: bool = False
    """Whether readers are told the text at its end, in one piece."""
    filter_level: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def tokens(self) -> int:
        """What it may spend, estimated before anything was searched or written."""
        said = sum(estimate_tokens(message.content) for message in self.history)
        asked = estimate_tokens(self.instructions.system_prompt) + estimate_tokens(self.question)
        passages = PASSAGES_TOKENS if self.search is not None else 0
        first = rewriting.most_tokens(self.question, self.history) if self.asks_first else 0
        return first + said + asked + passages + (self.instructions.max_output_tokens or ANSWER_TOKENS)

    @property
    def asks_first(self) -> bool:
        """Whether the provider makes this question stand alone before anything is searched."""
        return (
            self.rewrites
            and self.search is not None
            and not isinstance(self.candidates[0].provider, ExtractiveProvider)
        )

"""How much of a language model's context a prompt takes, by counted tokens. Pure.

Whoever counts is not the model's own tokenizer, so that its counts are multiplied by a factor: a safe one for
a model that was never asked, later the largest by which the model's own counts were above ours.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from models.chat.ports import MESSAGE_OVERHEAD, Candidate, estimate_tokens

DEFAULT_WINDOW: Final = 8_192
"""Tokens of a model that nobody told us more of: what nearly every model served today takes."""
SAFE_FACTOR: Final = 1.5
"""For a model that has not counted a prompt of ours yet: vocabularies differ, most of all in how they cut
figures and other languages than English.
"""
MARGIN: Final = 1.1
"""On the largest factor seen: the next prompt may hold more figures, or another language."""
LEAST_FACTOR, MOST_FACTOR = 0.5, 4.0
LEAST_COUNTED: Final = 100
"""Shorter prompts teach nothing: the chat format's own tokens outweigh theirs."""
REMEMBERED, MODELS = 32, 2_000
ANSWER_TOKENS: Final = 1_024
"""What is left free for an answer that has no limit of its own."""

Count = Callable[[str], int]
"""Tokens of a text."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a prompt may take of a model's context. ``window`` None: as much as there is."""

    window: int | None = None
    factor: float = 1.0
    count: Count = estimate_tokens

    def measured(self, text: str) -> int:
        """The tokens of one message of a prompt, as the model would count them."""
        return self.scaled(self.counted(text))

    def scaled(self, counted: int) -> int:
        """What was counted, by the model's measure."""
        return math.ceil(counted * self.factor)

    def counted(self, text: str) -> int:
        """The tokens of one message by our own measure, which the model's is compared with."""
        return self.count(text) + MESSAGE_OVERHEAD

    def reserved(self, max_output_tokens: int | None) -> int:
        """What is kept for the answer: never more than half of the window."""
        return min(max_output_tokens or ANSWER_TOKENS, (self.window or 0) // 2)


class Calibration:
    """By how much models count more than we do: for each of them the last prompts, kept in memory."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str, str], deque[float]] = OrderedDict()

    def learn(self, model: tuple[str, str, str], counted: int, reported: int) -> None:
        """A prompt that we counted as so many tokens was so many by the model's own count.

        ``model``: tenant, provider and chat model.
        """
        if counted < LEAST_COUNTED or reported <= 0:
            return
        self._seen.setdefault(model, deque(maxlen=REMEMBERED)).append(reported / counted)
        self._seen.move_to_end(model)
        while len(self._seen) > MODELS:
            self._seen.popitem(last=False)

    def factor(self, model: tuple[str, str, str]) -> float:
        """What our counts are multiplied by for this model."""
        seen = self._seen.get(model)
        return min(MOST_FACTOR, max(LEAST_FACTOR, max(seen) * MARGIN)) if seen else SAFE_FACTOR

    def room(self, tenant_id: str, candidates: Iterable[Candidate], count: Count, chat_model: str) -> Room:
        """The room that a prompt has with each of the candidates: any of them may be the one that answers."""
        asked = [candidate for candidate in candidates if candidate.context_window is not None]
        if not asked:
            return Room()
        factors = (self.factor((tenant_id, c.provider.name, c.chat_model or chat_model)) for c in asked)
        return Room(min(c.context_window or 0 for c in asked), max(factors), count)

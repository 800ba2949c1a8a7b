"""A question made to stand alone by the persona's provider: what it is told, and what of its answer is used.

Pure. Whoever asks keeps to ``SECONDS``; whatever goes wrong, ``questions.standalone`` makes the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from models.chat.ports import Message, Price, Prompt, UsageReport, estimate_prompt_tokens
from models.chat.questions import LONGEST

SECONDS: Final = 4.0
"""How long a turn waits for the provider's question."""
MOST_OUTPUT: Final = 200
"""Tokens of the provider's question."""

_MESSAGES, _CHARACTERS = 6, 800
_TASK: Final = (
    "You prepare a search in documents. Below is a conversation. Write its last question again so that it "
    "can be understood without the conversation: name the company, the figure and the period that it leans "
    "on, and add nothing else. If it stands alone already, repeat it word for word. Answer with the question "
    "and nothing else, in its own language."
)
_QUOTED: Final = re.compile(r'^(["“«\'])(.*)["”»\']$')


@dataclass(frozen=True, slots=True)
class Rewriting:
    """How the provider did. ``question`` is None where the rule has to make it; ``error`` then tells why.

    ``usage`` is None where the call cost nothing that we know of.
    """

    provider: str
    chat_model: str
    ms: float
    question: str | None = None
    error: str | None = None
    usage: UsageReport | None = None
    price: Price | None = None

    def facts(self) -> dict[str, Any]:
        """For the trace."""
        spent = self.usage
        return {
            "provider": self.provider,
            "model": self.chat_model,
            "question": self.question,
            "error": self.error,
            "ms": round(self.ms, 1),
            "prompt_tokens": spent.prompt_tokens if spent else 0,
            "completion_tokens": spent.completion_tokens if spent else 0,
        }


def prompt_for(chat_model: str, question: str, history: Sequence[Message]) -> Prompt:
    """What the provider is told: the end of the conversation, each message cut to its beginning."""
    said = [
        f"{'User' if message.role == 'user' else 'Assistant'}: {message.content[:_CHARACTERS]}"
        for message in history[-_MESSAGES:]
    ]
    asked = "\n\n".join([*said, f"Last question: {question}"])
    return Prompt(
        chat_model,
        (Message("system", _TASK), Message("user", asked)),
        max_output_tokens=MOST_OUTPUT,
        question=question,
    )


def most_tokens(question: str, history: Sequence[Message]) -> int:
    """About what asking costs at most."""
    return estimate_prompt_tokens(prompt_for("", question, history)) + MOST_OUTPUT


def can_be_asked(question: str, history: Sequence[Message]) -> bool:
    """Whether there is a question before this one that it may lean on; a very long one stands alone."""
    return len(question) <= LONGEST and any(message.role == "user" for message in history)


def usable(answer: str) -> str | None:
    """The question in what the provider answered; None where it answered something else."""
    text = answer.strip()
    quoted = _QUOTED.match(text)
    text = quoted.group(2).strip() if quoted else text
    return text if text and len(text) <= LONGEST and "\n" not in text else None

"""Which providers may answer a turn, in the order of fallback.

The persona's own provider if it names one; else every provider of the tenant's table that lists the model,
by order; else ``openai`` when the environment configures it; else ``extractive``.
"""

from __future__ import annotations

from models.chat.extractive import ExtractiveProvider
from models.chat.ports import Candidate
from models.errors import RuleBroken, Unavailable
from storage.providers import OpenAIProvider
from storage.settings import settings

BUILT_IN = ("openai", "extractive")


def check_name(name: str | None, pointer: str) -> None:
    """Refuse a provider that nobody knows."""
    if name is not None and name not in BUILT_IN:
        raise RuleBroken(
            f"There is no provider of this name; known are {', '.join(BUILT_IN)}.", pointer=pointer
        )


def _openai() -> OpenAIProvider:
    if not settings().has_openai:
        raise Unavailable("The provider openai is not configured on this server.")
    return OpenAIProvider(
        "openai",
        settings().openai_base_url or "https://api.openai.com/v1",
        settings().openai_api_key or "none",
    )


def candidates(llm_provider: str | None, chat_model: str | None) -> list[Candidate]:
    """The providers of a turn, and the model to ask each for. ``llm_provider``: the persona's own, if any."""
    name = llm_provider or ("openai" if settings().has_openai else "extractive")
    if name == "extractive":
        return [Candidate(ExtractiveProvider(), "extractive")]
    return [Candidate(_openai(), chat_model or settings().openai_model)]

"""The installation's embedder, made once per process."""

from __future__ import annotations

from functools import cache
from typing import Literal, cast

from storage import embeddings
from storage.embeddings import Embedder, Unavailable
from storage.settings import Settings, settings


def embedder() -> Embedder | Unavailable:
    """What turns texts into vectors here, or why there is nothing; quick, as it loads at its first text."""
    return _made(settings())


@cache
def _made(by: Settings) -> Embedder | Unavailable:
    return embeddings.load(
        cast(Literal["offline", "openai", "none"], by.embeddings),
        cache=by.data_dir / "cache",
        folder=by.embeddings_dir,
        model=by.embeddings_model,
        api_key=by.openai_api_key,
        base_url=by.openai_base_url,
    )

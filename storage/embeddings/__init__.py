"""Vectors for passages and questions: offline by default, OpenAI's if configured, or honestly none."""

from pathlib import Path
from typing import Literal

from storage.embeddings.embedder import Embedder, EmbeddingFailure, Unavailable, Vectors
from storage.embeddings.hosted import OpenAIEmbedder
from storage.embeddings.offline import OfflineEmbedder

__all__ = [
    "Embedder",
    "EmbeddingFailure",
    "OfflineEmbedder",
    "OpenAIEmbedder",
    "Unavailable",
    "Vectors",
    "load",
]


def load(
    kind: Literal["offline", "openai", "none"],
    *,
    cache: Path,
    folder: Path | None = None,
    model: str = "text-embedding-3-small",
    api_key: str | None = None,
    base_url: str | None = None,
    threads: int = 1,
) -> Embedder | Unavailable:
    """The configured embedder, or why there is none; quick, as nothing heavy is loaded before it is used.

    `cache` is a folder of ours for what can be made again; `folder` holds weights and tokenizer in place of
    the installed ones.
    """
    if kind == "none":
        return Unavailable("embeddings are switched off: search goes by keywords alone")
    if kind == "openai":
        return OpenAIEmbedder(model=model, api_key=api_key, base_url=base_url)
    try:
        return OfflineEmbedder(cache, folder=folder, threads=threads)
    except (EmbeddingFailure, OSError) as failure:
        return Unavailable(f"{failure}: search goes by keywords alone")

"""Vectors of passages, kept by Chroma: embedded, or a server that several workers share.

Chroma gets ids and numbers, never a text. Each index of a tenant has a collection of its own for each
embedder, all session files of a tenant share one; what a search may see is chosen by collection and by
document, and no filter of a caller's ever reaches Chroma.
"""

from storage.vectors.client import (
    Health,
    VectorsUnavailable,
    close,
    collection,
    count,
    drop,
    drop_all,
    health,
    holdings,
    nearest,
    prepare,
    remove,
    upsert,
)
from storage.vectors.embedding import embedder

__all__ = [
    "Health",
    "VectorsUnavailable",
    "close",
    "collection",
    "count",
    "drop",
    "drop_all",
    "embedder",
    "health",
    "holdings",
    "nearest",
    "prepare",
    "remove",
    "upsert",
]

"""What the product asks of whatever turns text into vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors whose dot product tells how near two texts are in meaning."""

    @property
    def name(self) -> str:
        """Model and version. Vectors of two names never stand in one collection: they do not compare."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text, in order: float32, length 1. Raises EmbeddingFailure. Safe in many threads."""


class EmbeddingFailure(Exception):
    """No vectors could be made; `detail` is a sentence for the operator."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Unavailable:
    """There is no embedder: search goes by keywords alone, and `reason` says so where people look."""

    reason: str


def normalised(vectors: Vectors) -> Vectors:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), dtype=np.float32)

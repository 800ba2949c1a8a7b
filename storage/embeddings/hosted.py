"""Embeddings from OpenAI or any server that speaks its `/embeddings`."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from storage.embeddings.embedder import EmbeddingFailure, Vectors, normalised

if TYPE_CHECKING:
    from openai import OpenAI

_KNOWN_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_BATCH = 128
_MOST_CHARACTERS = 24_000  # 8,192 tokens are the most that a text may have
_NO_KEY = "none"  # the client insists on one, a server on loopback often has none


class OpenAIEmbedder:
    """Vectors by the official client, in batches, with its retries (429, 5xx, lost connections)."""

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None,
        base_url: str | None,
        timeout: float = 30.0,
        retries: int = 2,
    ) -> None:
        self._model = model
        self._api_key, self._base_url = api_key or _NO_KEY, base_url
        self._timeout, self._retries = timeout, retries
        self._client: OpenAI | None = None
        self._dimensions = _KNOWN_DIMENSIONS.get(model)
        self._lock = threading.Lock()
        self.name = f"openai:{model}"

    @property
    def dimensions(self) -> int:
        """Length of a vector; a model that is not known here is asked once."""
        if self._dimensions is None:
            self.embed(["dimensions"])
        if self._dimensions is None:
            raise EmbeddingFailure(f"the provider gave no vector for {self._model}")
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`; raises EmbeddingFailure when the provider fails or answers something else."""
        rows = [
            row
            for start in range(0, len(texts), _BATCH)
            for row in self._batch([text[:_MOST_CHARACTERS] or " " for text in texts[start : start + _BATCH]])
        ]
        if not rows:
            return np.empty((0, self.dimensions), dtype=np.float32)
        if len({len(row) for row in rows}) != 1 or self._dimensions not in (None, len(rows[0])):
            raise EmbeddingFailure(f"the provider's vectors for {self._model} differ in length")
        self._dimensions = len(rows[0])
        vectors = np.asarray(rows, dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise EmbeddingFailure(f"the provider's vectors for {self._model} are not finite")
        return normalised(vectors)

    def close(self) -> None:
        """Close the connections; the next text opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _batch(self, texts: list[str]) -> list[list[float]]:
        import openai

        try:
            answer = self._connected().embeddings.create(
                model=self._model, input=texts, encoding_format="float"
            )
        except openai.OpenAIError as error:
            raise EmbeddingFailure(f"the embedding provider failed ({type(error).__name__})") from error
        rows = [item.embedding for item in sorted(answer.data or [], key=lambda item: item.index)]
        if len(rows) != len(texts):
            raise EmbeddingFailure(f"the provider gave {len(rows)} vectors for {len(texts)} texts")
        return rows

    def _connected(self) -> "OpenAI":
        from openai import OpenAI

        with self._lock:
            if self._client is None:
                self._client = OpenAI(
                    api_key=self._api_key,
                    base_url=self._base_url,
                    timeout=self._timeout,
                    max_retries=self._retries,
                )
            return self._client

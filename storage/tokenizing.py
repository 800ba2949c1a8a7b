"""Texts counted in tokens, by a tokenizer that is in the install: the embedding model's.

It is no chat model's own, so what it counts is multiplied by a factor that the provider's own counts teach
(`models.chat.context.Calibration`). It reads words where chat models read bytes, too: it drops blanks and
knows no emoji and few characters of Chinese. Line ends are counted here, and what it does not know counts as
its bytes, of which no tokenizer makes more tokens.
"""

from __future__ import annotations

import threading
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from models.chat.ports import estimate_tokens
from storage.embeddings.embedder import EmbeddingFailure
from storage.embeddings.offline import tokenizer_file
from storage.settings import settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_UNKNOWN: Final = "[UNK]"
_PIECE: Final = 20_000
"""Characters that are read at once: its time grows faster than the text."""
_loading = threading.Lock()


@cache
def _loaded() -> Tokenizer | None:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file(settings().embeddings_dir)))
    except (EmbeddingFailure, OSError):  # keyword-only installations have none: it is estimated
        return None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def name() -> str:
    """By what is counted: ``tokenizer``, or ``estimate`` where none is installed."""
    with _loading:
        return "estimate" if _loaded() is None else "tokenizer"


@lru_cache(maxsize=4096)
def count(text: str) -> int:
    """How many tokens a text is. Passages and messages are counted once and remembered."""
    with _loading:
        tokenizer = _loaded()
    if tokenizer is None:
        return estimate_tokens(text)
    # Lone surrogates, which the tokenizer refuses, become question marks.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    found = clean.count("\n")
    for start in range(0, len(clean), _PIECE):
        piece = clean[start : start + _PIECE]
        read = tokenizer.encode(piece, add_special_tokens=False)
        found += len(read.ids)
        if _UNKNOWN in read.tokens:
            unknown = (
                piece[a:b]
                for token, (a, b) in zip(read.tokens, read.offsets, strict=True)
                if token == _UNKNOWN
            )
            found += sum(len(part.encode()) - 1 for part in unknown)
    return found

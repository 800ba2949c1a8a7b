"""Documents and all that is made of them, written and forgotten as one: rows, postings, vectors, the file."""

from storage.library.adding import add_document, read_again, reindex
from storage.library.forgetting import (
    Removed,
    compact,
    delete_document,
    delete_index,
    delete_session_files,
    forget_rest,
)
from storage.library.making import (
    EMBEDDING_FROM,
    clear_passages,
    note,
    place_of_vectors,
    settle,
    write_passages,
)
from storage.library.promises import EMBED, FORGET, INGEST

__all__ = [
    "EMBED",
    "EMBEDDING_FROM",
    "FORGET",
    "INGEST",
    "Removed",
    "add_document",
    "clear_passages",
    "compact",
    "delete_document",
    "delete_index",
    "delete_session_files",
    "forget_rest",
    "note",
    "place_of_vectors",
    "read_again",
    "reindex",
    "settle",
    "write_passages",
]

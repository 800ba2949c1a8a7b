"""Jobs on documents that the queue is promised, and which of them come first."""

from __future__ import annotations

INGEST, EMBED, FORGET = "ingest", "embed", "forget"
"""Kinds of jobs: read a document, make its vectors, remove what deleted documents left outside of SQL."""
FIRST, SOON, THEN, LAST = 1, 3, 5, 7
"""Their priorities: what is deleted, files of a session, documents, what is only made anew."""

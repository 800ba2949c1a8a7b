"""Conversations in SQL: a turn's begin, its progress and its end, and what a reader needs to go on.

Question and reply are rows before the provider is called. What arrives is written behind, for all running
replies of a process together (``record``), so that many streams cost one commit.
"""

from storage.conversations.beginning import HISTORY, Begun, begin, begin_again
from storage.conversations.branches import branch, depth_of, on_branch, part_of_branch
from storage.conversations.feedback import rate
from storage.conversations.recording import Ending, Progress, Retrieval, Wish, record
from storage.conversations.running import check_free, note_reader, request_stop, running_reply, sweep
from storage.conversations.sessions import has_files, remove_session, said_lately

__all__ = [
    "HISTORY",
    "Begun",
    "Ending",
    "Progress",
    "Retrieval",
    "Wish",
    "begin",
    "begin_again",
    "branch",
    "check_free",
    "depth_of",
    "has_files",
    "note_reader",
    "on_branch",
    "part_of_branch",
    "rate",
    "record",
    "remove_session",
    "request_stop",
    "running_reply",
    "said_lately",
    "sweep",
]

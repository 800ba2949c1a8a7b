"""Replies being written by this process: one task each, any number of readers, one writer to SQL for all.

A turn goes question -> passages -> prompt -> deltas -> answer. Readers follow a turn by position, so that
sending, streaming and resuming are the same thing; a reader on another process, or after a restart, follows
the row in SQL instead.
"""

from handlers.turns.house import house
from handlers.turns.order import UNSEARCHED, Order
from handlers.turns.reading import (
    COMMENT,
    Reading,
    Stored,
    begun,
    changes,
    follow,
    follow_stored,
    poll,
    whole,
)
from handlers.turns.turn import Turn

__all__ = [
    "COMMENT",
    "UNSEARCHED",
    "Order",
    "Reading",
    "Stored",
    "Turn",
    "begun",
    "changes",
    "follow",
    "follow_stored",
    "house",
    "poll",
    "whole",
]

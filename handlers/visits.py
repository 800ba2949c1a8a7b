"""A visitor's request as the binding let it in."""

from __future__ import annotations

from dataclasses import dataclass

from models.bots import Bot
from storage.visitors import Door, Ticket


@dataclass(frozen=True, slots=True)
class Visit:
    """The bot that is visited, and the visitor's ticket once there is one."""

    door: Door
    ticket: Ticket | None

    @property
    def bot(self) -> Bot:
        """The bot as it stood when the request came."""
        return self.door.bot

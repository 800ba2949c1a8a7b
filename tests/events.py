"""Server-sent events as a client reads them (WHATWG HTML, 9.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event; ``position`` is the number in its id, which what ends a refused reader's stream lacks."""

    name: str
    id: str
    data: dict[str, Any]

    @property
    def position(self) -> int:
        """The rising part of the id."""
        return int(self.id.rpartition(":")[2])


def events(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a stream; comments are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
            fields = {}


def text_of(found: Iterable[Event]) -> str:
    """The text that the deltas make."""
    return "".join(event.data["text"] for event in found if event.name == "message.delta")

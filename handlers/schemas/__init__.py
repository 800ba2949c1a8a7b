"""Marshmallow: the shape of resources on the wire. Constraints stand in the spec alone, never here again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from marshmallow import Schema, fields


def shown_time(moment: datetime) -> str:
    """RFC 3339 in UTC, with microseconds and ``Z``."""
    # Not by strftime, which writes years before 1000 with fewer digits than RFC 3339 asks for.
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Instant(fields.Field[datetime]):
    """RFC 3339 in UTC, with microseconds and ``Z``."""

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else shown_time(value)


class Wire(Schema):
    """A resource as it goes out; each property of its component in the spec stands here once."""

    def show(self, row: Any) -> dict[str, Any]:
        """One row as the contract shows it."""
        shown: dict[str, Any] = self.dump(row)
        return shown


class Named(Wire):
    """A thing by id and name."""

    id = fields.String()
    name = fields.String()

"""What handlers give back, beside plain ``dict``s: pages of lists, files, texts, event streams; and what
lists take.
"""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

import orjson
from sqlalchemy import ColumnElement, Select, func, literal, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from handlers.problems import Problem
from storage.database import Everyone, OfTenant, Session, reading

Dump = Callable[[Any], dict[str, Any]]
Url = Callable[[dict[str, Any]], str]
Column = InstrumentedAttribute[Any] | ColumnElement[Any]
CSV_BATCH = 500


@dataclass(slots=True)
class Upload:
    """A file of a multipart body; ``file`` is positioned at its start, ``size`` is in bytes."""

    name: str
    media_type: str
    file: BinaryIO
    size: int


@dataclass(slots=True)
class Paging:
    """Which part of a list is wanted. ``whole``: all of it, as CSV."""

    page: int = 1
    page_size: int = 20
    ordering: str | None = None
    search: str | None = None
    cursor: str | None = None
    whole: bool = False


@dataclass(slots=True)
class Text:
    """A whole text of some media type."""

    body: str | bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Parts:
    """A text that is made part by part, in a thread."""

    parts: Iterator[bytes]
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class StoredFile:
    """A file on disk, sent as an attachment or shown in place."""

    path: Path
    media_type: str
    name: str
    etag: str


@dataclass(slots=True)
class Fresh:
    """What was only read. A repeated request reads it again, and nothing of it is kept for that."""

    body: dict[str, Any]


@dataclass(slots=True)
class Events:
    """Server-sent events; ``parts`` yields encoded blocks and is closed when the reader leaves."""

    parts: AsyncIterator[bytes]


@dataclass(slots=True)
class Listing:
    """A list that knows how to show one page as JSON, or the whole as CSV."""

    query: Select[Any]
    dump: Dump
    paging: Paging
    orderings: Mapping[str, Column]
    tie: Column
    of: OfTenant | Everyone
    searched: tuple[Column, ...] = ()
    columns: tuple[str, ...] = ()
    by_cursor: tuple[Column, Column] | None = None
    """The time and id that a cursor is made of, for lists that grow while they are read."""

    def _filtered(self) -> Select[Any]:
        query = self.query
        if self.paging.search:
            pattern = "%" + _escaped(self.paging.search) + "%"
            query = query.where(or_(*(column.ilike(pattern, escape="\\") for column in self.searched)))
        return query

    def _ordered(self, query: Select[Any]) -> Select[Any]:
        ordering = self.paging.ordering or next(iter(self.orderings), "")
        column = self.orderings.get(ordering.lstrip("-"))
        down = ordering.startswith("-")
        if column is not None:
            query = query.order_by(column.desc() if down else column.asc())
        return query.order_by(self.tie.desc() if down else self.tie.asc())

    def _count(self, db: Session) -> int:
        return db.scalar(select(func.count()).select_from(self._filtered().order_by(None).subquery())) or 0

    def _rows(self, db: Session, offset: int, size: int) -> Sequence[Any]:
        """So many rows, in order."""
        return db.scalars(self._ordered(self._filtered()).limit(size).offset(offset)).unique().all()

    def _rows_after(self, db: Session, cursor: str, size: int) -> Sequence[Any]:
        """The same behind a cursor."""
        if self.by_cursor is None:
            raise RuntimeError("only a list with cursors goes on behind one")
        down = (self.paging.ordering or "").startswith("-")
        query = self._ordered(self._filtered().where(after(self.by_cursor, cursor, down=down)))
        return db.scalars(query.limit(size)).unique().all()

    def _check_place(self, db: Session, cursor: str) -> None:
        """400 for a client's cursor that no row of the table gave; our own, of ``csv``, need no look, and
        outlive their rows.
        """
        if self.by_cursor is not None:
            (at, key), (moment, id) = self.by_cursor, place_of(cursor)
            if db.scalar(select(at).where(key == id)) != moment:
                raise not_a_place()

    def page(self, db: Session, url: Url) -> dict[str, Any]:
        """The page as the contract shows lists; ``url`` makes an absolute URL with other query values."""
        count = self._count(db)
        if self.by_cursor is not None and self.paging.cursor is not None:
            return self._behind_cursor(db, count, url)
        number, size = self.paging.page, self.paging.page_size
        rows = self._rows(db, (number - 1) * size, size)
        last = max(1, -(-count // size))
        more = number * size < count
        shown = {
            "count": count,
            "next": url({"page": number + 1}) if more else None,
            "previous": url({"page": min(number - 1, last)}) if number > 1 else None,
            "results": [self.dump(row) for row in rows],
        }
        if self.by_cursor is not None:
            shown["next_cursor"] = cursor_of(rows[-1].created_at, rows[-1].id) if more and rows else None
        return shown

    def _behind_cursor(self, db: Session, count: int, url: Url) -> dict[str, Any]:
        size, cursor = self.paging.page_size, self.paging.cursor or ""
        self._check_place(db, cursor)
        rows = self._rows_after(db, cursor, size + 1)
        more, rows = len(rows) > size, rows[:size]
        following = cursor_of(rows[-1].created_at, rows[-1].id) if more else None
        return {
            "count": count,
            "next": url({"cursor": following}) if following else None,
            "previous": None,
            "next_cursor": following,
            "results": [self.dump(row) for row in rows],
        }

    def csv(self) -> Iterator[bytes]:
        """The whole list, batch by batch, each in a short transaction of its own."""
        offset, cursor, header_sent = 0, None, False
        while True:
            with reading(self.of) as db:
                if cursor is None:
                    found = self._rows(db, offset, CSV_BATCH)
                else:
                    found = self._rows_after(db, cursor, CSV_BATCH)
                rows = [self.dump(row) for row in found]
            if not header_sent:
                yield csv_rows([self.columns])
                header_sent = True
            if rows:
                yield csv_rows([[row.get(column) for column in self.columns] for row in rows])
            if len(rows) < CSV_BATCH:
                return
            if self.by_cursor is None:
                offset += CSV_BATCH
            else:  # nothing is skipped or told twice while rows are added, and none is read to be left out
                cursor = cursor_of(found[-1].created_at, found[-1].id)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def cell(value: Any) -> str:
    """A value as a spreadsheet may open it: text that would be taken for a formula gets a leading
    apostrophe.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        value = orjson.dumps(value).decode()
    text = str(value)
    if isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + text
    return text


def csv_rows(rows: Any) -> bytes:
    """Rows as RFC 4180 text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    for row in rows:
        writer.writerow([cell(value) for value in row])
    return buffer.getvalue().encode()


def created(body: dict[str, Any], location: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """201 with the place of the new resource."""
    return body, 201, {"Location": location}


def envelope(data: Any, **meta: Any) -> dict[str, Any]:
    """The reference's envelope of function views."""
    return {"success": True, "data": data, "error": None, "meta": meta}


def event(name: str, id: str, data: dict[str, Any]) -> bytes:
    """One server-sent event: JSON on one ``data:`` line."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (id.encode(), name.encode(), orjson.dumps(data))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = re.compile(r"([0-9]{16})([0-9a-f]{32})")


def cursor_of(moment: datetime, id: str) -> str:
    """A place in a list that is ordered by time and id: 16 digits of microseconds and 32 of the id."""
    return f"{(moment - _EPOCH) // timedelta(microseconds=1):016d}{uuid.UUID(id).hex}"


def place_of(cursor: str) -> tuple[datetime, str]:
    """What ``cursor_of`` was made of; 400 for anything else."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise not_a_place()
    return _EPOCH + timedelta(microseconds=int(found[1])), str(uuid.UUID(found[2]))


def not_a_place() -> Problem:
    """What to raise for a cursor that this list never gave, or whose row is gone."""
    fault = {"parameter": "cursor", "detail": "is no place in this list"}
    return Problem("validation-failed", "The cursor is none of this list's. Begin anew.", faults=[fault])


def with_query(url: str, query: dict[str, Any]) -> str:
    """``url`` with these query values."""
    return f"{url}?{urlencode(query, doseq=True)}" if query else url


def after(columns: tuple[Column, Column], cursor: str, *, down: bool = False) -> ColumnElement[bool]:
    """The condition for rows behind ``cursor``, in ascending order or ``down``."""
    here = tuple_(
        *(literal(value, column.type) for value, column in zip(place_of(cursor), columns, strict=True))
    )
    # As one comparison, which an index answers; "later, or as late with a greater id" it would read through.
    return tuple_(*columns) < here if down else tuple_(*columns) > here

"""Which part of a file is wanted (RFC 9110, 13.1.5 and 14). Werkzeug reads the header."""

from __future__ import annotations

from werkzeug.http import parse_range_header

from handlers.problems import Problem
from openapi.exchange import Exchange


def wanted(exchange: Exchange, etag: str, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last, of ``size`` bytes; None for the whole. 416 behind the end.

    What may be answered with the whole is: several ranges, other units, what cannot be read.
    """
    asked = parse_range_header(exchange.preconditions.get("Range"))
    if exchange.method != "GET" or asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    if exchange.preconditions.get("If-Range", etag) != etag:
        return None
    ((start, end),) = asked.ranges
    if start < 0:  # the last so many, or all where there are fewer
        start = max(0, size + start)
    if start >= size:
        raise Problem(
            "range-not-satisfiable",
            f"There are {size} bytes.",
            faults=[{"parameter": "Range", "detail": "begins behind the end"}],
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, size if end is None else min(end, size)

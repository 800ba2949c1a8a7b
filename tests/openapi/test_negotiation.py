"""The media type that an ``Accept`` prefers."""

from __future__ import annotations

import pytest

from openapi.negotiation import best


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("text/*;q=0.9, application/json;q=0.1", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/csv;q=0, */*", "application/json"),
        ("image/png, */*;q=0.1", "application/json"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("image/png", None),
        ("application/json;q=0", None),
        ("application/json;q=nonsense", None),
        (",;=,", None),
    ],
)
def test_the_type_that_is_preferred(accept: str, chosen: str | None) -> None:
    assert best(accept, ["application/json", "text/csv"]) == chosen

"""Which of the media types that an operation serves an ``Accept`` prefers."""

from __future__ import annotations


def best(accept: str, produces: list[str]) -> str | None:
    """The type to answer with (RFC 9110, 12.5.1): the most preferred range, our order within it."""
    if not accept:
        return produces[0]
    ranges: list[tuple[str, float]] = []
    for part in accept.split(","):
        pieces = [piece.strip() for piece in part.split(";")]
        quality = next((p[2:] for p in pieces[1:] if p.lower().startswith("q=")), "1")
        try:
            ranges.append((pieces[0].lower(), min(1.0, max(0.0, float(quality)))))
        except ValueError:
            ranges.append((pieces[0].lower(), 0.0))

    def preference(media_type: str) -> float:
        major = media_type.split("/")[0]
        for pattern in (media_type, f"{major}/*", "*/*"):
            for name, quality in ranges:
                if name == pattern or (
                    name == "application/problem+json" and pattern == "*/*" and len(ranges) == 1
                ):
                    return quality
        return 0.0

    best = max(produces, key=preference)
    return best if preference(best) > 0 else None

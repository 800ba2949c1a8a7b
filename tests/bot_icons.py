"""Draws the icons that come with the product: ``python -m tests.bot_icons``; commit what it writes."""

from __future__ import annotations

from PIL import Image, ImageDraw

from storage.icons import SHARED

SIDE, FINER = 128, 4
COLOURS = {"bubble": "#0b5fff", "report": "#0f766e", "chart": "#b45309", "spark": "#6d28d9"}


def drawn(name: str) -> Image.Image:
    """A white sign on a round ground, drawn larger and made smaller, so that its edges are smooth."""
    picture = Image.new("RGBA", (SIDE * FINER, SIDE * FINER))
    pen = ImageDraw.Draw(picture)

    def at(*points: int) -> list[int]:
        return [point * FINER for point in points]

    pen.ellipse(at(0, 0, SIDE - 1, SIDE - 1), fill=COLOURS[name])
    if name == "bubble":
        pen.rounded_rectangle(at(30, 36, 98, 80), 14 * FINER, fill="white")
        pen.polygon(at(46, 76, 46, 98, 68, 78), fill="white")
    elif name == "report":
        pen.rounded_rectangle(at(40, 28, 88, 100), 6 * FINER, fill="white")
        for line in (44, 58, 72, 86):
            pen.rectangle(at(50, line, 78, line + 4), fill=COLOURS[name])
    elif name == "chart":
        for left, top in ((36, 70), (58, 52), (80, 34)):
            pen.rounded_rectangle(at(left, top, left + 14, 94), 3 * FINER, fill="white")
    else:
        pen.polygon(at(64, 24, 73, 55, 104, 64, 73, 73, 64, 104, 55, 73, 24, 64, 55, 55), fill="white")
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    for name in COLOURS:
        drawn(name).save(SHARED / f"{name}.png", optimize=True)

"""Documents to read in: made on the fly, each different, with sentences in them that nothing else says."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

MEGABYTE = 1_000_000
_LINES, _LEADING = 58, 13
_WORDS = """
revenue margin segment quarter increase decrease currency inventory equipment lease pension goodwill
impairment dividend facility supplier customer contract regulation litigation interest maturity hedge
forecast acquisition disposal store warehouse logistics energy labour price volume market region share
capital expenditure income depreciation amortisation expense liability asset receivable payable tax
audit committee director compensation award research development licence patent
"""
_PLAIN = "the of and in to for by with from on as at during compared because while mainly due net total other"
WORDS, LITTLE = _WORDS.split(), _PLAIN.split()


@dataclass(frozen=True)
class Planted:
    """A document, and a question whose answer stands in its middle."""

    name: str
    content: bytes
    question: str
    sentence: str


def _sentence(chance: random.Random) -> str:
    words = [chance.choice(LITTLE if place % 2 else WORDS) for place in range(chance.randint(8, 20))]
    if chance.random() < 0.4:
        words.insert(chance.randint(1, len(words)), f"{chance.randint(1, 99_999):,}")
    return " ".join(words).capitalize() + "."


def _lines(chance: random.Random) -> list[str]:
    """A page's worth of text, about 100 characters a line."""
    text = ""
    while len(text) < _LINES * 100:
        text += _sentence(chance) + " "
    return [text[at : at + 100] for at in range(0, _LINES * 100, 100)]


def _planted(chance: random.Random) -> tuple[str, str]:
    code = "".join(chance.choices("bcdfglmnprstvz", k=9))
    return (
        f"How many lighthouses does the {code} project of the company include?",
        f"The {code} project of the company includes {chance.randint(20, 900)} lighthouses.",
    )


def text(seed: int, size: int = MEGABYTE) -> Planted:
    """A plain text of that many bytes."""
    chance = random.Random(seed)  # noqa: S311 - the same figures each time
    question, sentence = _planted(chance)
    parts: list[str] = []
    length = 0
    while length < size:
        paragraph = " ".join(_sentence(chance) for _ in range(6))
        parts.append(paragraph)
        length += len(paragraph) + 2
    parts[len(parts) // 2] += " " + sentence
    return Planted(f"text-{seed}.txt", "\n\n".join(parts).encode()[:size], question, sentence)


def pdf(seed: int, size: int = MEGABYTE) -> Planted:
    """A PDF of about that many bytes; its pages are not compressed, so that most of it is text."""
    chance = random.Random(seed)  # noqa: S311 - the same figures each time
    question, sentence = _planted(chance)
    pages = max(1, size // 7_400)
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A4, pageCompression=0, invariant=1)
    for page in range(pages):
        lines = _lines(chance)
        if page == pages // 2:
            lines[10] = sentence
        canvas.setFont("Helvetica", 8)
        for number, line in enumerate(lines):
            canvas.drawString(40, 800 - _LEADING * number, line)
        canvas.showPage()
    canvas.save()
    return Planted(f"report-{seed}.pdf", buffer.getvalue(), question, sentence)

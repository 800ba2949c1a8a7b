"""What every reader of a format hands back, and how those that flow build their text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.knowledge.chunking import Heading, clean, cut_flow
from models.knowledge.passages import Cut, Unit
from storage.parsing.limits import Limits, ParseFailure

_SPACE = re.compile(r"[ \t\n]+")


@dataclass(frozen=True, slots=True)
class Document:
    """The units of a file with the cuts inside each, in reading order."""

    parts: Sequence[tuple[Unit, Sequence[Cut]]]
    page_count: int | None = None
    title: str | None = None


class Flow:
    """The text of a document without pages, written block by block, one line or more each.

    Raises ParseFailure with `too_large` once it holds more characters than the limits allow.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._blocks: list[str] = []
        self._length = 0
        self.headings: list[Heading] = []

    def block(self, text: str) -> None:
        """Add a paragraph or a row of a table."""
        text = clean(text).strip("\n ")
        if not text:
            return
        self._blocks.append(text)
        self._length += len(text) + 1
        bound_characters(self._length, self._limits)

    def heading(self, text: str, level: int) -> None:
        """Add a heading, under which all that follows stands until the next."""
        title = one_line(text)
        if title:
            self.headings.append(Heading(self._length, level, title))
            self.block(text)

    def document(self, title: str | None) -> Document:
        """The whole as one unit; raises ParseFailure with `empty_file` where there is no text."""
        text = "\n".join(self._blocks)
        if not text.strip():
            raise ParseFailure("empty_file", "The file has no text.")
        title = title or (self.headings[0].title if self.headings else None)
        unit = Unit(1, "section", title, text)
        return Document([(unit, cut_flow(unit, self.headings))], title=title)


def one_line(text: str) -> str:
    """Runs of ordinary white space as one space; a no-break space stands as it is."""
    return _SPACE.sub(" ", clean(text)).strip(" ")


def bound_characters(count: int, limits: Limits) -> None:
    """Raise ParseFailure with `too_large` for more characters than a file may hold."""
    if count > limits.characters:
        raise ParseFailure("too_large", f"The file has more than {limits.characters} characters.")

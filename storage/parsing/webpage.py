"""HTML: the text that a browser would show, in document order."""

import re
from collections.abc import Callable

from selectolax.lexbor import LexborHTMLParser, LexborNode

from storage.parsing.document import Document, Flow, one_line
from storage.parsing.limits import Limits, ParseFailure
from storage.parsing.plain import decoded

_UNSEEN = frozenset(
    """
    audio button canvas datalist embed head iframe map math noscript object script select style svg
    template textarea video
    """.split()  # noqa: SIM905  (a column of quoted words would be harder to check)
)
_INLINE = frozenset(
    """
    a abbr acronym b bdi bdo big cite code data del dfn em font i img input ins kbd label mark nobr q rb rp rt
    ruby s samp small span strike strong sub sup time tt u var wbr
    """.split()  # noqa: SIM905
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_.:-]{1,40})", re.I)
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_DECLARED_WITHIN = 4096


def read(data: bytes, limits: Limits, progress: Callable[[float], None]) -> Document:
    """Blocks as lines, headings as sections, a table's row as one line with its cells parted by tabs.

    Scripts, styles, comments and elements that say they are hidden are no part of the text: nobody who opens
    the page could see them, and they are where instructions to a model would be hidden.
    """
    declared = _CHARSET.search(data[:_DECLARED_WITHIN])
    text = decoded(data, declared.group(1).decode("ascii") if declared else None)
    if len(text) > 4 * limits.characters:
        raise ParseFailure("too_large", f"The page has more than {limits.characters} characters.")
    tree = LexborHTMLParser(text)
    progress(0.3)
    title = tree.css_first("title")
    writer = _Writer(Flow(limits))
    if tree.body is not None:
        _walk(tree.body, writer)
    writer.flush()
    return writer.flow.document(one_line(title.text()) or None if title is not None else None)


class _Writer:
    """Collects inline text until a block ends."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._inline: list[str] = []
        self._rows: list[list[str]] = []

    def enter(self, node: LexborNode, tag: str) -> None:
        if tag == "-text":
            self._inline.append(node.text_content or "")
        elif tag == "tr":
            self.flush()
            self._rows.append([])
        elif tag == "br" or tag not in _INLINE:
            self._break()

    def leave(self, tag: str) -> None:
        if tag in ("td", "th") and self._rows:
            cell = self._taken()
            if cell:
                self._rows[-1].append(cell)
        elif tag == "tr" and self._rows:
            self.flush()
            self.flow.block("\t".join(self._rows.pop()))
        elif tag in _HEADINGS and not self._rows:
            self.flow.heading(self._taken(), _HEADINGS[tag])
        elif tag not in _INLINE:
            self._break()

    def flush(self) -> None:
        """End a block: into the cell that is open, else as a line of its own."""
        text = self._taken()
        if text and self._rows:
            self._rows[-1].append(text)
        elif text:
            self.flow.block(text)

    def _break(self) -> None:
        if self._rows:
            self._inline.append(" ")
        else:
            self.flush()

    def _taken(self) -> str:
        text = one_line("".join(self._inline))
        self._inline.clear()
        return text


def _walk(root: LexborNode, writer: _Writer) -> None:
    """Visit the tree without recursion, so that no depth of nesting can exhaust the stack."""
    node: LexborNode | None = root
    open_tags: list[str] = []
    while node is not None:
        tag = node.tag or ""
        seen = tag == "-text" or not (tag.startswith(("-", "!")) or tag in _UNSEEN or _hidden(node))
        if seen:
            writer.enter(node, tag)
        below = node.child if seen and tag != "-text" else None
        if below is not None:
            open_tags.append(tag)
            node = below
            continue
        if seen and tag != "-text":
            writer.leave(tag)
        while open_tags and node is not None and node.next is None:
            node = node.parent
            writer.leave(open_tags.pop())
        node = node.next if open_tags and node is not None else None


def _hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return "hidden" in attributes or bool(_HIDING.search(attributes.get("style") or ""))

"""Word documents (DOCX), read from their XML (ECMA-376 part 1, WordprocessingML).

Read by hand for three reasons: the usual library costs a fifth of a second to import, it leaves out
tracked insertions, content controls, text boxes and footnotes, and it parses before we could refuse.
"""

from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element  # noqa: S405  (archive.py refuses what makes XML dangerous)

from storage.parsing.archive import Archive
from storage.parsing.document import Document, Flow, one_line
from storage.parsing.limits import Limits

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_PARAGRAPH, _TABLE, _ROW, _CELL = _W + "p", _W + "tbl", _W + "tr", _W + "tc"
_BOX, _TEXT, _VALUE = _W + "txbxContent", _W + "t", _W + "val"
_GONE = {  # deleted or moved text, and the copy of a drawing for old readers
    _W + "del",
    _W + "moveFrom",
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
}
_SIGNS = {_W + "tab": "\t", _W + "br": "\n", _W + "cr": "\n", _W + "noBreakHyphen": "\u2011"}
_PROPERTIES = {_W + "pPr", _W + "rPr", _W + "tblPr", _W + "trPr", _W + "tcPr", _W + "sectPr"}
_LEVELS = 9


def read(data: bytes, limits: Limits, progress: Callable[[float], None]) -> Document:
    """Paragraphs, headings and tables in document order, footnotes at the end; page furniture left out.

    A row of a table is one line, its cells parted by tabs.
    """
    archive = Archive(data, limits)
    main, root = archive.main(_W + "document")
    related = dict(archive.relations(main).values())
    levels = _heading_levels(archive.xml(related.get("styles", "")))
    flow = Flow(limits)
    progress(0.3)
    for block in _blocks(root):
        _write(block, levels, flow)
    progress(0.8)
    _write_notes([archive.xml(related.get(kind, "")) for kind in ("footnotes", "endnotes")], flow)
    return flow.document(title=None)


def _heading_levels(styles: Element | None) -> dict[str, int]:
    """Style id -> level of heading, from the style's name, its outline or what it is based on."""
    own: dict[str, int] = {}
    based: dict[str, str] = {}
    for style in styles.iter(_W + "style") if styles is not None else ():
        identifier = style.get(_W + "styleId", "")
        name = _value(style.find(_W + "name")).lower()
        outline = _value(style.find(f"{_W}pPr/{_W}outlineLvl"))
        based[identifier] = _value(style.find(_W + "basedOn"))
        if name == "title":
            own[identifier] = 1
        elif name.startswith("heading ") and name[8:].isdecimal():
            own[identifier] = int(name[8:])
        elif outline.isdecimal() and int(outline) < _LEVELS:
            own[identifier] = int(outline) + 1
    levels: dict[str, int] = {}
    for identifier in based:
        ancestor = identifier
        for _ in range(_LEVELS):  # a chain of styles may be a circle
            if ancestor in own:
                levels[identifier] = own[ancestor]
                break
            ancestor = based.get(ancestor, "")
    return levels


def _blocks(node: Element) -> Iterator[Element]:
    """Paragraphs and tables below a node, through content controls and tracked changes."""
    for child in node:
        if child.tag in (_PARAGRAPH, _TABLE):
            yield child
        elif child.tag not in _GONE and child.tag not in _PROPERTIES:
            yield from _blocks(child)


def _write(block: Element, levels: dict[str, int], flow: Flow) -> None:
    if block.tag == _TABLE:
        for row in _children(block, _ROW):
            cells = [one_line(_text_of(cell)) for cell in _children(row, _CELL)]
            flow.block("\t".join(cells).rstrip("\t"))
        return
    text = "".join(_runs(block))
    level = _level(block, levels)
    if level:
        flow.heading(text, level)
    else:
        flow.block(text)
    for box in _boxes(block):
        for inner in _blocks(box):
            _write(inner, levels, flow)


def _write_notes(parts: list[Element | None], flow: Flow) -> None:
    notes = [note for part in parts if part is not None for note in part if not note.get(_W + "type")]
    texts = [text for text in map(_text_of, notes) if text.strip()]
    if texts:
        flow.heading("Notes", 1)
    for text in texts:
        flow.block(text)


def _children(node: Element, tag: str) -> Iterator[Element]:
    """The nearest descendants with a tag, so that an inner table's rows stay in its own cell."""
    for child in node:
        if child.tag == tag:
            yield child
        elif child.tag not in _GONE and child.tag not in _PROPERTIES:
            yield from _children(child, tag)


def _text_of(node: Element) -> str:
    """All the paragraphs below a node, those of inner tables too."""
    lines: list[str] = []
    for block in _blocks(node):
        if block.tag == _TABLE:
            lines += [_text_of(cell) for row in _children(block, _ROW) for cell in _children(row, _CELL)]
        else:
            lines.append("".join(_runs(block)))
    return "\n".join(lines)


def _runs(node: Element) -> Iterator[str]:
    for child in node:
        if child.tag == _TEXT:
            yield child.text or ""
        elif child.tag in _SIGNS:
            yield _SIGNS[child.tag]
        elif child.tag not in _GONE and child.tag not in _PROPERTIES and child.tag != _BOX:
            yield from _runs(child)


def _boxes(node: Element) -> Iterator[Element]:
    for child in node:
        if child.tag == _BOX:
            yield child
        elif child.tag not in _GONE:
            yield from _boxes(child)


def _level(paragraph: Element, levels: dict[str, int]) -> int | None:
    outline = _value(paragraph.find(f"{_W}pPr/{_W}outlineLvl"))
    if outline.isdecimal():
        return int(outline) + 1 if int(outline) < _LEVELS else None
    return levels.get(_value(paragraph.find(f"{_W}pPr/{_W}pStyle")))


def _value(node: Element | None) -> str:
    return "" if node is None else node.get(_VALUE, "")

"""Office files are zip archives of XML: open them so that neither layer can be used as a weapon.

Everything is judged from the archive's directory before a byte is expanded, and each part is searched
for a document type before an XML parser sees it: without a document type there are no entities, hence
neither expansion (billion laughs) nor a look at other files (XXE). Parts are parsed as UTF-8 whatever
they declare, so that no other encoding can hide one.
"""

import io
import posixpath
import xml.etree.ElementTree as ElementTree  # noqa: S405  (document types are refused before it parses)
import zipfile
import zlib
from collections.abc import Iterator
from xml.etree.ElementTree import Element  # noqa: S405

from storage.parsing.limits import Limits, ParseFailure

_RELATION = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"
_STRICT = b"http://purl.oclc.org/ooxml/"
_TRANSITIONAL = b"http://schemas.openxmlformats.org/"
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"<\x00": "utf-16-le", b"\x00<": "utf-16-be"}


class Archive:
    """An Office file whose size, ratio and number of entries are within the limits.

    Raises ParseFailure: `too_large` beyond a limit, `encrypted_file` for entries behind a password,
    `invalid_file` for an archive or a part that is damaged or carries a document type.
    """

    def __init__(self, data: bytes, limits: Limits) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise ParseFailure("invalid_file", "The archive inside the file is damaged.") from error
        entries = self._zip.infolist()
        expanded = sum(entry.file_size for entry in entries)
        if len(entries) > limits.archive_entries:
            raise ParseFailure("too_large", f"The archive has more than {limits.archive_entries} entries.")
        if expanded > limits.archive_bytes:
            raise ParseFailure("too_large", f"The file expands to more than {limits.archive_bytes} bytes.")
        if expanded > limits.archive_free_bytes and expanded > limits.archive_ratio * len(data):
            raise ParseFailure("too_large", f"The file expands more than {limits.archive_ratio} times.")
        if any(entry.flag_bits & 1 for entry in entries):
            raise ParseFailure("encrypted_file", "The document is protected with a password.")
        self.names = frozenset(entry.filename for entry in entries)

    def xml(self, name: str) -> Element | None:
        """The root of an XML part; None where the archive has no such part."""
        data = self._part(name)
        if data is None:
            return None
        parser = ElementTree.XMLParser(encoding="utf-8")  # noqa: S314  (no document type, hence no entities)
        try:
            parser.feed(data)
            root: Element = parser.close()
        except (ElementTree.ParseError, ValueError) as error:
            raise _improper(name) from error
        return root

    def stream(self, name: str, tag: str) -> Iterator[Element]:
        """The elements called `tag` of a large part, one at a time; each is emptied once it was used."""
        data = self._part(name)
        parser = ElementTree.XMLParser(encoding="utf-8")  # noqa: S314  (no document type, hence no entities)
        events = ElementTree.iterparse(io.BytesIO(data or b""), ("end",), parser)  # noqa: S314
        try:
            for _, element in events:
                if element.tag == tag:
                    yield element
                    element.clear()
        except (ElementTree.ParseError, ValueError) as error:
            raise _improper(name) from error

    def _part(self, name: str) -> bytes | None:
        """An XML part in UTF-8 and without a document type."""
        if name not in self.names:
            return None
        try:
            data = self._zip.read(name)
        except _UNREADABLE as error:
            raise ParseFailure("invalid_file", f"The part {name} of the file is damaged.") from error
        encoding = _UTF16.get(data[:2])
        if encoding is not None:
            data = data.decode(encoding, "replace").encode("utf-8", "replace")
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise ParseFailure("invalid_file", f"The part {name} declares a document type, which is refused.")
        if _STRICT in data:
            # The strict edition of the format differs in the names of its namespaces alone.
            data = data.replace(_STRICT + b"officeDocument/", _TRANSITIONAL + b"officeDocument/2006/")
            for family in (b"wordprocessingml", b"spreadsheetml"):
                data = data.replace(_STRICT + family + b"/", _TRANSITIONAL + family + b"/2006/")
        return data

    def main(self, tag: str) -> tuple[str, Element]:
        """The part that holds the document, and its root, which must be a `tag`."""
        for kind, name in self.relations("").values():
            if kind == "officeDocument":
                root = self.xml(name)
                if root is not None and root.tag == tag:
                    return name, root
        raise ParseFailure("invalid_file", "The file is not the kind of Office document that it should be.")

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """What a part refers to inside the archive: id -> (kind, name of the part)."""
        folder, base = posixpath.split(part)
        root = self.xml(posixpath.join(folder, "_rels", base + ".rels"))
        found: dict[str, tuple[str, str]] = {}
        for relation in root.iter(_RELATION) if root is not None else ():
            if relation.get("TargetMode") == "External":
                continue
            target = posixpath.normpath(posixpath.join("/", folder, relation.get("Target", ""))).lstrip("/")
            found[relation.get("Id", "")] = (relation.get("Type", "").rsplit("/", 1)[-1], target)
        return found


def _improper(name: str) -> ParseFailure:
    return ParseFailure("invalid_file", f"The part {name} of the file is not proper XML.")

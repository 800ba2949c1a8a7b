"""The body of an answer, as its bytes come: server-sent events, or one JSON document.

Events are those of WHATWG HTML, section 9.2; their data are JSON, ended by `data: [DONE]`.
"""

from __future__ import annotations

import codecs
from typing import Any, Final

import orjson

from models.chat.ports import Finished, Prompt, ProviderError, ReplyPart, UsageReport, estimated_usage
from storage.providers.faults import reported, without_text

MAX_BODY: Final = 2 * 1024 * 1024
"""Bytes of one event, or of a whole answer that is not streamed."""
MAX_REPLY: Final = 4 * 1024 * 1024
"""Characters of a reply: a server that goes on for ever is stopped."""


class Reply:
    """Reads the bytes of an answer: events, or one JSON document from a server that does not stream.

    `ended` says that nothing more is to be read: the reply is whole, or `fault` says what is wrong with it.
    A fault is kept, not raised, so that the text which came before it is not lost.
    """

    def __init__(self) -> None:
        self.ended = False
        self.fault: ProviderError | None = None
        self.events = 0
        self._pieces: list[str] = []
        self._length = 0
        self._fresh: list[str] = []
        self._tail = b""
        self._data: list[bytes] = []
        self._document: bool | None = None
        self._finish: str | None = None
        self._usage: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._pieces)

    @property
    def begun(self) -> bool:
        """Whether there is text."""
        return bool(self._pieces)

    def feed(self, data: bytes) -> str:
        """Take bytes as they came off the wire; the text that they complete."""
        if self._tail:
            data = self._tail + data
        if self._document is None:
            self._sniff(data)
        if self._document:
            self._tail = data
        else:
            lines = data.split(b"\n")
            self._tail = lines.pop()
            self._read(lines)
        if len(self._tail) > MAX_BODY:
            self._broken("The provider sent too much at once.")
        return self._taken()

    def _sniff(self, data: bytes) -> None:
        """Servers label their answers wrongly; the first character tells."""
        start = data.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        if start == b"<":
            self._broken("The provider answered with a web page.")
        elif start:
            self._document = start == b"{"

    def _read(self, lines: list[bytes]) -> None:
        """Lines of the stream. An empty one ends an event; comments and other fields say nothing to us."""
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif self._data and not line.rstrip(b"\r"):
                data = b"\n".join(self._data).strip()
                self._data.clear()
                if data == b"[DONE]":
                    self.ended = True
                else:
                    self._event(data)
            if self.ended:
                return

    def close(self) -> str:
        """The body is over; the text that was still to come. A reply that is not whole gets its fault."""
        if self._document:
            self._event(self._tail)
        elif self._tail.strip() in (b"data: [DONE]", b"data:[DONE]"):
            self.ended = True
        if not self.ended and self._finish is None:
            if self._pieces:
                self.fault = ProviderError("provider_interrupted", "The provider ended the reply half way.")
            elif self.events and not self._document:
                self.fault = ProviderError("provider_unavailable", "The provider hung up before it replied.")
            elif not self._fresh:
                self._broken("The provider's answer holds no reply.")
        self.ended = True
        return self._taken()

    def ending(self, prompt: Prompt) -> list[ReplyPart]:
        """What follows the last text: usage, counted by the server or estimated, and why the reply ended."""
        usage = UsageReport(*self._usage, "provider") if self._usage else estimated_usage(prompt, self.text)
        return [usage, Finished(self._finish or "stop")]

    def _taken(self) -> str:
        text = "".join(self._fresh)
        if text:
            self._pieces.append(text)
            self._length += len(text)
            self._fresh.clear()
            if self._length > MAX_REPLY and not self.ended:
                self._broken("The reply does not end.")
        if self.ended and self.fault is None and not self._pieces:
            self.fault = without_text(self._finish)
        return text

    def _broken(self, detail: str) -> None:
        self.fault, self.ended = ProviderError("provider_malformed", detail), True

    def _event(self, data: bytes) -> None:
        """One JSON object: a chunk, a whole completion, an error, or something that we need not know."""
        self.events += 1
        try:
            event = orjson.loads(data)
            if error := event.get("error"):
                self.fault, self.ended = reported(error), True
                return
            if choices := event.get("choices"):
                choice = choices[0]
                text = (choice.get("delta") or choice.get("message") or {}).get("content")
                if text:
                    # NUL is the one character that PostgreSQL cannot keep, and no text needs it.
                    self._fresh.append(text.replace("\0", ""))
                self._finish = choice.get("finish_reason") or self._finish
            if usage := event.get("usage"):
                self._usage = _counted(usage)
        except (ValueError, TypeError, AttributeError, LookupError):
            self._broken("The provider sent an event that is not of a chat completion.")


def _counted(usage: dict[str, Any]) -> tuple[int, int] | None:
    """The server's counts, if they are counts."""
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    whole = all(type(count) is int and 0 <= count < 2**31 for count in counts)
    return counts if whole else None  # type: ignore[return-value]  # checked in the line above

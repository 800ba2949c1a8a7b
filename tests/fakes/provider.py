"""A provider on loopback that speaks OpenAI's chat completions, embeddings, models and moderations over HTTP.

    with FakeProvider() as fake:
        client = AsyncOpenAI(base_url=fake.base_url, api_key="any")

or, for benchmarks, as a process of its own: `python -m tests.fakes.provider --port 9100`.

How it answers is chosen per request, later ones winning: `fake.behaviour("slow", first=0.2)` for a model's
name, a query behind the model's name (`any?tokens=50&gap=0.01`), a marker in the last user message
(`[[tokens=3&cut=2]]`), words in it (`fake.when("Last question", text="...")`). `Behaviour` lists what can
be asked for.

One asyncio protocol, no task per stream and no parsing beyond what these requests need: it shares a core with
the server under test, so each token should cost it little more than the write to the socket.
"""

import argparse
import asyncio
import base64
import hashlib
import re
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import parse_qsl

import orjson
import uvloop

from tests import canary

WORDS = (
    "revenue",
    "rose",
    "by",
    "12",
    "per",
    "cent",
    "as",
    "new",
    "stores",
    "opened",
    "and",
    "prices",
    "held",
    "so",
)
MARKER = re.compile(r"\[\[([a-z_]+=[^\]]*)\]\]")
NEVER = -1


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a reply looks like. Counts are in tokens; seconds are seconds; `NEVER` switches a fault off."""

    tokens: int = 8
    text: str = ""  # this reply, cut before its blanks, instead of `tokens` words
    first: float = 0.0  # seconds before the first token
    gap: float = 0.0  # seconds between tokens; 0 writes the whole reply at once
    status: int = 0  # answer with this error status
    failures: int = 0  # only for the first so many calls of this model (0: for all)
    retry_after: str = ""  # the header of that error
    message: str = "The fake was told to fail."  # the message of that error
    answer: str = "stream"  # or json, html, redirect, empty, gzip: what a request for a stream gets
    location: str = "/v1/elsewhere"  # where `redirect` points
    silent: bool = False  # take the request and never answer
    hang: int = NEVER  # after so many tokens send no more
    cut: int = NEVER  # after so many tokens close the connection
    end: int = NEVER  # after so many tokens end the body in due form, with no finish reason and no [DONE]
    malformed: int = NEVER  # after so many tokens send a line that is not JSON
    error: int = NEVER  # after so many tokens send an error object
    refuse: str = ""  # answer 400 when the body holds this parameter
    usage: bool = True  # report usage when asked to
    done: bool = True  # end with [DONE]
    finish: str = "stop"  # the finish reason
    weight: float = 1.0  # how many tokens it counts a word of the prompt for
    context: int = 0  # answer 400 to a prompt of more tokens
    echo: bool = False  # reply with the last user message
    cite: int = 0  # cite [1] to [n]
    reasoning: int = 0  # so many reasoning deltas before the text
    comments: int = 0  # so many comment lines before the text
    chatter: bool = False  # while it hangs, send comment lines
    crlf: bool = False  # lines end in CR LF
    split: bool = False  # every byte is written alone, `gap` apart

    def asked(self, query: str) -> "Behaviour":
        """This behaviour with the changes of a query string. An unknown name is an error of the test."""
        kinds = {item.name: type(getattr(self, item.name)) for item in fields(self)}
        changes: dict[str, Any] = {}
        for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=True):
            changes[name] = value.lower() in {"1", "true"} if kinds[name] is bool else kinds[name](value)
        return replace(self, **changes)


@dataclass(slots=True, eq=False)
class Recorded:
    """A request as it came, and what became of it. Times are `time.monotonic()`."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    changed: threading.Condition = field(repr=False)
    received_at: float = field(default_factory=time.monotonic)
    finished_at: float | None = None
    disconnected_at: float | None = None
    tokens_sent: int = 0

    def wait_disconnected(self, timeout: float = 5.0) -> float:
        """Block until the client has left in the middle of the reply; the moment it was noticed."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.disconnected_at is not None, timeout):
                raise TimeoutError("the client is still connected")
        assert self.disconnected_at is not None
        return self.disconnected_at


class FakeProvider:
    """The server, in a thread with a loop of its own. `key` makes it refuse any other credential with 401."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, key: str = "", record: bool = True) -> None:
        self.host, self.port, self.key, self.record = host, port, key, record
        self.requests: list[Recorded] = []
        self.changed = threading.Condition()
        self.calls: Counter[str] = Counter()
        self.connections = 0
        self.tokens_sent = 0
        self.streams_open = 0
        self.streams_left = 0
        self._behaviours: dict[str, Behaviour] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._live: set[_Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL."""
        return f"http://{self.host}:{self.port}/v1"

    def behaviour(self, model: str = "", /, **changes: Any) -> None:
        """From now on answer requests for this model (every model when empty) like this."""
        self._behaviours[model] = replace(self._behaviours.get(model, Behaviour()), **changes)

    def when(self, words: str, /, **changes: Any) -> None:
        """From now on answer like this where these words stand in the last user message."""
        self._told[words] = changes

    def chosen(self, model: str, question: str) -> Behaviour:
        """The behaviour for a request, by model name, query behind it and marker in the question."""
        name, _, query = model.partition("?")
        found = self._behaviours.get(name) or self._behaviours.get("", Behaviour())
        if query:
            found = found.asked(query)
        for marker in MARKER.findall(question):
            found = found.asked(marker)
        for words, changes in self._told.items():
            if words in question:
                found = replace(found, **changes)
        return found

    def wait_for(self, happened: Callable[[], bool], timeout: float = 5.0) -> None:
        """Block until `happened()`, looked at whenever a request comes, ends or loses its client."""
        with self.changed:
            if not self.changed.wait_for(happened, timeout):
                raise TimeoutError("it did not happen")

    def wait_requests(self, count: int, timeout: float = 5.0) -> list[Recorded]:
        """Block until so many requests have come; all of them."""
        self.wait_for(lambda: len(self.requests) >= count, timeout)
        return self.requests

    def forget(self) -> None:
        """Drop the records, the call counts and the behaviours."""
        with self.changed:
            self.requests.clear()
            self.calls.clear()
            self._behaviours.clear()
            self._told.clear()

    def drop_connections(self) -> None:
        """Close every connection at once, idle ones too, as a restart of the provider would."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(5)

    async def _drop(self) -> None:
        for connection in list(self._live):
            connection.transport.abort()

    async def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Listen until cancelled, in the running loop."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self, loop), self.host, self.port, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            await self._drop()

    def __enter__(self) -> Self:
        started = threading.Event()

        def run() -> None:
            async def main() -> None:
                self._loop = asyncio.get_running_loop()
                self._serving = asyncio.current_task()
                await self.serve(started.set)

            try:
                asyncio.run(main())
            except asyncio.CancelledError:
                return  # __exit__ ends the server in this way
            finally:
                started.set()

        self._thread = threading.Thread(target=run, name="fake-provider", daemon=True)
        self._thread.start()
        started.wait(5)
        assert self.port, "the fake provider did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._serving is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(5)


class _Connection(asyncio.Protocol):
    """One keep-alive connection: reads a request, writes its reply, reads the next."""

    transport: asyncio.Transport

    def __init__(self, fake: FakeProvider, loop: asyncio.AbstractEventLoop) -> None:
        self.fake, self.loop = fake, loop
        self.buffer = bytearray()
        self.request: Recorded | None = None
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass of it
        self.fake.connections += 1
        self.fake._live.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.fake._live.discard(self)
        if self.timer:
            self.timer.cancel()
        if self.request:
            with self.fake.changed:
                self.request.disconnected_at = time.monotonic()
                self.fake.streams_left += 1
                self.fake.streams_open -= 1
                self.fake.changed.notify_all()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.request is None:
            self.read_request()

    def read_request(self) -> None:
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        first, *lines = self.buffer[:head_end].decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (li.partition(":") for li in lines)
        }
        body_end = head_end + 4 + int(headers.get("content-length", 0))
        if len(self.buffer) < body_end:
            return
        content = bytes(self.buffer[head_end + 4 : body_end])
        del self.buffer[:body_end]
        canary.overhear(content, f"the provider was sent {method} {path}", serves_all=True)
        body = orjson.loads(content) if content else None
        request = Recorded(method, path, headers, body, self.fake.changed)
        with self.fake.changed:
            self.request = request
            self.fake.streams_open += 1
            if self.fake.record:
                self.fake.requests.append(request)
            self.fake.changed.notify_all()
        self.answer(request)

    def answer(self, request: Recorded) -> None:
        path = request.path.partition("?")[0].removeprefix("/v1")
        if path == "/stats":
            self.send(200, self.stats())
        elif self.fake.key and request.headers.get("authorization") != f"Bearer {self.fake.key}":
            self.fail(
                401, f"Incorrect API key provided: {request.headers.get('authorization')}", "invalid_api_key"
            )
        elif path == "/models":
            data = [{"id": name, "object": "model"} for name in ("fake-small", "fake-large")]
            self.send(200, {"object": "list", "data": data})
        elif path == "/chat/completions":
            self.chat(request)
        elif path == "/embeddings":
            self.send(200, embeddings(request.body))
        elif path == "/moderations":
            self.send(200, moderations(request.body))
        else:
            self.fail(404, f"Nothing at {path}.", "not_found")

    def stats(self) -> dict[str, float]:
        """Counters for benchmarks; `cpu_seconds` is that of this process."""
        return {
            "cpu_seconds": time.process_time(),
            "tokens_sent": self.fake.tokens_sent,
            "connections": self.fake.connections,
            "streams_open": self.fake.streams_open - 1,  # this request is one
            "streams_left": self.fake.streams_left,
        }

    # -- whole answers

    def send(
        self, status: int, body: Any, kind: str = "application/json", extra: str = "", *, close: bool = False
    ) -> None:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        head = (
            f"HTTP/1.1 {status} Fake\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n{extra}\r\n"
        )
        self.transport.write(head.encode() + content)
        if close:
            self.transport.close()
        self.done()

    def fail(self, status: int, message: str, code: str, param: str | None = None, extra: str = "") -> None:
        error = {"message": message, "type": "fake_error", "param": param, "code": code}
        self.send(status, {"error": error}, extra=extra)

    def done(self) -> None:
        """The reply is written: this connection may carry the next request."""
        assert self.request is not None
        with self.fake.changed:
            self.request.finished_at = time.monotonic()
            self.request = None
            self.fake.streams_open -= 1
            self.fake.changed.notify_all()
        if self.buffer:
            self.read_request()

    # -- chat completions

    def chat(self, request: Recorded) -> None:
        body = request.body
        model = body["model"]
        question = next((m["content"] for m in reversed(body["messages"]) if m["role"] == "user"), "")
        how = self.fake.chosen(model, question)
        self.fake.calls[model] += 1
        if how.silent:
            return
        if how.refuse and how.refuse in body:
            self.fail(400, f"Unknown parameter: '{how.refuse}'.", "unknown_parameter", how.refuse)
            return
        if how.status and (not how.failures or self.fake.calls[model] <= how.failures):
            extra = f"Retry-After: {how.retry_after}\r\n" if how.retry_after else ""
            self.fail(how.status, how.message, "told_to_fail", extra=extra)
            return
        told = prompt_tokens(body, how.weight)
        if how.context and told > how.context:
            self.fail(400, f"The prompt has {told} tokens.", "context_length_exceeded")
            return
        words = reply_words(how, question, body.get("max_tokens") or body.get("max_completion_tokens"))
        usage = {"prompt_tokens": told, "completion_tokens": len(words)}
        usage["total_tokens"] = sum(usage.values())
        if how.answer == "html":
            self.send(200, b"<!doctype html><title>Sign in</title>", "text/html")
        elif how.answer == "redirect":
            self.send(307, b"", extra=f"Location: {how.location}\r\n")
        elif how.answer == "empty":
            self.send(200, b"", "text/event-stream")
        elif how.answer == "gzip":
            self.send(200, b"\x1f\x8b not really", "text/event-stream", "Content-Encoding: gzip\r\n")
        elif how.answer == "json" or not body.get("stream"):
            self.later(
                how.first, lambda: self.send(200, completion(model, words, how, usage if how.usage else None))
            )
        else:
            asked = bool((body.get("stream_options") or {}).get("include_usage"))
            _Stream(self, request, how, model, words, usage if how.usage and asked else None).start()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        if seconds <= 0:
            act()
        else:
            self.timer = self.loop.call_later(seconds, act)


class _Stream:
    """One streamed reply: a chain of timers that write prepared frames."""

    def __init__(
        self,
        connection: _Connection,
        request: Recorded,
        how: Behaviour,
        model: str,
        words: list[str],
        usage: dict[str, int] | None,
    ) -> None:
        self.connection, self.request, self.how = connection, request, how
        self.words, self.usage = words, usage
        self.frame = _Frames(model, "\r\n" if how.crlf else "\n")
        self.sent = 0

    def start(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        opening = [self.frame.comment()] * self.how.comments
        opening.append(self.frame.delta({"role": "assistant", "content": ""}))
        opening += [self.frame.delta({"reasoning_content": "hm"})] * self.how.reasoning
        self.write(head, raw=True)
        self.write(b"".join(opening))
        self.next_at = self.connection.loop.time() + self.how.first
        self.connection.later(self.how.first, self.step)

    def write(self, data: bytes, *, raw: bool = False) -> None:
        if data:
            self.connection.transport.write(data if raw else b"%x\r\n%b\r\n" % (len(data), data))

    def step(self) -> None:
        """Write what is due: one token, or all of them when there is no gap."""
        how = self.how
        frames: list[bytes] = []
        while True:
            if self.sent == how.hang:
                self.flush(frames)
                if how.chatter:
                    self.chatter()
                return
            if self.sent == how.cut:
                self.flush(frames)
                self.connection.transport.close()
                self.connection.done()
                return
            if self.sent == how.end:
                self.finish(frames)
                return
            if self.sent == how.malformed:
                self.finish([*frames, self.frame.data(b'{"choices": [{"delta": {"content": "half')])
                return
            if self.sent == how.error:
                error = b'{"error": {"message": "overloaded, sorry", "type": "server_error", "code": null}}'
                self.finish([*frames, self.frame.data(error)])
                return
            if self.sent >= len(self.words):
                self.finish(frames + self.ending())
                return
            frames.append(self.frame.token(self.words[self.sent]))
            self.sent += 1
            if how.gap and not how.split:
                break
        self.flush(frames)
        self.next_at += how.gap
        self.connection.timer = self.connection.loop.call_at(self.next_at, self.step)

    def chatter(self) -> None:
        self.write(self.frame.comment())
        self.connection.later(0.02, self.chatter)

    def flush(self, frames: list[bytes]) -> None:
        self.connection.fake.tokens_sent += self.sent - self.request.tokens_sent
        self.request.tokens_sent = self.sent
        self.write(b"".join(frames))

    def ending(self) -> list[bytes]:
        frames = [self.frame.chunk([{"index": 0, "delta": {}, "finish_reason": self.how.finish}])]
        if not self.how.finish:
            frames = []
        if self.usage:
            frames.append(self.frame.chunk([], usage=self.usage))
        if self.how.done:
            frames.append(self.frame.data(b"[DONE]"))
        return frames

    def finish(self, frames: list[bytes]) -> None:
        if self.how.split:
            self.drip(b"".join(frames))
            return
        self.flush(frames)
        self.write(b"0\r\n\r\n", raw=True)
        self.connection.done()

    def drip(self, data: bytes) -> None:
        """Write byte for byte, so that a reader meets every place where a packet may end."""
        self.write(data[:1])
        if data:
            self.connection.timer = self.connection.loop.call_later(self.how.gap, self.drip, data[1:])
        else:
            self.write(b"0\r\n\r\n", raw=True)
            self.connection.done()


_KEPT: dict[tuple[str, str, str], bytes] = {}


class _Frames:
    """Builds the server-sent events of one reply; frames of the stock words are kept for all."""

    def __init__(self, model: str, newline: str) -> None:
        self.model, self.newline = model, newline

    def data(self, payload: bytes) -> bytes:
        line = self.newline.encode()
        return b"data: " + payload + line + line

    def comment(self) -> bytes:
        return f": still thinking{self.newline}{self.newline}".encode()

    def chunk(self, choices: list[Any], **more: Any) -> bytes:
        head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": self.model}
        return self.data(orjson.dumps({**head, "choices": choices, **more}))

    def delta(self, delta: dict[str, str]) -> bytes:
        return self.chunk([{"index": 0, "delta": delta, "finish_reason": None}])

    def token(self, word: str) -> bytes:
        key = (self.model, self.newline, word)
        frame = _KEPT.get(key)
        if frame is None:
            frame = self.delta({"content": word})
            if len(_KEPT) < 10_000:
                _KEPT[key] = frame
        return frame


def reply_words(how: Behaviour, question: str, limit: int | None) -> list[str]:
    """The reply, cut before its blanks; joined it is the reply."""
    text = MARKER.sub("", question) if how.echo else how.text
    if text:
        words = re.findall(r"\s*\S+\s*$|\s*\S+", text)
    else:
        words = [WORDS[0], *(f" {WORDS[i % len(WORDS)]}" for i in range(1, how.tokens))][: how.tokens]
    words += [f" [{number}]" for number in range(1, how.cite + 1)]
    return words[:limit]


def prompt_tokens(body: dict[str, Any], weight: float = 1.0) -> int:
    """A count that a test can repeat: the blanks-separated words of all messages, so many tokens each."""
    return round(weight * sum(len(message["content"].split()) for message in body["messages"]))


def completion(model: str, words: list[str], how: Behaviour, usage: dict[str, int] | None) -> dict[str, Any]:
    """The reply as one JSON document."""
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": how.finish}
    body = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
    }
    return body | {"usage": usage} if usage else body


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """A vector for each text: a signed bag of hashed words, so that texts which share words lie near."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    size = body.get("dimensions") or 256
    data = []
    for index, text in enumerate(texts):
        vector = [0.0] * size
        for word in re.findall(r"\w+", text.lower()):
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            vector[int.from_bytes(digest[:4], "big") % size] += 1.0 if digest[4] & 1 else -1.0
        length = sum(value * value for value in vector) ** 0.5 or 1.0
        vector = [value / length for value in vector]
        packed: Any = vector
        if body.get("encoding_format") == "base64":
            packed = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": packed})
    count = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


def moderations(body: dict[str, Any]) -> dict[str, Any]:
    """Flags, as violence, each text that holds the word `flagged`."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    results = []
    for text in texts:
        flagged = "flagged" in text.lower()
        scores = {"violence": 0.99 if flagged else 0.01}
        results.append({"flagged": flagged, "categories": {"violence": flagged}, "category_scores": scores})
    return {"id": "modr-fake", "model": body.get("model", "fake-moderation"), "results": results}


def main() -> None:
    """Serve until interrupted, keeping no record of requests; the first line printed is the base URL."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.provider", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    fake = FakeProvider(host=options.host, port=options.port, record=False)
    with suppress(KeyboardInterrupt):  # the way to end it
        uvloop.run(fake.serve(lambda: print(fake.base_url, flush=True)))


if __name__ == "__main__":
    main()

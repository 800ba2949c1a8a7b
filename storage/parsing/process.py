"""Reading a file in a process of its own, so that no file can hurt, stall or fill the server."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from models.knowledge.passages import Cut, Parsed, Unit, UnitKind, assemble
from storage.parsing.limits import FAILURE_CODES, Limits, ParseFailure

_ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from storage.parsing.child import main; main()"
_BLOCK = 1 << 18
_BYTES_PER_CHARACTER = 12  # JSON writes one beyond the BMP as two escapes of six
_NAME_CHARACTERS = 255
_QUIET_SECONDS = 0.5
_OVERHEAD = 64 * 1024**2
_OUT_OF_TIME = (signal.SIGXCPU, signal.SIGALRM)


def parse(
    path: Path,
    name: str,
    limits: Limits = Limits(),  # noqa: B008  (immutable)
    on_progress: Callable[[float], None] | None = None,
) -> Parsed:
    """The units and passages of the file at `path`, which its owner calls `name`.

    `on_progress` is called with fractions from 0 to 1 that never fall, and twice a second also while nothing
    moves, so that it can end the reading of a single monstrous page. Raises ParseFailure and nothing
    else for whatever is wrong with the file; an OSError tells that `path` cannot be opened, and what
    `on_progress` raises ends the reading. The child is gone when this returns, in every case.
    """
    # Only the name's end matters, and as JSON it is an argument whatever characters it has.
    described = [json.dumps(name[-_NAME_CHARACTERS:]), json.dumps(asdict(limits))]
    with path.open("rb") as source:
        child = subprocess.Popen(  # noqa: S603  (our own interpreter and module; the name is no shell's)
            [sys.executable, "-I", "-c", _START, _ROOT, *described],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
    try:
        return _assembled(_lines(child, limits), on_progress or (lambda fraction: None))
    except _Ended:
        raise _cause_of_death(child) from None
    finally:
        if child.stdout is not None:
            child.stdout.close()
        child.kill()
        child.wait()


class _Ended(Exception):
    """The child stopped before it said how the reading went."""


def _lines(child: "subprocess.Popen[bytes]", limits: Limits) -> Iterator[dict[str, Any]]:
    """The child's answers, until the time is over."""
    if child.stdout is None:
        raise _Ended
    pipe = child.stdout.fileno()
    deadline = time.monotonic() + limits.wall_seconds
    left = limits.characters * _BYTES_PER_CHARACTER + _OVERHEAD
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN | select.POLLHUP)
    pending: list[bytes] = []
    while True:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise ParseFailure(
                "timeout", f"Reading the file took longer than {limits.wall_seconds:g} seconds."
            )
        if not waiting.poll(min(seconds, _QUIET_SECONDS) * 1000):
            yield {"progress": 0.0}  # nothing new, but whoever listens may want to end it
            continue
        block = os.read(pipe, _BLOCK)
        if not block:
            raise _Ended
        left -= len(block)
        if left < 0:
            raise ParseFailure("too_large", "The file has more text than one file may have.")
        head, newline, rest = block.partition(b"\n")
        while newline:
            yield _decoded(b"".join([*pending, head]))
            pending = []
            head, newline, rest = rest.partition(b"\n")
        pending.append(head)


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise _untrusted() from error
    if not isinstance(answer, dict):
        raise _untrusted()
    return answer


def _assembled(lines: Iterator[dict[str, Any]], on_progress: Callable[[float], None]) -> Parsed:
    """The document that the answers describe; nothing in them is believed that was not looked at."""
    parts: list[tuple[Unit, list[Cut]]] = []
    told = 0.0
    for answer in lines:
        if "progress" in answer:
            told = max(told, min(1.0, float(answer["progress"])))
            on_progress(told)
        elif "failure" in answer:
            code, detail = answer["failure"]
            raise ParseFailure(code if code in FAILURE_CODES else "invalid_file", str(detail))
        else:
            try:
                if "unit" in answer:
                    parts.append((_unit(answer["unit"]), [_cut(cut) for cut in answer["cuts"]]))
                    continue
                page_count, media_type, title = answer["done"]
                return assemble(parts, page_count=page_count, media_type=media_type, title=title)
            except (KeyError, TypeError, ValueError) as error:
                raise _untrusted() from error
    raise _Ended


def _unit(fields: list[Any]) -> Unit:
    number, kind, title, text = fields
    if type(number) is not int or kind not in get_args(UnitKind) or not isinstance(text, str):
        raise ValueError("not a unit")
    return Unit(number, kind, _optional(title), text)


def _cut(fields: list[Any]) -> Cut:
    start, end, context, cell, heading = fields
    if type(start) is not int or type(end) is not int or not isinstance(context, str):
        raise ValueError("not a cut")
    return Cut(start, end, context, _optional(cell), _optional(heading))


def _optional(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _cause_of_death(child: "subprocess.Popen[bytes]") -> ParseFailure:
    code = child.wait()
    if -code in _OUT_OF_TIME:
        return ParseFailure("timeout", "Reading the file took more processor time than one file may take.")
    if -code == signal.SIGKILL:
        return ParseFailure(
            "too_large", "Reading the file was ended from outside, likely for want of memory."
        )
    return ParseFailure("invalid_file", f"The file made its reader stop (code {code}).")


def _untrusted() -> ParseFailure:
    return ParseFailure("invalid_file", "The file made its reader give an answer that makes no sense.")

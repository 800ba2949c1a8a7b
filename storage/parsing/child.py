"""The process that reads one file: it gets the file as standard input and writes JSON lines.

It gives up its rights before it looks at the file: limits on memory, processor time and files, a low
priority, and an alarm that ends it even when its parent is gone. Readers are imported when their format
is known, since imports are most of the time that a small file takes.

Lines: `{"progress": 0.5}`; then for each unit `{"unit": [number, kind, title, text], "cuts": [[start, end,
context, cell, heading], ...]}`; last
`{"done": [page_count, media_type, title]}`, or `{"failure": [code, detail]}`.
"""

import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from storage.parsing.kinds import SPREADSHEET, WORD, media_type
from storage.parsing.limits import Limits, ParseFailure

_READERS = {
    "application/pdf": ("pdf", "read"),
    WORD: ("word", "read"),
    SPREADSHEET: ("spreadsheet", "read"),
    "text/html": ("webpage", "read"),
    "text/csv": ("plain", "read_csv"),
    "text/markdown": ("plain", "read_markdown"),
    "text/plain": ("plain", "read_text"),
}
_NICENESS = 10
_STEP = 0.02  # progress is told in steps, so that it costs nothing
_GRACE_SECONDS = 5


def main() -> None:
    """Read standard input as the file that the arguments describe, and answer on standard output."""
    name, bounds = (json.loads(argument) for argument in sys.argv[1:3])
    limits = Limits(**bounds)
    _give_up_rights(limits)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between the answers

    def answer(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line).encode() + b"\n")
        answers.flush()

    try:
        _read(sys.stdin.buffer, name, limits, answer)
    except ParseFailure as failure:
        answer({"failure": [failure.code, failure.detail]})
    except MemoryError:
        answer({"failure": ["too_large", "The file needs more memory than one file may take."]})
    except RecursionError:
        answer({"failure": ["invalid_file", "The file is nested too deeply."]})
    except BrokenPipeError:
        pass  # nobody waits for the answer any more
    except Exception as error:  # whatever a hostile file provokes in a reader is a fault of the file
        answer({"failure": ["invalid_file", f"The file cannot be read ({type(error).__name__})."]})
    os._exit(0)  # nothing is left to clean up, and libraries' exit hooks take time


def _give_up_rights(limits: Limits) -> None:
    os.nice(_NICENESS)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds + _GRACE_SECONDS)
    bounds = {
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, bound in bounds.items():
        _, most = resource.getrlimit(kind)
        allowed = bound if most == resource.RLIM_INFINITY else min(bound, most)
        # Beyond the soft bound of time comes SIGXCPU, which tells the parent why; SIGKILL comes later.
        spare = _GRACE_SECONDS if kind == resource.RLIMIT_CPU and allowed == bound else 0
        resource.setrlimit(kind, (allowed, allowed + spare))


def _read(source: BinaryIO, name: str, limits: Limits, answer: Callable[[dict[str, Any]], None]) -> None:
    told = 0.0

    def progress(fraction: float) -> None:
        nonlocal told
        if fraction - told >= _STEP:
            told = fraction
            answer({"progress": round(fraction, 3)})

    data = source.read(limits.file_bytes + 1)
    if len(data) > limits.file_bytes:
        raise ParseFailure("too_large", f"The file has more than {limits.file_bytes} bytes.")
    kind = media_type(name, data)
    module, function = _READERS[kind]
    reader = getattr(importlib.import_module(f"storage.parsing.{module}"), function)
    document = reader(data, limits, progress)
    for unit, cuts in document.parts:
        answer(
            {
                "unit": [unit.number, unit.kind, unit.title, unit.text],
                "cuts": [[cut.start, cut.end, cut.context, cut.cell, cut.heading] for cut in cuts],
            }
        )
    answer({"done": [document.page_count, kind, document.title]})

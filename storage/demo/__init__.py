"""What the demo is made of: two documents of an invented company, and the note of how to come in.

The documents were written by ``python -m tests.demo_documents``.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from storage.settings import settings

_HERE = Path(__file__).parent
REPORT = _HERE / "tarnwick-annual-report-2025.pdf"
WORKBOOK = _HERE / "tarnwick-plants-and-orders.xlsx"

Note = dict[str, str]


def note() -> Note:
    """What was kept of the demo of this data folder; empty before there is one.

    Its key and password are kept as they are, since their hashes would not show them again.
    """
    try:
        kept: Note = json.loads(_place().read_text())
    except FileNotFoundError:
        return {}
    return kept


def keep(note: Note) -> None:
    """Keep it, whole or not at all, for nobody but the owner of the data folder."""
    handle, name = tempfile.mkstemp(dir=_place().parent)  # readable by its owner alone
    with os.fdopen(handle, "w") as file:
        json.dump(note, file, indent=2)
    os.replace(name, _place())


def _place() -> Path:
    return settings().data_dir / "demo.json"

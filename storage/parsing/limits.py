"""What a file may cost to read, and how a refusal is told."""

from dataclasses import dataclass
from typing import Literal, get_args

FailureCode = Literal["invalid_file", "encrypted_file", "needs_ocr", "too_large", "timeout", "empty_file"]
FAILURE_CODES: frozenset[str] = frozenset(get_args(FailureCode))


class ParseFailure(Exception):
    """The file cannot be turned into passages; `code` is stable, `detail` is a sentence for its owner."""

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: FailureCode = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one file: its content, and the process that reads it.

    `archive_ratio` is expanded by compressed bytes, and counts once more than `archive_free_bytes` come out.
    `memory_bytes` bounds the child's address space (RLIMIT_AS), `cpu_seconds` its processor time
    (RLIMIT_CPU), `wall_seconds` the time until the parent ends it.
    """

    file_bytes: int = 100 * 1024**2
    pages: int = 5_000
    characters: int = 20_000_000
    cells: int = 1_000_000
    archive_entries: int = 5_000
    archive_bytes: int = 256 * 1024**2
    archive_ratio: int = 150
    archive_free_bytes: int = 8 * 1024**2
    memory_bytes: int = 1024**3
    cpu_seconds: int = 120
    wall_seconds: float = 180.0

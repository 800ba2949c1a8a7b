from dataclasses import dataclass

import numpy as np
import pytest

from models.knowledge import keywords
from models.knowledge.keywords import Layout, document_postings


@dataclass
class Piece:
    unit: int
    text: str
    context: str = ""


def entries(row: bytes) -> list[tuple[int, int, bool]]:
    listed = np.frombuffer(row, keywords.ENTRY).tolist()
    return [
        (entry >> keywords.POSITION_SHIFT, entry & keywords.MOST_TIMES, bool(entry & keywords.CONTEXT_BIT))
        for entry in listed
    ]


def test_a_row_tells_where_and_how_often() -> None:
    made = document_postings(
        [Piece(1, "Leases, leased"), Piece(1, "cash"), Piece(2, "a lease", "Lease costs")]
    )
    assert entries(made.terms["leas"]) == [(0, 2, False), (2, 1, True)]
    assert entries(made.terms["cost"]) == [(2, 0, True)]
    assert "a" not in made.terms


def test_counts_beyond_what_an_entry_holds_stay_at_its_most() -> None:
    made = document_postings([Piece(1, "cash " * 1000)])
    assert entries(made.terms["cash"]) == [(0, keywords.MOST_TIMES, False)]


def test_a_layout_survives_storage() -> None:
    made = document_postings(
        [
            Piece(3, "CONSOLIDATED BALANCE SHEETS\nCash 1,200 1,100\nDebt 300 400"),
            Piece(3, "Loans 10 20"),
            Piece(5, "x"),
        ]
    )
    layout = Layout.from_bytes(made.layout)
    assert layout.page_of.tolist() == [0, 0, 1]
    assert layout.units.tolist() == [3, 5]
    assert layout.statements.tolist() == [0b10, 0]
    assert layout.figures[0] == pytest.approx(6 / 12, abs=0.01)
    assert layout.lengths.tolist() == [9, 3, 1]
    assert layout.to_bytes() == made.layout


def test_an_empty_document_has_an_empty_layout() -> None:
    made = document_postings([])
    assert not made.terms
    assert len(Layout.from_bytes(made.layout).page_of) == 0


@pytest.mark.parametrize(
    "stored", [b"", b"\x01", b"\x02" + bytes(8), b"\x01\x01\x00\x00\x00\x00\x00\x00\x00"]
)
def test_what_is_no_layout_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match="not a layout"):
        Layout.from_bytes(stored)

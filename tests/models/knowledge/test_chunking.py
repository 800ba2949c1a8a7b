"""Cuts keep to their lines, their unit and their section, and lose nothing."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.knowledge.chunking import (
    CONTEXT_CHARACTERS,
    PASSAGE_CHARACTERS,
    Heading,
    Row,
    clean,
    cut_flow,
    cut_pages,
    cut_sheet,
    spans,
)
from models.knowledge.passages import Cut, Unit, assemble

LINE = "Net sales of the northern region rose by 4 percent against the year before.\n"


def _page(number: int, text: str) -> Unit:
    return Unit(number, "page", None, text)


class TestSpans:
    @given(st.text(alphabet="ab1. \n\t\u00e9\u20ac", max_size=3000), st.integers(20, 200))
    def test_they_are_ordered_apart_and_hold_every_letter(self, text: str, size: int) -> None:
        pieces = spans(text, size=size)

        held = "".join(text[start:end] for start, end in pieces)
        assert [c for c in held if c.isalnum()] == [c for c in text if c.isalnum()]
        assert all(first[1] <= second[0] for first, second in zip(pieces, pieces[1:], strict=False))
        assert all(text[start:end] == text[start:end].strip() for start, end in pieces)
        assert all(end - start <= size * 5 // 4 for start, end in pieces)

    def test_whole_lines_stay_whole(self) -> None:
        text = LINE * 60

        assert all(set(text[start:end].split("\n")) == {LINE.strip()} for start, end in spans(text))

    def test_pieces_are_balanced(self) -> None:
        text = LINE * 13  # a little more than one passage

        lengths = [end - start for start, end in spans(text)]

        assert len(lengths) == 2
        assert max(lengths) - min(lengths) <= 2 * len(LINE)

    def test_a_long_line_is_cut_after_a_sentence(self) -> None:
        text = "The audit committee met four times. " * 100

        assert all(text[end - 1] == "." for _, end in spans(text))

    def test_a_line_without_spaces_is_cut_at_the_limit(self) -> None:
        pieces = spans("x" * 2500)

        assert "".join("x" * (end - start) for start, end in pieces) == "x" * 2500
        assert all(end - start <= PASSAGE_CHARACTERS for start, end in pieces)

    def test_scraps_without_letters_or_digits_are_left_out(self) -> None:
        assert spans(" \n---\n\u2014 \u2014\n") == []


class TestPages:
    def test_no_cut_leaves_its_page(self) -> None:
        pages = [_page(1, LINE * 30), _page(2, "Second page.")]

        parts = list(cut_pages(pages))

        assert len(parts[0][1]) == 3
        assert parts[1][1] == [Cut(0, len("Second page."), context="Second page.")]

    def test_context_is_the_title_without_what_stands_on_every_page(self) -> None:
        pages = [
            _page(n, f"Table of Contents\nStatement {n}\n(in millions)\n" + LINE * 20) for n in range(1, 11)
        ]
        pages[3] = _page(4, "Table of Contents\nNorthern Region\n" + LINE * 20)

        contexts = [cuts[0].context for _, cuts in cut_pages(pages)]

        assert "Northern Region" in contexts[3]
        assert "Table of Contents" not in contexts[3]
        assert "(in millions)" not in contexts[0]
        assert "Statement 1" in contexts[0]

    def test_context_is_bounded(self) -> None:
        page = _page(
            1, "\n".join(f"A line that opens the page and is of some length, number {n}" for n in range(9))
        )

        [(_, cuts)] = cut_pages([page])

        assert 0 < len(cuts[0].context) <= CONTEXT_CHARACTERS


class TestFlow:
    TEXT = "Preamble.\nRisks\nSome risk.\nCurrency\nThe krone may fall.\nOutlook\nGood.\n"
    HEADINGS = (Heading(10, 1, "Risks"), Heading(27, 2, "Currency"), Heading(56, 1, "Outlook"))

    def test_sections_carry_their_heading_and_the_path_to_it(self) -> None:
        unit = Unit(1, "section", None, self.TEXT)

        cuts = cut_flow(unit, self.HEADINGS)

        assert [(cut.heading, cut.context, self.TEXT[cut.start : cut.end]) for cut in cuts] == [
            (None, "", "Preamble."),
            ("Risks", "Risks", "Risks\nSome risk."),
            ("Currency", "Risks > Currency", "Currency\nThe krone may fall."),
            ("Outlook", "Outlook", "Outlook\nGood."),
        ]

    def test_without_headings_the_whole_is_cut(self) -> None:
        assert cut_flow(Unit(1, "section", None, "Plain."), []) == [Cut(0, 6)]


class TestSheets:
    def _sheet(self, lines: list[str]) -> tuple[Unit, list[Row]]:
        rows, start = [], 0
        for number, line in enumerate(lines, start=1):
            rows.append(Row(start, start + len(line), f"A{number}", f"{'C' if number % 2 else 'AB'}{number}"))
            start += len(line) + 1
        return Unit(1, "sheet", "Sales", "\n".join(lines)), rows

    def test_rows_stay_whole_and_name_their_cells_and_header(self) -> None:
        unit, rows = self._sheet(
            ["Region\tYear\tSales"] + [f"Region {n}\t2023\t{n * 1000}" for n in range(2, 102)]
        )

        cuts = cut_sheet(unit, rows, rows[:1])

        assert len(cuts) > 2
        assert {cut.context for cut in cuts} == {"Sales \u00b7 Region Year Sales"}
        lines = [line for cut in cuts for line in unit.text[cut.start : cut.end].split("\n")]
        assert lines == unit.text.split("\n")
        assert cuts[0].cell is not None
        assert cuts[0].cell.startswith("A1:AB")

    def test_one_row_of_one_cell_is_named_alone(self) -> None:
        unit = Unit(1, "sheet", None, "Only")

        assert cut_sheet(unit, [Row(0, 4, "B7", "B7")], []) == [Cut(0, 4, cell="B7")]

    def test_a_row_longer_than_a_passage_is_cut_and_keeps_its_cells(self) -> None:
        unit, rows = self._sheet(["word " * 600])

        cuts = cut_sheet(unit, rows, [])

        assert len(cuts) > 3
        assert {cut.cell for cut in cuts} == {"A1:C1"}


class TestClean:
    def test_what_a_store_refuses_goes(self) -> None:
        assert clean("a\x00b\r\nc\rd\x0ce\ud800f\ufffeg\x07h") == "a b\nc\nd\ne\ufffdfg h"

    def test_what_a_reader_sees_stays_as_it_is(self) -> None:
        text = "\ufb01scal\u00a0year e\u0301 \u212b \u00bd \u5e74\t\U0001d7d9\n"

        assert clean(text) == text
        assert not unicodedata.is_normalized("NFC", text)

    @given(st.text(st.characters(exclude_categories=[])))
    def test_the_result_can_be_stored_and_is_clean(self, text: str) -> None:
        cleaned = clean(text)

        assert "\x00" not in cleaned
        assert cleaned.encode("utf-8").decode("utf-8") == cleaned
        assert clean(cleaned) == cleaned


class TestAssemble:
    def test_passages_are_numbered_and_sliced(self) -> None:
        unit = _page(3, "One. Two.")

        parsed = assemble(
            [(unit, [Cut(0, 4, "Title"), Cut(5, 9)])], page_count=5, media_type="x/y", title=None
        )

        assert [(p.position, p.page, p.sheet, p.text, p.context) for p in parsed.passages] == [
            (0, 3, None, "One.", "Title"),
            (1, 3, None, "Two.", ""),
        ]

    @pytest.mark.parametrize(("start", "end"), [(0, 10), (-1, 2), (4, 4), (5, 2)])
    def test_a_cut_outside_its_unit_is_refused(self, start: int, end: int) -> None:
        with pytest.raises(ValueError, match="outside unit 1"):
            assemble([(_page(1, "One."), [Cut(start, end)])], page_count=1, media_type="x/y", title=None)

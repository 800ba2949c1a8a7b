"""Files of every kind become passages; hostile ones become a typed failure and leave no process behind."""

import os
import signal
import threading
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time
from io import BytesIO
from pathlib import Path

import pypdf
import pytest

from models.knowledge.passages import Parsed
from storage.parsing import Limits, ParseFailure, parse
from storage.parsing.numberformat import shown
from tests import documents

Parse = Callable[..., Parsed]
QUICK = Limits(memory_bytes=512 * 1024**2, cpu_seconds=30, wall_seconds=60)


@pytest.fixture
def parsed(tmp_path: Path) -> Parse:
    """Parses bytes under a name."""

    def run(content: bytes, name: str, limits: Limits = QUICK, **more: Callable[[float], None]) -> Parsed:
        path = tmp_path / "upload"
        path.write_bytes(content)
        document = parse(path, name, limits, **more)
        units = {unit.number: unit for unit in document.units}
        assert all(p.text == units[p.unit].text[p.start : p.end] for p in document.passages)
        assert [p.position for p in document.passages] == list(range(len(document.passages)))
        return document

    return run


@pytest.fixture
def failure(parsed: Parse) -> Callable[..., str]:
    """Parses bytes that must fail, and gives the code."""

    def run(content: bytes, name: str, limits: Limits = QUICK) -> str:
        with pytest.raises(ParseFailure) as caught:
            parsed(content, name, limits)
        assert caught.value.detail.endswith(".")
        return caught.value.code

    return run


_others: set[int] = set()
"""Processes of this one that other tests rely on."""


def _children() -> list[int]:
    """The processes that a test started and that still live, or wait to be buried."""
    return [
        int(child)
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
        if int(child) not in _others
    ]


@pytest.fixture(autouse=True)
def _no_process_is_left() -> object:
    _others.clear()
    _others.update(_children())
    yield
    assert _children() == []


class TestPdf:
    PAGES = ("Harbour Lights Ltd\nAnnual report", "Balance sheet\nCash\t1,204\t998\nInventories\t88\t71")

    def test_pages_are_units_and_rows_stay_whole(self, parsed: Parse) -> None:
        document = parsed(documents.pdf(self.PAGES, title="Report 2023"), "report.PDF")

        assert (document.page_count, document.media_type, document.title) == (
            2,
            "application/pdf",
            "Report 2023",
        )
        assert [passage.page for passage in document.passages] == [1, 2]
        assert "Cash 1,204 998" in document.passages[1].text.splitlines()
        assert document.passages[1].context.startswith("Balance sheet")

    def test_the_text_is_what_another_reader_finds(self, parsed: Parse) -> None:
        content = documents.pdf(
            ["The co-\nbranded card of the well-\nknown inter-\nnational house\nfiscal \u00a7 5"]
        )

        [passage] = parsed(content, "report.pdf").passages

        assert passage.text.split() == pypdf.PdfReader(BytesIO(content)).pages[0].extract_text().split()

    def test_a_page_without_text_keeps_its_number(self, parsed: Parse) -> None:
        document = parsed(
            documents.pdf(["First page of the report", "", "Third page of the report"]), "a.pdf"
        )

        assert [passage.page for passage in document.passages] == [1, 3]
        assert [unit.number for unit in document.units] == [1, 2, 3]

    def test_progress_rises_to_the_end(self, parsed: Parse) -> None:
        told: list[float] = []

        parsed(documents.pdf(["Page"] * 30), "a.pdf", on_progress=told.append)

        assert told == sorted(told)
        assert len(told) > 10
        assert told[-1] == 1.0

    def test_pictures_of_pages_need_ocr(self, failure: Callable[..., str]) -> None:
        assert failure(documents.scanned_pdf(), "scan.pdf") == "needs_ocr"

    def test_a_password_is_needed(self, failure: Callable[..., str]) -> None:
        assert failure(documents.pdf(["Secret"], password="hush"), "a.pdf") == "encrypted_file"

    def test_too_many_pages(self, failure: Callable[..., str]) -> None:
        assert failure(documents.pdf(["x"] * 4), "a.pdf", Limits(pages=3)) == "too_large"

    def test_too_many_characters(self, failure: Callable[..., str]) -> None:
        assert failure(documents.pdf(["Some text"] * 4), "a.pdf", Limits(characters=20)) == "too_large"

    def test_a_stream_that_expands_a_hundred_times(self, failure: Callable[..., str]) -> None:
        bomb = documents.bomb_pdf(600)
        assert len(bomb) < 6 * 1024**2
        assert failure(bomb, "a.pdf", Limits(memory_bytes=400 * 1024**2, cpu_seconds=10)) in (
            "invalid_file",
            "timeout",
            "too_large",
        )

    @pytest.mark.parametrize(
        "content", [b"%PDF-1.7\n" + bytes(range(256)) * 40, b"%PDF-", documents.pdf(["Text"])[:200]]
    )
    def test_damaged_files(self, failure: Callable[..., str], content: bytes) -> None:
        assert failure(content, "a.pdf") == "invalid_file"

    def test_a_truncated_file_fails_or_gives_what_is_left(self, parsed: Parse) -> None:
        whole = documents.pdf([f"Page {number} of the report" for number in range(1, 9)])

        codes: set[str] = set()
        texts: set[str] = set()
        for share in range(1, 10):
            try:
                document = parsed(whole[: len(whole) * share // 10], "a.pdf")
            except ParseFailure as refused:
                codes.add(refused.code)
            else:
                texts.update(passage.text for passage in document.passages)

        assert codes <= {"invalid_file", "needs_ocr", "empty_file"}
        assert texts <= {f"Page {number} of the report" for number in range(1, 9)}


class TestWord:
    BLOCKS: tuple[documents.Block, ...] = (
        (1, "Risks"),
        "The krone may fall.",
        (2, "Markets"),
        [["Region", "2023", "2022"], ["North", "1,204", ""], ["South", "", "71"]],
        "After the table.",
    )

    def test_headings_paragraphs_and_tables_in_order(self, parsed: Parse) -> None:
        document = parsed(documents.word(self.BLOCKS), "risks.docx")

        [unit] = document.units
        assert unit.text.split("\n") == [
            "Risks",
            "The krone may fall.",
            "Markets",
            "Region\t2023\t2022",
            "North\t1,204",
            "South\t\t71",
            "After the table.",
        ]
        assert document.title == "Risks"
        assert document.page_count is None
        assert [(p.heading, p.context, p.page) for p in document.passages] == [
            ("Risks", "Risks", None),
            ("Markets", "Risks > Markets", None),
        ]

    def test_insertions_are_read_and_deletions_are_not(self, parsed: Parse) -> None:
        whole = documents.word(["before"])
        xml = documents.part(whole, "word/document.xml").replace(
            b"<w:r><w:t>before</w:t></w:r>",
            b"<w:ins><w:r><w:t>inserted</w:t></w:r></w:ins><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
            b"<w:r><w:tab/><w:t>tabbed</w:t></w:r>",
        )

        document = parsed(documents.repacked(whole, {"word/document.xml": xml}), "a.docx")

        assert document.units[0].text == "inserted\ttabbed"

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_a_document_type_is_refused(self, failure: Callable[..., str], encoding: str) -> None:
        xml = (
            f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p>'
            "<w:r><w:t>&x;</w:t></w:r></w:p></w:body></w:document>"
        )
        content = documents.repacked(documents.word(["x"]), {"word/document.xml": xml.encode(encoding)})

        assert failure(content, "a.docx") == "invalid_file"

    def test_a_document_type_in_an_encoding_of_its_own_is_not_obeyed(
        self, failure: Callable[..., str]
    ) -> None:
        xml = b'<?xml version="1.0" encoding="cp037"?>' + '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'.encode(
            "cp037"
        )

        assert failure(documents.repacked(documents.word(["x"]), {"word/document.xml": xml}), "a.docx") == (
            "invalid_file"
        )

    def test_deep_nesting_is_refused(self, failure: Callable[..., str]) -> None:
        deep = b"<w:sdt>" * 50_000 + b"</w:sdt>" * 50_000
        xml = documents.part(documents.word(["x"]), "word/document.xml").replace(
            b"<w:body>", b"<w:body>" + deep
        )

        assert failure(documents.repacked(documents.word(["x"]), {"word/document.xml": xml}), "a.docx") == (
            "invalid_file"
        )

    def test_without_text(self, failure: Callable[..., str]) -> None:
        assert failure(documents.word([]), "a.docx") == "empty_file"


class TestArchives:
    def test_a_bomb_by_its_ratio(self, failure: Callable[..., str]) -> None:
        bomb = documents.repacked(documents.word(["x"]), {"word/media/a.bin": bytes(60_000_000)})

        assert len(bomb) < 200_000
        assert failure(bomb, "a.docx") == "too_large"

    def test_a_bomb_by_its_size(self, failure: Callable[..., str]) -> None:
        bomb = documents.repacked(
            documents.workbook({"A": [["x"]]}), {"xl/media/a.bin": os.urandom(3_000_000)}
        )

        assert failure(bomb, "a.xlsx", Limits(archive_bytes=2_000_000)) == "too_large"

    def test_a_bomb_by_its_entries(self, failure: Callable[..., str]) -> None:
        many = documents.repacked(documents.word(["x"]), {f"word/media/{n}": b"" for n in range(300)})

        assert failure(many, "a.docx", Limits(archive_entries=200)) == "too_large"

    def test_a_directory_that_lies_about_sizes(self, failure: Callable[..., str]) -> None:
        whole = documents.repacked(documents.word(["x"]), {"word/document.xml": b" " * 5_000_000})
        directory = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"word/document.xml"))
        lying = whole[: directory + 24] + (100).to_bytes(4, "little") + whole[directory + 28 :]

        assert failure(lying, "a.docx") == "invalid_file"

    def test_damaged_archives(self, failure: Callable[..., str]) -> None:
        whole = documents.word(["Text"])

        assert failure(whole[: len(whole) // 2], "a.docx") == "invalid_file"
        assert failure(whole[:3000] + b"\xff" * 400 + whole[3400:], "a.docx") == "invalid_file"

    def test_an_archive_of_something_else(self, failure: Callable[..., str]) -> None:
        buffer = BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("readme.txt", "x")

        assert failure(buffer.getvalue(), "a.docx") == "invalid_file"
        assert failure(buffer.getvalue(), "a.xlsx") == "invalid_file"

    def test_a_document_under_a_password_is_an_ole_file(self, failure: Callable[..., str]) -> None:
        ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)

        assert failure(ole + "EncryptedPackage".encode("utf-16-le"), "a.xlsx") == "encrypted_file"
        assert failure(ole, "a.docx") == "invalid_file"


class TestWorkbook:
    def test_values_are_read_as_they_are_shown(self, parsed: Parse) -> None:
        content = documents.workbook(
            {
                "Sales": [
                    ["Northern sales, in thousands"],
                    ["Region", "Sales", "Margin", "Closed", "Audited"],
                    ["North", 1204.5, 0.125, date(2023, 9, 30), True],
                    ["South", -71, 0.5, None, False],
                ],
                "Notes": [[None, "See <page> & 4"]],
            },
            {("Sales", "B3"): "#,##0.00", ("Sales", "B4"): "#,##0;(#,##0)", ("Sales", "C3"): "0.0%"},
        )

        document = parsed(content, "sales.xlsx")

        assert [unit.title for unit in document.units] == ["Sales", "Notes"]
        assert document.units[0].text.split("\n") == [
            "Northern sales, in thousands",
            "Region\tSales\tMargin\tClosed\tAudited",
            "North\t1,204.50\t12.5%\t2023-09-30\tTRUE",
            "South\t(71)\t0.5\t\tFALSE",
        ]
        assert [(p.sheet, p.cell) for p in document.passages] == [("Sales", "A1:E4"), ("Notes", "B1")]
        assert "Region Sales Margin" in document.passages[0].context

    def test_every_passage_of_a_long_sheet_names_its_cells_and_header(self, parsed: Parse) -> None:
        rows: list[list[object]] = [["Month", "Revenue"], *([f"Month {n}", n * 1000] for n in range(2, 301))]

        passages = parsed(documents.workbook({"Long": rows}), "long.xlsx").passages

        assert len(passages) > 3
        assert all("Month Revenue" in passage.context for passage in passages)
        cell = next(p.cell for p in passages if "Month 250\t250000" in p.text.split("\n"))
        assert cell is not None
        first, last = (int(edge[1:]) for edge in cell.split(":"))
        assert first <= 250 <= last

    def test_too_many_cells(self, failure: Callable[..., str]) -> None:
        content = documents.workbook({"A": [["x"] * 10] * 10})

        assert failure(content, "a.xlsx", Limits(cells=99)) == "too_large"

    def test_without_cells(self, failure: Callable[..., str]) -> None:
        assert failure(documents.workbook({"A": []}), "a.xlsx") == "empty_file"

    @pytest.mark.parametrize(
        ("value", "code", "text"),
        [
            (1234.5, "General", "1234.5"),
            (0.1 + 0.2, "General", "0.3"),
            (1234567, "#,##0", "1,234,567"),
            (0.005, "0.00", "0.01"),
            (2.5, "0", "3"),
            (-1234.5, "#,##0.00;(#,##0.00)", "(1,234.50)"),
            (-0.004, "0.00", "0.00"),
            (0, '#,##0;(#,##0);"-"', "-"),
            (1234, '"$"#,##0', "$1,234"),
            (-5, "[$\u20ac-407] #,##0", "-\u20ac 5"),
            (12_345_678, '#,##0.0,,"M"', "12.3M"),
            (7, "000", "007"),
            (1.5, "0.##", "1.5"),
            (0.0825, "0.0%", "8.3%"),
            (1.25, "# ?/?", "1.25"),
            (3, '[>2]"many";0', "3"),
            (5, "@", "5"),
            (1e20, "#,##0", "1e+20"),
            (1, "0." + "0" * 200, "1"),
            (45199, "d-mmm-yy", "2023-09-30"),
            (45199.75, "yyyy-mm-dd hh:mm", "2023-09-30 18:00:00"),
            (0.75, "h:mm AM/PM", "18:00"),
            (1.5, "[h]:mm:ss", "36:00:00"),
            (1e14, "yyyy", "100000000000000"),
        ],
    )
    def test_number_formats(self, value: float, code: str, text: str) -> None:
        assert shown(value, code) == text

    def test_the_calendar_of_1904(self) -> None:
        assert shown(0, "yyyy-mm-dd", from_1904=True) == "1904-01-01"

    def test_times_as_another_library_writes_them(self, parsed: Parse) -> None:
        moments: list[object] = [datetime(2023, 9, 30, 14, 5), time(8, 30)]
        content = documents.workbook({"A": [moments]})

        assert parsed(content, "a.xlsx").units[0].text == "2023-09-30 14:05:00\t08:30:00"


class TestCsv:
    def test_lines_stand_as_they_are_and_cells_are_named(self, parsed: Parse) -> None:
        content = documents.comma_separated([["Region", "Sales"], ["North, inner", "1,204"], ["a\nb", "2"]])

        document = parsed(content, "sales.csv")

        assert document.units[0].text == content.decode()
        assert [(p.cell, p.context) for p in document.passages] == [("A1:B3", "Region,Sales")]

    def test_a_record_with_line_breaks_stays_whole(self, parsed: Parse) -> None:
        rows = [["Name", "Remark"], *([f"n{n}", f"first line\nsecond line {n}"] for n in range(120))]

        passages = parsed(documents.comma_separated(rows), "a.csv").passages

        assert len(passages) > 2
        assert all(passage.text.count('"') % 2 == 0 for passage in passages)

    @pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
    def test_other_delimiters(self, parsed: Parse, delimiter: str) -> None:
        content = documents.comma_separated([["a", "b", "c"], ["1", "2", "3"]], delimiter=delimiter)

        assert parsed(content, "a.csv").passages[0].cell == "A1:C2"

    def test_nuls(self, parsed: Parse) -> None:
        assert parsed(b"a,b\n1,\x002\n", "a.csv").units[0].text == "a,b\n1, 2\n"

    def test_too_many_cells(self, failure: Callable[..., str]) -> None:
        assert failure(b"a,b\n" * 50, "a.csv", Limits(cells=99)) == "too_large"


class TestWebPage:
    def test_headings_paragraphs_and_tables_in_order(self, parsed: Parse) -> None:
        document = parsed(
            documents.web_page(
                "<div>Opening <b>wo</b>rds<p>A&nbsp;paragraph<br>of two lines</div>"
                "<h1>Risks</h1><p>May <i>fall</i>.<table><tr><th>Region<th>2023</tr><tr><td>North</td>"
                "<td><p>1,204</p></td></tr></table><h2>End</h2>Bye"
            ),
            "a.html",
        )

        assert document.units[0].text.split("\n") == [
            "Opening words",
            "A\u00a0paragraph",
            "of two lines",
            "Risks",
            "May fall.",
            "Region\t2023",
            "North\t1,204",
            "End",
            "Bye",
        ]
        assert document.title == "A page"
        assert [(p.heading, p.context) for p in document.passages] == [
            (None, ""),
            ("Risks", "Risks"),
            ("End", "Risks > End"),
        ]

    def test_what_nobody_sees_is_not_indexed(self, parsed: Parse) -> None:
        document = parsed(
            documents.web_page(
                "<p>Seen</p><script>var a = 'unseen'</script><style>.unseen{}</style><!-- unseen -->"
                "<noscript>unseen</noscript><template><p>unseen</p></template><svg><text>unseen</text></svg>"
                "<div hidden>unseen</div><div style='color:red; DISPLAY : none'><p>unseen</p></div>",
                head="<style>unseen</style>",
            ),
            "a.htm",
        )

        assert document.units[0].text == "Seen"

    def test_nested_tables(self, parsed: Parse) -> None:
        inner = "<table><tr><td>a</td><td>b</td></tr></table>"
        body = f"<table><tr><td>Left</td><td>{inner}</td><td>Right</td></tr></table>"

        assert parsed(documents.web_page(body), "a.html").units[0].text.split("\n") == ["a\tb", "Left\tRight"]

    def test_the_declared_encoding(self, parsed: Parse) -> None:
        page = (
            documents.web_page("caf\u00e9", head="<meta charset='iso-8859-2'>").decode().encode("iso-8859-2")
        )

        assert parsed(page, "a.html").units[0].text == "caf\u00e9"

    def test_deep_nesting_is_no_danger(self, parsed: Parse) -> None:
        assert parsed(documents.web_page("<b>" * 20_000 + "deep"), "a.html").units[0].text == "deep"

    def test_only_a_script(self, failure: Callable[..., str]) -> None:
        assert failure(documents.web_page("<script>x</script>"), "a.html") == "empty_file"


class TestPlain:
    def test_markdown_stands_as_it_is(self, parsed: Parse) -> None:
        text = (
            "Intro\n\n# Risks #\nText\n```\n# no heading\n```\nOutlook *soon*\n---\n\n| a | b |\n|---|---|\n"
        )

        document = parsed(text.encode(), "a.md")

        assert document.units[0].text == text
        assert document.title == "Risks"
        assert [(p.heading, p.context) for p in document.passages] == [
            (None, ""),
            ("Risks", "Risks"),
            ("Outlook soon", "Risks > Outlook soon"),
        ]

    @pytest.mark.parametrize(
        "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
    )
    def test_encodings(self, parsed: Parse, encoding: str) -> None:
        text = "The caf\u00e9\u2019s revenue was \u20ac 5 million, and its costs were lower than a year ago."

        assert parsed(text.encode(encoding), "a.txt").units[0].text == text

    def test_ten_megabytes_in_one_line(self, parsed: Parse) -> None:
        content = b"The committee met on that day. " * 330_000

        document = parsed(content, "a.txt")

        assert len(document.passages) > 10_000
        assert max(len(passage.text) for passage in document.passages) <= 1125

    def test_too_many_characters(self, failure: Callable[..., str]) -> None:
        assert failure(b"word " * 100, "a.txt", Limits(characters=400)) == "too_large"

    def test_too_many_bytes(self, failure: Callable[..., str]) -> None:
        assert failure(b"word " * 100, "a.txt", Limits(file_bytes=400)) == "too_large"


class TestKinds:
    @pytest.mark.parametrize("name", ["a.txt", "a.pdf", "a.docx", "a.xlsx", "a.csv", "a.html", "a.md"])
    @pytest.mark.parametrize("content", [b"", b" \r\n\t", bytes(64)])
    def test_empty_files(self, failure: Callable[..., str], name: str, content: bytes) -> None:
        assert failure(content, name) == "empty_file"

    @pytest.mark.parametrize(
        ("content", "name"),
        [
            (documents.word(["x"]), "a.pdf"),
            (documents.word(["x"]), "a.xlsx"),
            (documents.word(["x"]), "a.txt"),
            (documents.pdf(["x"]), "a.docx"),
            (documents.pdf(["x"]), "a.html"),
            (b"plain text", "a.pdf"),
            (b"plain text", "a.xlsx"),
            (b"plain text", "a.exe"),
            (b"plain text", "a"),
            (bytes(range(256)) * 50, "a.txt"),
            (b"\x89PNG\r\n\x1a\n" + bytes(100), "a.md"),
        ],
    )
    def test_content_and_name_must_agree(
        self, failure: Callable[..., str], content: bytes, name: str
    ) -> None:
        assert failure(content, name) == "invalid_file"

    @pytest.mark.parametrize(
        "name",
        [
            "-c.txt",
            "--help.txt",
            "$(id);.txt",
            "\u202egpj.txt",
            "a b/../c.txt",
            "\x00\ud800.txt",
            "n" * 200_000 + ".txt",
        ],
        ids=range(7),
    )
    def test_a_name_is_only_a_name(self, parsed: Parse, name: str) -> None:
        assert parsed(b"Some text", name).units[0].text == "Some text"


class TestTheChild:
    LONG = b"word. " * 1_000_000

    def test_memory_is_bounded(self, failure: Callable[..., str]) -> None:
        assert (
            failure(self.LONG * 10, "a.txt", Limits(memory_bytes=120 * 1024**2, characters=10**9))
            == "too_large"
        )

    def test_wall_time_is_bounded(self, failure: Callable[..., str]) -> None:
        assert failure(self.LONG, "a.txt", Limits(wall_seconds=0.05)) == "timeout"

    def test_processor_time_is_bounded(self, failure: Callable[..., str]) -> None:
        # Several seconds of work on the quickest machine: the limit counts whole seconds.
        assert failure(self.LONG * 10, "a.csv", Limits(cpu_seconds=1, characters=10**9)) == "timeout"

    def test_a_killed_child_is_a_failure(self, parsed: Parse) -> None:
        def kill(fraction: float) -> None:
            for child in _children():
                os.kill(child, signal.SIGKILL)

        with pytest.raises(ParseFailure) as caught:
            parsed(documents.pdf(["Some text on a page\n" * 50] * 400), "a.pdf", on_progress=kill)

        assert caught.value.code == "too_large"
        assert "ended from outside" in caught.value.detail

    def test_a_crash_is_a_failure(self, parsed: Parse) -> None:
        def crash(fraction: float) -> None:
            for child in _children():
                os.kill(child, signal.SIGSEGV)

        with pytest.raises(ParseFailure) as caught:
            parsed(documents.pdf(["Some text on a page\n" * 50] * 400), "a.pdf", on_progress=crash)

        assert caught.value.code == "invalid_file"

    def test_a_listener_that_fails_ends_the_child(self, parsed: Parse) -> None:
        def fail(fraction: float) -> None:
            raise LookupError("the document was deleted meanwhile")

        with pytest.raises(LookupError):
            parsed(documents.pdf(["Some text"] * 100), "a.pdf", on_progress=fail)

    def test_a_listener_ends_the_child_in_the_middle_of_a_monstrous_page(self, parsed: Parse) -> None:
        heard: list[float] = []

        def fail_later(fraction: float) -> None:
            heard.append(fraction)
            if len(heard) == 2:
                raise LookupError("the document was deleted meanwhile")

        slow = Limits(memory_bytes=4 * 1024**3, characters=10**9, cpu_seconds=60, wall_seconds=60)
        with pytest.raises(LookupError):
            parsed(documents.bomb_pdf(400), "a.pdf", slow, on_progress=fail_later)
        assert heard == [0, 0], "the page was never read to its end"

    def test_it_inherits_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BOOGA_SECRET_KEY", "hush")
        seen: dict[str, bytes | int] = {}

        def look(fraction: float) -> None:
            if not seen:
                [child] = _children()
                root = Path(f"/proc/{child}")
                seen["environment"] = (root / "environ").read_bytes()
                seen["files"] = len(list((root / "fd").iterdir()))
                seen["niceness"] = os.getpriority(os.PRIO_PROCESS, child)

        path = tmp_path / "a.pdf"
        path.write_bytes(documents.pdf(["Some text on a page\n" * 50] * 400))
        parse(path, "a.pdf", QUICK, look)

        assert b"hush" not in bytes(seen["environment"])
        assert seen["files"] == 4  # the file, the answers twice, and nowhere for errors
        assert int(seen["niceness"]) >= 10

    def test_many_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "a.md"
        path.write_bytes(b"# Title\ntext\n" * 50)
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(len(parse(path, "a.md", QUICK).passages)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert found == [50] * 6

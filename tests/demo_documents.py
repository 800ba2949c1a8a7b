"""Writes the demo's two documents: the annual report and the workbook of a company that does not exist.

``python -m tests.demo_documents`` puts them into ``storage/demo``, from where ``booga serve --demo`` takes
them. Totals are computed here, so that the statements add up; the same call makes the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from datetime import datetime

import openpyxl
from openpyxl.styles import Font
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import simpleSplit
from reportlab.pdfgen.canvas import Canvas

from storage.demo import REPORT, WORKBOOK

COMPANY = "Tarnwick Pumps plc"
_LEFT, _RIGHT, _TOP = 64, 531, 770
_COLUMNS = (531, 446)  # right edges of this year's figures and last year's
_MADE = datetime(2026, 3, 2, 9, 0)
_DAY = (2026, 3, 2, 9, 0, 0)

Row = tuple[str, int, int]

REVENUE: Row = ("Revenue", 412_640, 381_905)
COST_OF_SALES: Row = ("Cost of sales", -251_730, -236_790)
OPERATING: list[Row] = [
    ("Research and development", -24_815, -22_930),
    ("Selling and distribution", -46_290, -44_085),
    ("Administration", -31_480, -30_215),
    ("Other operating income", 3_175, 2_615),
]
FINANCE: list[Row] = [("Finance income", 1_385, 1_120), ("Finance costs", -6_210, -7_295)]
TAX: Row = ("Income tax", -13_575, -10_925)
FIXED: list[Row] = [
    ("Property, plant and equipment", 138_420, 129_700),
    ("Intangible assets", 41_260, 43_180),
    ("Deferred tax assets", 6_110, 6_480),
]
CURRENT: list[Row] = [
    ("Inventories", 72_350, 69_120),
    ("Trade receivables", 68_940, 63_770),
    ("Other current assets", 9_480, 8_950),
    ("Cash and cash equivalents", 57_830, 41_060),
]
EQUITY: list[Row] = [
    ("Share capital", 21_500, 21_500),
    ("Reserves", 6_300, 6_300),
    ("Retained earnings", 155_390, 126_480),
]
LONG_TERM: list[Row] = [
    ("Long-term borrowings", 96_000, 107_000),
    ("Pension obligations", 14_270, 15_020),
    ("Provisions", 7_930, 7_410),
]
SHORT_TERM: list[Row] = [
    ("Trade payables", 47_610, 42_380),
    ("Short-term borrowings", 18_000, 12_000),
    ("Income tax payable", 5_240, 4_310),
    ("Other current liabilities", 22_150, 19_860),
]
FROM_OPERATIONS: list[Row] = [
    ("Depreciation and amortisation", 20_640, 19_880),
    ("Change in inventories", -3_230, -6_410),
    ("Change in trade receivables", -5_170, -4_020),
    ("Change in other current assets", -530, 210),
    ("Change in trade payables", 5_230, 2_950),
    ("Change in other current liabilities and tax", 3_220, 1_480),
    ("Change in pensions, provisions and deferred tax", 140, -140),
]
INVESTING: list[Row] = [
    ("Purchases of property, plant and equipment", -26_140, -22_360),
    ("Purchases of intangible assets", -1_300, -1_750),
]
FINANCING: list[Row] = [("Repayment of borrowings", -5_000, -9_000), ("Dividends paid", -14_190, -11_825)]
SEGMENTS: list[tuple[str, int, int, int, int]] = [
    ("Water utilities", 186_420, 171_350, 27_140, 21_900),
    ("Process industry", 148_905, 139_480, 19_860, 17_350),
    ("Service and spare parts", 77_315, 71_075, 21_330, 17_910),
]
PLANTS: list[tuple[str, str, int, int, int, int]] = [
    ("Tarnwick", "United Kingdom", 612, 18_450, 9_870, 3),
    ("Gdynia", "Poland", 547, 22_310, 11_240, 2),
    ("Coimbra", "Portugal", 288, 9_120, 4_460, 0),
    ("Chennai", "India", 431, 15_780, 8_035, 4),
]
ORDERS: list[tuple[str, int, int, int]] = [
    ("Q1 2024", 41_200, 33_950, 17_010),
    ("Q2 2024", 44_730, 36_120, 17_640),
    ("Q3 2024", 42_880, 34_410, 18_220),
    ("Q4 2024", 47_560, 37_280, 18_905),
    ("Q1 2025", 46_310, 36_740, 18_770),
    ("Q2 2025", 49_850, 38_560, 19_430),
    ("Q3 2025", 45_990, 35_870, 19_905),
    ("Q4 2025", 53_240, 40_115, 20_680),
]


def _sum(label: str, rows: Sequence[Row]) -> Row:
    return label, sum(row[1] for row in rows), sum(row[2] for row in rows)


def _figure(value: int) -> str:
    return f"({-value:,})" if value < 0 else f"{value:,}"


class _Report:
    """Pages of text and tables, from the top down."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._canvas = Canvas(self._bytes, pagesize=A4, invariant=1, pageCompression=1)
        self._canvas.setTitle(f"{COMPANY}, annual report 2025")
        self._canvas.setAuthor(COMPANY)
        self._page, self._y = 0, 0.0

    def page(self, title: str) -> None:
        """Begin the next page."""
        if self._page:
            self._canvas.showPage()
        self._page += 1
        self._canvas.setFont("Helvetica", 8)
        self._canvas.drawString(_LEFT, 40, f"{COMPANY}  Annual report 2025")
        self._canvas.drawRightString(_RIGHT, 40, str(self._page))
        self._canvas.setFont("Helvetica-Bold", 16)
        self._canvas.drawString(_LEFT, _TOP, title)
        self._y = _TOP - 28

    def text(self, *paragraphs: str) -> None:
        """Paragraphs, wrapped."""
        self._canvas.setFont("Helvetica", 10)
        for paragraph in paragraphs:
            for line in simpleSplit(paragraph, "Helvetica", 10, _RIGHT - _LEFT):
                self._canvas.drawString(_LEFT, self._y, line)
                self._y -= 14
            self._y -= 7

    def heading(self, words: str) -> None:
        """A line above what follows."""
        self._canvas.setFont("Helvetica-Bold", 11)
        self._y -= 4
        self._canvas.drawString(_LEFT, self._y, words)
        self._y -= 17

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], *, totals: Sequence[int] = ()
    ) -> None:
        """Rows below a head; the first column is words, the others stand at the right."""
        edges = _edges(len(head) - 1)
        for number, row in enumerate([head, *rows]):
            strong = number == 0 or number - 1 in totals
            self._canvas.setFont("Helvetica-Bold" if strong else "Helvetica", 9.5)
            if strong:
                self._canvas.line(_LEFT, self._y + 11, _RIGHT, self._y + 11)
            self._canvas.drawString(_LEFT, self._y, row[0])
            for edge, cell in zip(edges, row[1:], strict=True):
                self._canvas.drawRightString(edge, self._y, cell)
            self._y -= 16
        self._y -= 10

    def statement(self, rows: Sequence[Row], totals: Sequence[str]) -> None:
        """Two years of figures in thousands of euros."""
        self.table(
            ("EUR thousand", "2025", "2024"),
            [(label, _figure(this), _figure(last)) for label, this, last in rows],
            totals=[number for number, row in enumerate(rows) if row[0] in totals],
        )

    def whole(self) -> bytes:
        """The file."""
        self._canvas.save()
        return self._bytes.getvalue()


def _edges(count: int) -> list[int]:
    return [_RIGHT - 85 * (count - 1 - number) for number in range(count)]


def report() -> bytes:
    """The annual report, a PDF of nine pages."""
    gross = _sum("Gross profit", [REVENUE, COST_OF_SALES])
    operating = _sum("Operating profit", [gross, *OPERATING])
    before_tax = _sum("Profit before tax", [operating, *FINANCE])
    net = _sum("Profit for the year", [before_tax, TAX])
    fixed, current = _sum("Total non-current assets", FIXED), _sum("Total current assets", CURRENT)
    equity, long_term = _sum("Total equity", EQUITY), _sum("Total non-current liabilities", LONG_TERM)
    short_term = _sum("Total current liabilities", SHORT_TERM)
    from_operations = _sum("Net cash from operating activities", [net, *FROM_OPERATIONS])
    investing = _sum("Net cash used in investing activities", INVESTING)
    financing = _sum("Net cash used in financing activities", FINANCING)
    change = _sum("Increase in cash and cash equivalents", [from_operations, investing, financing])
    opening: Row = ("Cash and cash equivalents at 1 January", CURRENT[-1][2], CURRENT[-1][2] - change[2])
    corporate: Row = (
        "Corporate costs",
        operating[1] - sum(segment[3] for segment in SEGMENTS),
        operating[2] - sum(segment[4] for segment in SEGMENTS),
    )

    made = _Report()
    made.page(COMPANY)
    made.heading("Annual report 2025")
    made.text(
        "For the year ended 31 December 2025. All amounts are in thousands of euros unless another unit is "
        "named.",
        "The company, its people and its figures are invented. This report was written to show how answers "
        "cite the page they come from.",
    )
    made.page("The year at a glance")
    made.text(
        "Tarnwick builds pumps that run for decades: for the waterworks of cities, for plants of the process "
        "industry, and for those who keep both going. In 2025 more customers than ever asked us to look "
        "after the pumps they already own, and that business earned the widest margin of the group.",
        "Revenue rose by 8.0 percent to EUR 412.6 million. Two thirds of the growth came from volume, the "
        "rest from prices agreed in earlier years. Operating profit reached EUR 61.5 million, an operating "
        "margin of 14.9 percent after 13.2 percent in 2024.",
        "The board proposes a dividend of EUR 0.80 per share for 2025, to be paid on 21 May 2026. For 2024 "
        "the company paid EUR 0.66 per share.",
    )
    made.heading("Outlook")
    made.text(
        "For 2026 we expect revenue between EUR 425 million and EUR 440 million and an operating margin of "
        "about 15 percent. Capital expenditure will rise to EUR 34 million, most of it for the new test "
        "field in Gdynia, which is to open in the autumn of 2027.",
    )
    made.page("What we do")
    made.text(
        "Water utilities buy large pumps by public tender, often with twenty years of service agreed from "
        "the start. The largest customer of the segment stands for 6 percent of group revenue.",
        "The process industry buys pumps that are made for one liquid: acids, slurries, molten salt. Orders "
        "are small, prices are firm, and a pump is seldom ordered twice in the same form.",
        "Service and spare parts grew fastest. A third of our service contracts now include sensors that "
        "report vibration and temperature, so that a bearing is changed before it fails.",
    )
    made.heading("People")
    made.text(
        "On 31 December 2025 the group employed 1,878 people at four plants, 64 more than a year before. "
        "The accident rate fell to 2.7 lost-time accidents per million hours worked.",
    )
    made.page("Segment information")
    made.table(
        ("EUR thousand", "Revenue 2025", "Revenue 2024", "Profit 2025", "Profit 2024"),
        [
            *((name, *(_figure(value) for value in values)) for name, *values in SEGMENTS),
            ("Corporate costs", "", "", _figure(corporate[1]), _figure(corporate[2])),
            ("Group", *(_figure(value) for value in (*REVENUE[1:], *operating[1:]))),
        ],
        totals=(4,),
    )
    made.text(
        "Segment profit is operating profit before corporate costs. Revenue between segments is small and "
        "is not shown.",
    )
    made.page("Principal risks")
    made.heading("Raw materials")
    made.text(
        "Castings of nickel and duplex steel make up 31 percent of the cost of sales. A rise of 10 percent "
        "in the price of nickel would lower operating profit by about EUR 2.4 million before price clauses.",
    )
    made.heading("Suppliers")
    made.text(
        "A single foundry in northern Italy casts all impellers above 900 millimetres. A second foundry was "
        "approved in November 2025 and will deliver from the middle of 2026.",
    )
    made.heading("Currencies")
    made.text(
        "38 percent of revenue is invoiced in currencies other than the euro, most of it in pounds sterling "
        "and US dollars. Expected net receipts are hedged for twelve months.",
    )
    made.heading("Cyber security")
    made.text(
        "In June 2025 a supplier's account was used to reach the network of the Coimbra plant. Production "
        "stood still for two days; no customer data was lost. Plant networks have since been separated from "
        "the office network at all sites.",
    )
    made.page("Consolidated income statement")
    made.statement(
        [REVENUE, COST_OF_SALES, gross, *OPERATING, operating, *FINANCE, before_tax, TAX, net],
        [gross[0], operating[0], before_tax[0], net[0]],
    )
    made.text(
        "Earnings per share are EUR 2.00 (2024: EUR 1.55), on 21,500,000 shares in both years. Diluted "
        "earnings are the same.",
    )
    made.page("Consolidated balance sheet")
    assets, debts = _sum("Total assets", [fixed, current]), _sum("Total liabilities", [long_term, short_term])
    made.statement([*FIXED, fixed, *CURRENT, current, assets], [row[0] for row in (fixed, current, assets)])
    both = _sum("Total equity and liabilities", [equity, debts])
    made.statement(
        [*EQUITY, equity, *LONG_TERM, long_term, *SHORT_TERM, short_term, debts, both],
        [row[0] for row in (equity, long_term, short_term, debts, both)],
    )
    made.page("Consolidated cash flow statement")
    closing = _sum("Cash and cash equivalents at 31 December", [opening, change])
    made.statement(
        [
            net,
            *FROM_OPERATIONS,
            from_operations,
            *INVESTING,
            investing,
            *FINANCING,
            financing,
            change,
            opening,
            closing,
        ],
        [row[0] for row in (from_operations, investing, financing, change, closing)],
    )
    made.page("Notes on borrowings")
    made.text(
        "Borrowings are a term loan from three banks with a fixed interest rate of 3.9 percent. EUR 18.0 "
        "million fall due in 2026, EUR 24.0 million in each of the years 2027 to 2030.",
        "The loan requires net debt of no more than 2.5 times earnings before interest, tax, depreciation "
        "and amortisation. At the end of 2025 the ratio was 0.7.",
        "Unused credit lines amount to EUR 60.0 million and run until June 2029.",
    )
    assert assets == ("Total assets", both[1], both[2]), "the balance sheet does not balance"
    assert closing[1:] == CURRENT[-1][1:], "the cash flow does not lead to the balance sheet's cash"
    return made.whole()


def workbook() -> bytes:
    """The workbook, an XLSX file of two sheets."""
    book = openpyxl.Workbook()
    book.properties.creator, book.properties.created = COMPANY, _MADE
    plants = book.worksheets[0]
    plants.title = "Plants"
    plants.append(
        ("Plant", "Country", "Employees", "Pumps built", "Energy used (MWh)", "Lost-time accidents")
    )
    for plant in PLANTS:
        plants.append(plant)
    orders = book.create_sheet("Orders")
    orders.append(("Quarter", *(f"{segment[0]} (EUR thousand)" for segment in SEGMENTS)))
    for quarter in ORDERS:
        orders.append(quarter)
    for sheet in (plants, orders):
        for column, cell in zip("ABCDEF", sheet[1], strict=False):
            cell.font = Font(bold=True)
            sheet.column_dimensions[column].width = 26
        for cells in sheet.iter_rows(min_row=2, min_col=2):
            for cell in cells:
                cell.number_format = "#,##0"
    buffer = io.BytesIO()
    book.save(buffer)
    return _of_one_day(buffer.getvalue())


def _of_one_day(archive: bytes) -> bytes:
    """The same archive without the hour of its making."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "docProps/core.xml":
                stamp = _MADE.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
                before, _, rest = content.partition(b"<dcterms:modified")
                head, _, tail = rest.partition(b">")
                content = before + b"<dcterms:modified" + head + b">" + stamp + tail[tail.index(b"<") :]
            target.writestr(zipfile.ZipInfo(name, _DAY), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


if __name__ == "__main__":
    for path, content in ((REPORT, report()), (WORKBOOK, workbook())):
        path.write_bytes(content)
        print(f"{path.name}: {len(content):,} bytes")

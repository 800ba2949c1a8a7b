"""A spreadsheet's numbers as a person sees them: 0.125 under `0.0%` is `12.5%` (ECMA-376 part 1, 18.8.30).

Percentages, decimals, thousands, scaling, signs, brackets and currencies are applied. Dates and times are
written in ISO 8601, since how `14` or `m/d/yy` shows depends on the reader's country. Whatever else a
format asks for (fractions, conditions, exponents) is left to the plain number.
"""

import re
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

BUILT_IN = {
    0: "General",
    1: "0",
    2: "0.00",
    3: "#,##0",
    4: "#,##0.00",
    9: "0%",
    10: "0.00%",
    14: "yyyy-mm-dd",
    15: "yyyy-mm-dd",
    16: "yyyy-mm-dd",
    17: "yyyy-mm-dd",
    18: "h:mm",
    19: "h:mm:ss",
    20: "h:mm",
    21: "h:mm:ss",
    22: "yyyy-mm-dd h:mm",
    37: "#,##0;(#,##0)",
    38: "#,##0;(#,##0)",
    39: "#,##0.00;(#,##0.00)",
    40: "#,##0.00;(#,##0.00)",
    41: "#,##0;(#,##0);-",
    42: "$#,##0;$(#,##0);$-",
    43: "#,##0.00;(#,##0.00);-",
    44: "$#,##0.00;$(#,##0.00);$-",
    45: "h:mm:ss",
    46: "[h]:mm:ss",
    47: "h:mm:ss",
    49: "@",
}
"""Formats that a file names by number alone; the rest of the numbers are `General`."""

_TOKEN = re.compile(
    r'"([^"]*)"|\\(.)|_.|\*.'  # text in quotes or escaped; room and filling, which are not shown
    r"|\[\$([^\]-]*)[^\]]*\]|\[[^\]]*\]"  # a currency; a colour or a language
    r"|([0#?][0#?,]*(?:\.[0#?]*)?,*)|(.)",  # the digits; any other sign
    re.S,
)
_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[[^\]]*\]', re.S)
_ELAPSED = re.compile(r"\[(?:h+|m+|s+)\]", re.I)
_CONDITION = re.compile(r"\[[<>=]")
_SECTION = re.compile(r'((?:"[^"]*"|\\.|[^;])*)(?:;|\Z)', re.S)
_EPOCH_1900, _EPOCH_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)
_LONGEST = 1e15
_LONGEST_CODE = 255  # as in the program that writes them
_MOST_DECIMALS = 12


def shown(value: float, code: str, *, from_1904: bool = False) -> str:
    """`value` under the format `code`; `from_1904` is the workbook's calendar."""
    if len(code) > _LONGEST_CODE:
        return plain(value)
    bare = _LITERAL.sub("", code).lower()
    if _ELAPSED.search(code):
        return _elapsed(value)
    if code != "General" and "general" not in bare and re.search("[ymdhs]", bare):
        return _moment(value, bare, from_1904)
    sections: list[str] = _SECTION.findall(code)[:3]
    if _CONDITION.search(code) or "/" in bare or "e" in bare or abs(value) >= _LONGEST:
        return plain(value)
    section, signed = sections[0], value < 0
    if value < 0 and len(sections) > 1 and sections[1]:
        section, signed = sections[1], False
    elif value == 0 and len(sections) > 2 and sections[2]:
        section = sections[2]
    text = _numeral(abs(value), section)
    if text is None:
        return plain(value)
    return f"-{text}" if signed and re.search("[1-9]", text) else text


def plain(value: float) -> str:
    """The number itself, without the noise of binary fractions: at most 15 significant digits."""
    if value == int(value) and abs(value) < _LONGEST:
        return str(int(value))
    return format(value, ".15g")


def _numeral(value: float, section: str) -> str | None:
    """A number that is not negative under one section; None where the section is not understood."""
    out: list[str] = []
    placed = False
    percents = _LITERAL.sub("", section).count("%")
    if percents > 1:
        return None
    for quoted, escaped, currency, digits, other in _TOKEN.findall(section):
        if digits:
            if placed or len(digits.partition(".")[2]) > _MOST_DECIMALS:
                return None
            placed = True
            out.append(_digits(Decimal(repr(value)) * 100**percents, digits))
        elif other and other in "@Gg":
            return None
        else:
            out.append(quoted or escaped or currency or other)
    return "".join(out).strip() if placed or section.strip() else None


def _digits(value: Decimal, pattern: str) -> str:
    whole = pattern.rstrip(",")
    value /= Decimal(1000) ** (len(pattern) - len(whole))
    whole, _, fraction = whole.partition(".")
    least = fraction.count("0")
    text = format(
        value.quantize(Decimal(1).scaleb(-len(fraction)), ROUND_HALF_UP), ",f" if "," in whole else "f"
    )
    integer, _, decimals = text.partition(".")
    while len(decimals) > least and decimals.endswith("0"):
        decimals = decimals[:-1]
    integer = integer.rjust(whole.count("0"), "0")
    if integer == "0" and "0" not in whole:
        integer = ""
    return f"{integer}.{decimals}" if decimals else integer


def _moment(value: float, bare: str, from_1904: bool) -> str:
    try:
        moment = (_EPOCH_1904 if from_1904 else _EPOCH_1900) + timedelta(seconds=round(value * 86_400))
    except OverflowError:
        return plain(value)
    if not re.search("[yd]", bare) and re.search("[hs]", bare):
        return moment.strftime("%H:%M:%S") if "s" in bare else moment.strftime("%H:%M")
    if moment.hour or moment.minute or moment.second:
        return moment.isoformat(sep=" ")
    return moment.date().isoformat()


def _elapsed(value: float) -> str:
    if abs(value) >= _LONGEST:
        return plain(value)
    seconds = round(abs(value) * 86_400)
    sign = "-" if value < 0 else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

"""What a filing says about itself on its cover: who, which year, which period, which form."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from models.knowledge import periods

_COVER_PAGES = 2
_FORM = re.compile(r"\bform\s+(10-[kq]|8-k|20-f|40-f|6-k)(?:/a)?\b", re.IGNORECASE)
_PERIOD_ENDED = re.compile(
    r"\b(?:fiscal\s+year|year|quarterly\s+period|quarter|period|weeks\)?(?:[^.\n]{0,40}))\s*,?\s*end(?:ed|ing)\s*:?\s*",
    re.IGNORECASE,
)
_REGISTRANT = re.compile(r"\(\s*exact\s+name\s+of\s+(?:the\s+)?(?:registrant|company)", re.IGNORECASE)
_TICKER = re.compile(
    r"\b([A-Z]{1,5}(?:\.[A-Z])?)\s+(?:the\s+)?(?:new\s+york\s+stock\s+exchange|nyse|nasdaq)", re.IGNORECASE
)
_TICKER_PREFIXED = re.compile(r"\b(?:nasdaq|nyse)(?:\s?gs)?\s*:\s*([A-Z]{1,5}(?:\.[A-Z])?)\b", re.IGNORECASE)
_FISCAL_YEAR = re.compile(r"\b(?:fiscal\s+(?:year\s+)?|fy\s?)((?:19|20)\d\d)\b", re.IGNORECASE)
_RELEASE_HEAD = re.compile(
    r"^(.{2,80}?)\s+(?:reports|announces|posts|delivers)\b.{0,80}?\b(?:results|quarter|year|earnings)",
    re.IGNORECASE | re.MULTILINE,
)
_LEGAL_ENDING = re.compile(
    r"[,\s]+(?:inc(?:orporated)?|corp(?:oration)?|co(?:mpany)?|companies|ltd|limited|llc|l\.?p|plc|n\.?v|s\.?a|ag|se|"
    r"group|holdings?|trust|& co|the|/[a-z]{2,3}/?)\.?$",
    re.IGNORECASE,
)
_DOMAIN_ENDING = re.compile(r"\.(?:com|net|org|io)$", re.IGNORECASE)
_BOILERPLATE = re.compile(
    r"form|mark one|united states|securities|commission|washington|transition|annual report|quarterly"
    r"|☒|☐|act of",
    re.IGNORECASE,
)

# First words shared by so many companies that one alone does not tell which.
_COMMON_FIRST_WORDS = frozenset(
    {"american", "united", "general", "first", "national", "international", "southern", "northern", "western"}
    | {"eastern", "north", "south", "west", "east", "central", "atlantic", "pacific", "new", "old", "great"}
    | {
        "standard",
        "advanced",
        "applied",
        "global",
        "digital",
        "public",
        "royal",
        "union",
        "capital",
        "energy",
    }
    | {"health", "financial", "home", "state", "city", "best", "check", "the", "us", "u.s."}
)


def metadata_of(first_units: Sequence[str]) -> dict[str, Any]:
    """Read company, ticker, fiscal year, period and form off a filing's first pages.

    `first_units` are the texts of the first pages in order. The result holds what was found of `company`
    (str), `ticker` (str), `aliases` (list of str), `fiscal_year` (int), `period` (the last day covered, ISO
    date) and `form`; {} for a document that is no filing.
    """
    cover = "\n".join(first_units[:_COVER_PAGES])
    found: dict[str, Any] = {}
    form = _FORM.search(cover)
    release = _RELEASE_HEAD.search(" ".join(cover[:400].split("\n"))) if not form else None
    if not form and not release:
        return {}
    found["form"] = form[1].upper() if form else "8-K"
    company = _registrant(cover) if form else _release_company(cover)
    if company:
        found["company"] = company
        found["aliases"] = list(aliases_of(company))
    ticker = _TICKER_PREFIXED.search(cover) or next(
        (match for match in _TICKER.finditer(cover) if match[1].isupper()), None
    )
    if ticker and ticker[1].isupper():
        found["ticker"] = ticker[1]
    ended = _period_end(cover)
    if ended:
        found["period"] = ended.isoformat()
    year = _fiscal_year(cover, ended, found["form"])
    if year:
        found["fiscal_year"] = year
    return found


@lru_cache(maxsize=4096)
def aliases_of(company: str) -> tuple[str, ...]:
    """Shorter names of a company: its full one without legal ending or domain, and its initials."""
    core = company.strip()
    while (shorter := _LEGAL_ENDING.sub("", core)) != core and shorter:
        core = shorter
    core = re.sub(r"^the\s+", "", core, flags=re.IGNORECASE)
    names = [core, _DOMAIN_ENDING.sub("", core)]
    words = names[-1].split()
    if len(words) > 1 and words[0].lower().strip(",") not in _COMMON_FIRST_WORDS and len(words[0]) > 4:
        names.append(words[0].strip(","))
    if "&" in words:
        letters = [word[0] for word in words]
        names += ["".join(letters), "".join("n" if letter == "&" else letter for letter in letters)]
    elif len(words) > 2:
        names.append("".join(word[0] for word in words if word[0].isupper()))
    return tuple(dict.fromkeys(name for name in names if len(name) > 1 and name != company))


def names_of(metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """The names by which a question may call a document's company, and its ticker ("" where unknown)."""
    company = str(metadata.get("company") or "")
    listed = tuple(str(alias) for alias in metadata.get("aliases") or ())
    names = ((company, *aliases_of(company)) if company else ()) + listed
    return tuple(dict.fromkeys(name for name in names if name)), str(metadata.get("ticker") or "")


def _registrant(cover: str) -> str:
    mark = _REGISTRANT.search(cover)
    if not mark:
        return ""
    for line in reversed(cover[: mark.start()].splitlines()[-4:]):
        name = line.replace("_", " ").strip(" -–—")
        if re.search(r"[A-Za-z]{2}", name) and not _BOILERPLATE.search(name):
            return _cased(" ".join(name.split())[:120])
    return ""


def _release_company(cover: str) -> str:
    head = _RELEASE_HEAD.search(" ".join(cover[:400].split("\n")))
    name = head[1] if head else ""
    name = re.sub(r"^(?:news|press)\s+release\s*", "", name, flags=re.IGNORECASE).strip(" :-–—")
    return _cased(" ".join(name.split())[:120])


def _cased(name: str) -> str:
    """A name set in capitals, as a person would write it; others unchanged."""
    if not name.isupper() or len(name) <= 4:
        return name
    words = name.split()
    return " ".join(word if _is_initialism(word) else word.capitalize() for word in words)


def _is_initialism(word: str) -> bool:
    """AES, J.M. and 3M stay as they are; THE, INC. and CO do not."""
    letters = word.strip(".,").lower()
    short = len(letters) <= 3 and letters not in {"the", "inc", "co", "ltd", "and", "of", "for", "new"}
    return short or any(character.isdigit() for character in word)


def _period_end(cover: str) -> date | None:
    for match in _PERIOD_ENDED.finditer(cover):
        days = periods.dates_in(cover[match.end() : match.end() + 40])
        if days:
            return days[0]
    return None


def _fiscal_year(cover: str, ended: date | None, form: str) -> int | None:
    stated = _FISCAL_YEAR.search(cover)
    if stated and (not ended or abs(int(stated[1]) - ended.year) <= 1):
        return int(stated[1])
    if ended is None:
        return None
    # A year that ends in the first days of January is the one before (52/53-week years).
    return ended.year - 1 if form == "10-K" and ended.month == 1 and ended.day <= 7 else ended.year

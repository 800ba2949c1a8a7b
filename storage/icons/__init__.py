"""Icons of bots: what is uploaded is decoded and made anew, so that nothing but a picture is ever served."""

from __future__ import annotations

import io
import os
import re
import secrets
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from models.errors import Conflict, RuleBroken, TooLarge
from storage.database import OfTenant
from storage.settings import settings

SHARED = Path(__file__).parent
LIMIT = 2 << 20
"""Bytes of an upload."""
MOST_PIXELS = 4_000_000
LONGEST_SIDE = 512
"""Pixels of what is kept; larger pictures are made smaller."""
MOST = 200
"""Icons of one tenant."""
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}
_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF"}
_NAME = re.compile(r"[0-9a-z-]{1,64}\.png")
_FOREIGN = re.compile(rb"<(?:script|svg|html|\?php|!doctype)|%PDF-|PK\x03\x04", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Icon:
    """A picture that bots may show; ``shared``: every tenant may."""

    name: str
    url: str
    shared: bool


def shared() -> list[Icon]:
    """The icons that come with the product."""
    base = f"{settings().cdn_url}/static/bots"
    return [Icon(path.stem, f"{base}/{path.name}", True) for path in sorted(SHARED.glob("*.png"))]


def folder_of(tenant_id: str) -> Path:
    """Where a tenant's icons are."""
    return settings().data_dir / "icons" / f"tenant-{tenant_id}"


def of_tenant(of: OfTenant) -> list[Icon]:
    """What the tenant uploaded, newest first."""
    folder = folder_of(of.tenant_id)
    paths = sorted(folder.glob("*.png"), key=lambda path: (-path.stat().st_mtime_ns, path.name))
    return [_icon(of, path) for path in paths]


def shared_path(name: str) -> Path | None:
    """The file of a shared icon, if there is one of that name."""
    return _there(SHARED, name)


def tenant_path(tenant_id: str, name: str) -> Path | None:
    """The file of a tenant's icon, if there is one of that name."""
    return _there(folder_of(tenant_id), name)


def received(file: BinaryIO, *, name: str, media_type: str) -> bytes:
    """The picture of an upload, made anew; ``TooLarge`` or ``RuleBroken`` for what is no icon."""
    content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise TooLarge(f"An icon has at most {LIMIT} bytes.", pointer="/file")
    return remade(content, name=name, media_type=media_type)


def keep(of: OfTenant, made: bytes) -> Icon:
    """Keep a picture that was made anew, under a name that nobody guesses."""
    folder = folder_of(of.tenant_id)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sum(1 for _ in folder.glob("*.png")) >= MOST:
        raise Conflict(f"A tenant has at most {MOST} icons.")
    path = folder / f"{secrets.token_hex(16)}.png"
    beside = path.with_suffix(".part")
    try:
        beside.write_bytes(made)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return _icon(of, path)


def remade(content: bytes, *, name: str, media_type: str) -> bytes:
    """The picture as a PNG of our own; ``RuleBroken`` for anything but one whole picture of its kind."""
    try:
        with Image.open(io.BytesIO(content), formats=tuple(FORMATS.values())) as picture:
            kind = picture.format or ""
            _check_label(kind, name, media_type)
            if picture.width * picture.height > MOST_PIXELS:
                raise RuleBroken(f"A picture has at most {MOST_PIXELS} pixels.", pointer="/file")
            if _FOREIGN.search(content) or _end(kind, content) != len(content):
                raise RuleBroken(
                    "The file holds more than a picture. Save it anew as a picture alone.", pointer="/file"
                )
            picture.load()
            plain = ImageOps.exif_transpose(picture).convert("RGBA")
    except UnidentifiedImageError as fault:
        raise RuleBroken("The file is no PNG, JPEG, WebP or GIF.", pointer="/file") from fault
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        OverflowError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as fault:
        raise RuleBroken("The picture is damaged or too large.", pointer="/file") from fault
    plain.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    clean = Image.new("RGBA", plain.size)
    clean.paste(plain)  # pixels alone: no profile, comment or other metadata comes along
    out = io.BytesIO()
    clean.save(out, "PNG", optimize=True)
    return out.getvalue()


def _check_label(kind: str, name: str, media_type: str) -> None:
    declared = FORMATS.get(media_type.partition(";")[0].strip().lower())
    suffix = Path(name).suffix.lower()
    fits_type = declared == kind or media_type in ("", "application/octet-stream")
    if not fits_type or (suffix and _SUFFIXES.get(suffix) != kind):
        raise RuleBroken(f"The file is a {kind}, but its name or media type says otherwise.", pointer="/file")


def _end(kind: str, content: bytes) -> int:
    """Where the picture ends; anything behind it is no part of it. -1 where its end is missing."""
    if kind == "PNG":
        return _end_of_png(content)
    if kind == "JPEG":
        return _end_of_jpeg(content)
    if kind == "WEBP":
        size = int.from_bytes(content[4:8], "little")
        return 8 + size + size % 2
    return _end_of_gif(content)


def _end_of_png(content: bytes) -> int:
    """PNG, third edition, 5.3: length, type, data and checksum of each chunk, up to IEND."""
    at = 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        kind, at = content[at + 4 : at + 8], at + 12 + length
        if kind == b"IEND":
            return at
    return -1


def _end_of_jpeg(content: bytes) -> int:
    """ITU-T T.81, B.1.1: marker segments, each with its length; coded data runs to the next marker."""
    at = 2
    while at + 2 <= len(content):
        if content[at] != 0xFF:
            at += 1  # entropy-coded data
            continue
        marker = content[at + 1]
        if marker == 0xD9:
            return at + 2
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD7:
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return -1


def _end_of_gif(content: bytes) -> int:
    """GIF89a: blocks of sub-blocks behind the global colours, up to the trailer."""
    at = 13 + _colours(content[10])
    while at < len(content):
        introducer = content[at]
        if introducer == 0x3B:
            return at + 1
        if introducer == 0x21:
            at += 2
        elif introducer == 0x2C:
            at += 11 + _colours(content[at + 9])
        else:
            return -1
        while content[at]:
            at += 1 + content[at]
        at += 1
    return -1


def _colours(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _icon(of: OfTenant, path: Path) -> Icon:
    return Icon(path.stem, f"{settings().cdn_url}/static/icons/tenant-{of.tenant_id}/{path.name}", False)


def _there(folder: Path, name: str) -> Path | None:
    path = folder / name
    return path if _NAME.fullmatch(name) and path.is_file() else None

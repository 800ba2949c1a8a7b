"""What the host decides, read from the environment once. Nothing else reads the environment."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit


class SettingsError(Exception):
    """A setting is wrong; the text says which and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The installation's settings. See ``.env.example`` for what each does."""

    data_dir: Path
    database_url: str
    secret_keys: tuple[str, ...] = field(repr=False)
    chroma_url: str | None
    redis_url: str | None
    searxng_url: str | None
    workers: int
    public_url: str
    cdn_url: str
    trusted_proxies: tuple[str, ...]
    openai_api_key: str | None = field(repr=False)
    openai_base_url: str | None
    openai_model: str
    openai_context_window: int
    embeddings: str
    embeddings_dir: Path | None
    embeddings_model: str
    rate_limit_per_minute: int
    audit_retention_days: int | None
    allow_private_addresses: bool
    json_logs: bool
    open_registration: bool
    smtp_url: str | None = field(repr=False)
    mail_from: str | None

    @property
    def is_sqlite(self) -> bool:
        """Whether SQL is embedded."""
        return self.database_url.startswith("sqlite")

    @property
    def has_openai(self) -> bool:
        """Whether the environment configures an OpenAI-compatible provider."""
        return bool(self.openai_api_key or self.openai_base_url)


def _flag(name: str) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text in ("", "0", "false", "no", "off"):
        return False
    if text in ("1", "true", "yes", "on"):
        return True
    raise SettingsError(f"{name} is {text!r}: use true or false.")


def _number(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal() or not low <= int(text) <= high:
        raise SettingsError(f"{name} is {text!r}: use a whole number from {low} to {high}.")
    return int(text)


def _url(name: str, schemes: tuple[str, ...]) -> str | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in schemes and (parts.scheme.startswith("sqlite") or bool(parts.hostname))
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(
            f"{name} is not a usable URL: it should begin with {' or '.join(s + '://' for s in schemes)}."
        )
    return text.rstrip("/") if parts.scheme.startswith("http") else text


def _address(name: str) -> str | None:
    text = os.environ.get(name, "").strip()
    if text and not re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+", text):
        raise SettingsError(f"{name} is {text!r}: use an address like booga@example.com.")
    return text or None


def _proxies() -> tuple[str, ...]:
    """Addresses or networks. A name would trust nobody, and ``*`` whoever claims to be somebody else."""
    given = [part.strip() for part in os.environ.get("BOOGA_TRUSTED_PROXIES", "").split(",") if part.strip()]
    for text in given:
        try:
            ipaddress.ip_network(text)
        except ValueError as fault:
            raise SettingsError(
                f"BOOGA_TRUSTED_PROXIES holds {text!r}: use addresses (10.0.0.5) or networks (10.0.0.0/24)."
            ) from fault
    return tuple(given)


def _generated_secret(data_dir: Path) -> str:
    """The embedded default's own secret: made once, readable by its owner alone."""
    path = data_dir / "secret.key"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(48))
    return path.read_text().strip()


def _database_url(data_dir: Path) -> tuple[str, bool]:
    given = _url("BOOGA_DATABASE_URL", ("postgresql", "postgresql+psycopg", "postgres", "sqlite"))
    if given is None:
        return f"sqlite:///{data_dir / 'booga.db'}", True
    if given.startswith("sqlite"):
        return given, False
    return "postgresql+psycopg://" + given.split("://", 1)[1], False


def read() -> Settings:
    """Read and check the environment; raise ``SettingsError`` with one clear line."""
    data_dir = Path(os.environ.get("BOOGA_DATA_DIR", "").strip() or "data").absolute()
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as fault:
        raise SettingsError(f"BOOGA_DATA_DIR {data_dir} cannot be made: {fault.strerror}.") from fault
    if not os.access(data_dir, os.W_OK):
        raise SettingsError(f"BOOGA_DATA_DIR {data_dir} cannot be written to.")
    database_url, embedded = _database_url(data_dir)
    given_secret = os.environ.get("BOOGA_SECRET_KEY", "").strip()
    if not given_secret and not embedded:
        raise SettingsError(
            "BOOGA_SECRET_KEY is missing: with BOOGA_DATABASE_URL set, give 32 characters or more."
        )
    if given_secret and any(len(part.strip()) < 32 for part in given_secret.split(",")):
        raise SettingsError(
            "BOOGA_SECRET_KEY is too short: each secret (comma between) needs 32 characters or more."
        )
    chroma_url = _url("BOOGA_CHROMA_URL", ("http", "https"))
    workers = _number("BOOGA_WORKERS", 1, 1, 64)
    if workers > 1 and chroma_url is None:
        raise SettingsError(
            f"BOOGA_WORKERS is {workers}, but embedded Chroma allows one: set BOOGA_CHROMA_URL, too."
        )
    embeddings = os.environ.get("BOOGA_EMBEDDINGS", "").strip() or "offline"
    if embeddings not in ("offline", "openai", "none"):
        raise SettingsError(f"BOOGA_EMBEDDINGS is {embeddings!r}: use offline, openai or none.")
    openai_base_url = _url("OPENAI_BASE_URL", ("http", "https"))
    openai_api_key = os.environ.get("OPENAI_API_KEY", "").strip() or None
    if embeddings == "openai" and not (openai_api_key or openai_base_url):
        raise SettingsError(
            "BOOGA_EMBEDDINGS is openai, but neither OPENAI_API_KEY nor OPENAI_BASE_URL is set."
        )
    embeddings_dir = os.environ.get("BOOGA_EMBEDDINGS_DIR", "").strip()
    public_url = _url("BOOGA_PUBLIC_URL", ("http", "https")) or "http://127.0.0.1:8000"
    return Settings(
        data_dir=data_dir,
        database_url=database_url,
        secret_keys=tuple(part.strip() for part in (given_secret or _generated_secret(data_dir)).split(",")),
        chroma_url=chroma_url,
        redis_url=_url("BOOGA_REDIS_URL", ("redis", "rediss")),
        searxng_url=_url("BOOGA_SEARXNG_URL", ("http", "https")),
        workers=workers,
        public_url=public_url,
        cdn_url=_url("BOOGA_CDN_URL", ("http", "https")) or public_url,
        trusted_proxies=_proxies(),
        openai_api_key=openai_api_key,
        openai_base_url=openai_base_url,
        openai_model=os.environ.get("BOOGA_OPENAI_MODEL", "").strip() or "gpt-4o-mini",
        openai_context_window=_number("BOOGA_OPENAI_CONTEXT_WINDOW", 8192, 512, 10_000_000),
        embeddings=embeddings,
        embeddings_dir=Path(embeddings_dir) if embeddings_dir else None,
        embeddings_model=os.environ.get("BOOGA_EMBEDDINGS_MODEL", "").strip() or "text-embedding-3-small",
        rate_limit_per_minute=_number("BOOGA_RATE_LIMIT_PER_MINUTE", 3000, 1, 10_000_000),
        audit_retention_days=_number("BOOGA_AUDIT_RETENTION_DAYS", 0, 0, 36_500) or None,
        allow_private_addresses=_flag("BOOGA_ALLOW_PRIVATE_ADDRESSES"),
        json_logs=_flag("BOOGA_JSON_LOGS") or not sys.stderr.isatty(),
        open_registration=_flag("BOOGA_OPEN_REGISTRATION"),
        smtp_url=_url("BOOGA_SMTP_URL", ("smtp", "smtps")),
        mail_from=_address("BOOGA_MAIL_FROM"),
    )


@cache
def settings() -> Settings:
    """The settings of this process."""
    return read()

"""Providers that a tenant brings along: where they are, what they serve and at which price."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import CheckConstraint, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Entity, TenantOwned, own_key
from models.chat.ports import Price
from models.errors import RuleBroken

OPENAI_URL = "https://api.openai.com/v1"
"""Where a provider of kind ``openai`` is when nothing else is said."""
HINT = 4
"""The last characters of a key that may be shown, of keys that are not much longer themselves none."""


class Kind(enum.StrEnum):
    """What a provider speaks: the protocol of OpenAI's servers, or none, since it is the embedded one."""

    OPENAI = "openai"
    EXTRACTIVE = "extractive"


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL (RFC 6454): what a key is entered for."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{(parts.hostname or '').rstrip('.')}:{port}"


def hint_of(key: str) -> str:
    """What is shown of a key, so that people recognise it."""
    return key[-HINT:] if len(key) > HINT + 2 else ""


class LlmProvider(TenantOwned, Entity):
    """A provider of a tenant. ``models`` are ``{"name", "input_price", "output_price", "context_window"}``,
    the first of them for personas that name the provider and no model; ``sealed_key`` is the key with the
    origin that it is for.
    """

    __tablename__ = "llm_providers"
    __table_args__ = (
        own_key(),
        UniqueConstraint("tenant_id", "name"),
        CheckConstraint("kind IN ('openai', 'extractive')"),
    )

    name: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(20))
    base_url: Mapped[str | None] = mapped_column(String(500))
    sealed_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    api_key_hint: Mapped[str | None] = mapped_column(String(HINT))
    models: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    order: Mapped[int] = mapped_column(default=0)
    is_active: Mapped[bool] = mapped_column(default=True)

    @property
    def url(self) -> str:
        """Where its server is."""
        return self.base_url or OPENAI_URL

    def move_to(self, base_url: str | None, *, with_new_key: bool) -> None:
        """Set the address. A key is never sent to another host than the one it was entered for."""
        before = origin_of(self.url)
        self.base_url = base_url
        if self.sealed_key is not None and not with_new_key and origin_of(self.url) != before:
            raise RuleBroken(
                "The key was entered for another host: give it again, or null.", pointer="/api_key"
            )


def check_fields(kind: str, base_url: str | None, api_key: str | None) -> None:
    """Refuse what the embedded provider has no use for."""
    if kind != Kind.EXTRACTIVE:
        return
    for field, value in (("base_url", base_url), ("api_key", api_key)):
        if value is not None:
            raise RuleBroken("The embedded provider has no server and needs no key.", pointer=f"/{field}")


def offered(models: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The list of models as it is kept: each once, with prices and context window or null."""
    seen: set[str] = set()
    kept = []
    for position, model in enumerate(models):
        if model["name"] in seen:
            raise RuleBroken("The model stands in the list already.", pointer=f"/models/{position}/name")
        seen.add(model["name"])
        kept.append({"input_price": None, "output_price": None, "context_window": None, **model})
    return kept


def price_of(model: dict[str, Any]) -> Price | None:
    """The price of an entry of ``models``; None unless both sides are known."""
    if model["input_price"] is None or model["output_price"] is None:
        return None
    return Price(model["input_price"], model["output_price"])

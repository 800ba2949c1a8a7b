"""Which providers may answer a turn, in the order of fallback.

The persona's own provider if it names one; else every active provider of the tenant's table that lists the
model, by order; else ``openai`` when the environment configures it; else ``extractive``. The model is the
installation's where nobody names one. A name of the table goes before a built-in one.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import structlog
from cryptography.fernet import InvalidToken
from sqlalchemy import Table, bindparam, select

from models.chat.context import DEFAULT_WINDOW
from models.chat.extractive import ExtractiveProvider
from models.chat.ports import Candidate, Message, Price, Prompt, ProviderError, TextDelta
from models.chat.providers import OPENAI_URL, Kind, LlmProvider, hint_of, origin_of, price_of
from models.errors import RuleBroken, Unavailable
from storage import secrets
from storage.database import OfTenant, Session, reading
from storage.outbound import OutboundRefused, check_provider
from storage.settings import settings

if TYPE_CHECKING:
    from storage.providers import OpenAIProvider

log = structlog.get_logger("booga.provision")

BUILT_IN = ("openai", "extractive")
PATIENCE = 60.0
IMPATIENCE = 20.0
"""Seconds until the first event of a reply: where nobody else could write it, and where somebody could."""
TRIAL_SECONDS = 9.0


@dataclass(frozen=True, slots=True)
class Offer:
    """What is known of a model: its price, and the tokens that its context takes."""

    price: Price | None = None
    context_window: int = DEFAULT_WINDOW


@dataclass(frozen=True, slots=True)
class Own:
    """A provider of a tenant's table, as turns need it."""

    name: str
    kind: str
    url: str
    sealed_key: bytes | None
    models: dict[str, Offer]
    is_active: bool

    @classmethod
    def of(cls, row: Any) -> Own:
        """From a row of the table."""
        models = {
            model["name"]: Offer(price_of(model), model.get("context_window") or DEFAULT_WINDOW)
            for model in row.models
        }
        return cls(row.name, row.kind, row.base_url or OPENAI_URL, row.sealed_key, models, row.is_active)

    def provider(self, patience: float) -> OpenAIProvider:
        """Its server; ``Unavailable`` when its key is not readable, or not for that server."""
        from storage.providers import OpenAIProvider  # half a second and 33 MB, for those who use one

        return OpenAIProvider(
            self.name,
            self.url,
            _opened(self.sealed_key, self.url, self.name),
            first_byte_timeout=patience,
            is_tenants=True,
        )

    def candidate(self, chat_model: str | None, patience: float) -> Candidate:
        """Itself in the order of fallback, asked for that model, or for its first one."""
        model = chat_model or next(iter(self.models), None)
        offer = self.models.get(model or "", Offer())
        if self.kind == Kind.EXTRACTIVE:
            return Candidate(ExtractiveProvider(self.name), "extractive", offer.price)
        if model is None:
            raise RuleBroken(f"No chat model is named, and the provider {self.name} lists none.")
        return Candidate(self.provider(patience), model, offer.price, offer.context_window)


# -- keys


def keep_key(row: LlmProvider, api_key: str | None) -> None:
    """Seal a provider's key, together with the origin that it is for; None removes it. The same one stays."""
    if api_key and row.sealed_key and _is_sealed(row, api_key):
        return
    row.sealed_key = None if api_key is None else secrets.seal(f"{origin_of(row.url)} {api_key}".encode())
    row.api_key_hint = None if api_key is None else hint_of(api_key)


def _is_sealed(row: LlmProvider, api_key: str) -> bool:
    try:
        return _opened(row.sealed_key, row.url, row.name) == api_key
    except Unavailable:
        return False


def _opened(sealed: bytes | None, url: str, name: str) -> str:
    if sealed is None:
        return ""
    try:
        origin, _, key = secrets.unseal(sealed).decode().partition(" ")
    except InvalidToken:
        log.error("a provider's key was sealed with another secret", provider=name)
        origin, key = "", ""
    if origin != origin_of(url):
        raise Unavailable(
            f"The key of the provider {name} cannot be used. An administrator has to enter it again."
        )
    return key


def check_address(base_url: str | None) -> None:
    """Refuse an address that tenants may not have asked."""
    if base_url is not None:
        try:
            check_provider(base_url)
        except OutboundRefused as fault:
            fault.pointer = "/base_url"
            raise


# -- a tenant's table

_TABLE = cast(Table, LlmProvider.__table__)
_OWN = (
    select(
        _TABLE.c.name,
        _TABLE.c.kind,
        _TABLE.c.base_url,
        _TABLE.c.sealed_key,
        _TABLE.c.models,
        _TABLE.c.is_active,
    )
    .where(_TABLE.c.tenant_id == bindparam("tenant_id"))
    .order_by(_TABLE.c.order, _TABLE.c.id)
)
"""In SQLAlchemy Core: 0.05 ms, at every turn, so that a change holds at once in every process."""


def _own(of: OfTenant) -> dict[str, Own]:
    """The tenant's providers by name, in order."""
    with reading(of) as db:
        rows = db.connection().execute(_OWN, {"tenant_id": of.tenant_id})
        return {row.name: Own.of(row) for row in rows}


def active(of: OfTenant) -> list[Own]:
    """The tenant's own providers that may answer, in order."""
    return [own for own in _own(of).values() if own.is_active]


# -- the order of a turn


def check_name(db: Session, name: str | None, pointer: str) -> None:
    """Refuse a provider that nobody knows. A built-in one is known also where it is not configured."""
    if name is None or name in BUILT_IN:
        return
    if db.scalar(select(LlmProvider.id).where(LlmProvider.name == name)) is None:
        known = [*db.scalars(select(LlmProvider.name).order_by(LlmProvider.order).limit(20)), *BUILT_IN]
        raise RuleBroken(
            f"There is no provider of this name; known are {', '.join(dict.fromkeys(known))}.",
            pointer=pointer,
        )


def candidates(of: OfTenant, llm_provider: str | None, chat_model: str | None) -> list[Candidate]:
    """The providers of a turn, and the model to ask each for. ``llm_provider``: the persona's own, if any."""
    if llm_provider is not None:
        own = _own(of).get(llm_provider)
        if own is None:
            return [_built_in(llm_provider, chat_model)]
        if not own.is_active:
            raise Unavailable(f"The provider {own.name} is switched off.")
        return [own.candidate(chat_model, PATIENCE)]
    model = chat_model or settings().openai_model
    listing = [own for own in active(of) if model in own.models]
    if listing:
        *firsts, last = listing
        return [*(own.candidate(model, IMPATIENCE) for own in firsts), last.candidate(model, PATIENCE)]
    return [_built_in("openai" if settings().has_openai else "extractive", chat_model)]


def _built_in(name: str, chat_model: str | None) -> Candidate:
    if name == "extractive":
        return Candidate(ExtractiveProvider(), "extractive")
    if name != "openai":
        raise Unavailable(f"There is no provider {name} any more.")
    if not settings().has_openai:
        raise Unavailable("The provider openai is not configured on this server.")
    from storage.providers import OpenAIProvider  # as above

    provider = OpenAIProvider(
        "openai", settings().openai_base_url or OPENAI_URL, settings().openai_api_key or "none"
    )
    return Candidate(
        provider, chat_model or settings().openai_model, context_window=settings().openai_context_window
    )


# -- trying one out


@dataclass(frozen=True, slots=True)
class Trial:
    """How a provider did. ``models`` is the length of its server's list, None where it keeps none."""

    latency_ms: float
    models: int | None
    error: ProviderError | None


async def try_out(own: Own) -> Trial:
    """Ask for the list of models, then the first of ours for a word; within ``TRIAL_SECONDS`` altogether.

    The list alone tells too little: a key whose money is spent may read it.
    """
    if own.kind == Kind.EXTRACTIVE:
        return Trial(0.0, len(own.models), None)
    listed, began = None, time.monotonic()
    error: ProviderError | None = None
    try:
        provider = own.provider(TRIAL_SECONDS)
        async with asyncio.timeout(TRIAL_SECONDS):
            listed = await provider.count_models()
            if own.models:
                began = time.monotonic()
                await _first_word(provider, next(iter(own.models)))
    except ProviderError as fault:
        error = fault
    except Unavailable as fault:
        error = ProviderError("provider_refused", fault.detail)
    except TimeoutError:
        error = ProviderError("provider_timeout", "The provider took too long.")
    return Trial(round((time.monotonic() - began) * 1000, 1), listed, error)


async def _first_word(provider: OpenAIProvider, chat_model: str) -> None:
    prompt = Prompt(chat_model, (Message("user", "Answer with the word yes."),))
    async with aclosing(provider.stream(prompt)) as parts:
        async for part in parts:
            if isinstance(part, TextDelta):
                return  # closing the stream ends the call, and what it costs


def shown(trial: Trial) -> dict[str, Any]:
    """As the contract shows it."""
    error = trial.error
    return {
        "ok": error is None,
        "latency_ms": trial.latency_ms,
        "models": trial.models,
        "error": None if error is None else {"code": error.code, "detail": error.detail},
    }


def prepare() -> None:
    """Load in the background what the first turn of a language model would wait for; returns at once."""
    if settings().has_openai:
        threading.Thread(target=importlib.import_module, args=["storage.providers"], daemon=True).start()


async def close() -> None:
    """Close the connections to providers, if any were made."""
    loaded = sys.modules.get("storage.providers")
    if loaded is not None:
        await loaded.aclose_all()

"""The canary's tenant as rows: one at least in every table of a tenant's, straight into a server's database.

Quick, so that every server of the suite has it. What only the server itself can make of such rows (vectors,
answers, prompts) is there where ``tests.contract.marked`` has the tenant do all that the contract lets it do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import TypeVar

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from models.access import ApiKey, SignIn, digest, effective_scopes
from models.audit import ActorKind, AuditAction, AuditEntry
from models.base import Base, new_id, now
from models.bots import Bot, BotDay, BotReservation
from models.chat.analytics import LatencyHour, UsageHour, bar_of, hour_of
from models.chat.conversations import ChatMessage, ChatSession, Citation, UsageRecord
from models.chat.providers import LlmProvider
from models.configuration import Configuration
from models.exports import ExportStatus, TenantExport
from models.knowledge.keywords import document_postings
from models.knowledge.library import (
    Category,
    Chunk,
    Document,
    DocumentCategory,
    IngestStatus,
    KnowledgeIndex,
    Posting,
)
from models.knowledge.passages import Passage
from models.letters import Letter, LetterKind
from models.personas import Persona, PersonaAssignment, PersonaCategory, PersonaIndex, PersonaVersion
from models.second_factor import SecondFactor
from models.tenancy import (
    Organization,
    Product,
    RegionAssignment,
    Role,
    Seat,
    Stack,
    Subscription,
    Tenant,
    TokenDay,
    TokenReservation,
    User,
)
from models.webhooks import Delivery, DeliveryStatus, Webhook
from models.work import IdempotencyRecord, Job, JobStatus
from storage import secrets
from storage.library import FORGET
from tests import canary
from tests.canary import FIGURE, WORD

PASSWORD = "correct horse battery staple"
TEXT = f"Revenue of the {WORD} rose to {FIGURE}."
SITE = f"https://{WORD}.example"
_numbers = count(1)
Row = TypeVar("Row", bound=Base)


@cache
def _hashed() -> str:
    return secrets.hash_password(PASSWORD)


class _Planting:
    """Puts rows in, each the tenant's, under ids that show whose they are."""

    def __init__(self, db: Session, tenant_id: str) -> None:
        self.db, self.tenant_id = db, tenant_id

    def put(self, row: Row) -> Row:
        """Add a row and send it, so that what refers to it can follow."""
        for name, value in (("tenant_id", self.tenant_id), ("id", _marked_id())):
            if hasattr(row, name) and getattr(row, name) is None:
                setattr(row, name, value)
        self.db.add(row)
        self.db.flush()
        return row


def _marked_id() -> str:
    return f"{new_id()[:13]}-7{next(_numbers) % 0x1000:03x}-8000-{canary.MARK}"


@contextmanager
def database_of(data_dir: Path, environment: Mapping[str, str]) -> Iterator[Session]:
    """The database of an installation, all tenants at once."""
    url = environment.get("BOOGA_DATABASE_URL", f"sqlite:///{data_dir / 'booga.db'}")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


def plant(data_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Make the canary's tenant beside one that is there; what ``Server.bootstrap`` tells of a tenant."""
    with database_of(data_dir, environment) as db:
        return _planted(db, data_dir, environment)


def _planted(db: Session, data_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    beside = db.scalars(select(Stack).limit(1)).one_or_none()
    assert beside is not None, "there is no tenant yet whose product the canary could have, too"
    given = environment.get("BOOGA_SECRET_KEY") or (data_dir / "secret.key").read_text().strip()
    sealed = secrets.keyring(given.split(",")).encrypt(WORD.encode())
    tenant = Tenant(id=_marked_id(), name=f"Tenant {canary.NAME}")
    db.add(tenant)
    db.flush()
    planting = _Planting(db, tenant.id)
    stack, owner, persona, key = _people(planting, beside, sealed)
    document = _knowledge(planting, persona, data_dir / "files")
    _conversations(planting, persona, owner, document)
    _around(planting, stack, owner, persona, sealed)
    canary.keys.add(key)
    told = {"tenant_id": tenant.id, "user_id": owner.id, "api_key": key, "stack_id": stack.id}
    return {**told, "email": owner.email, "password": PASSWORD}


def _people(to: _Planting, beside: Stack, sealed: bytes) -> tuple[Stack, User, Persona, str]:
    place = {"product_id": beside.product_id, "region_id": beside.region_id}
    capabilities = to.db.get_one(Product, beside.product_id).capabilities
    terms = {"product_id": beside.product_id, "capabilities": capabilities}
    at = now()
    subscription = to.put(
        Subscription(**terms, seats=FIGURE, period_start=at, period_end=at + timedelta(days=365))
    )
    stack = to.put(Stack(**place, name=f"Stack {WORD}"))
    number = next(_numbers)
    address = f"{WORD}-{number}@example.com"
    owner = to.put(User(email=address, name=f"Mia {WORD}", role=Role.OWNER, password_hash=_hashed()))
    guest = to.put(User(email=f"guest-{address}", name=f"Tom {WORD}", role=Role.MEMBER))
    to.put(Letter.to(to.tenant_id, guest.id, LetterKind.INVITATION)).token_hash = digest(new_id())
    to.put(SecondFactor(user_id=guest.id, sealed_secret=sealed, recovery_hashes=[WORD]))
    to.put(
        SignIn.begin(
            tenant_id=to.tenant_id,
            user_id=owner.id,
            seed=sealed,
            address="10.1.2.3",
            user_agent=f"Browser {WORD}",
        )
    )
    to.put(Seat(subscription_id=subscription.id, user_id=owner.id))
    to.put(RegionAssignment(user_id=owner.id, region_id=beside.region_id))
    scopes = effective_scopes(owner.role, None)
    key, secret = ApiKey.issue(user_id=owner.id, role=owner.role, name=f"Key {WORD}", scopes=scopes)
    to.put(key)
    organization = to.put(Organization(name=f"House {WORD}"))
    persona = to.put(
        Persona(
            stack_id=stack.id,
            organization_id=organization.id,
            name=f"Analyst {WORD}",
            slug=f"analyst-{WORD}",
            description=TEXT,
            system_prompt=TEXT,
            is_default=True,
        )
    )
    to.put(PersonaAssignment(persona_id=persona.id, user_id=guest.id))
    return stack, owner, persona, secret


def _knowledge(to: _Planting, persona: Persona, files: Path) -> Document:
    index = to.put(KnowledgeIndex(name=f"Index {WORD}", description=TEXT))
    category = to.put(Category(name=f"Category {WORD}", description=TEXT))
    to.put(PersonaIndex(persona_id=persona.id, index_id=index.id))
    to.put(PersonaCategory(persona_id=persona.id, category_id=category.id))
    values = persona.snapshot([index.id], [category.id])
    to.put(PersonaVersion(persona_id=persona.id, version=1, values=values))

    content = TEXT.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    folder = files / to.tenant_id / sha256[:2]
    folder.mkdir(parents=True)
    (folder / sha256).write_bytes(content)
    passage = Passage(
        position=0,
        unit=1,
        page=1,
        sheet=None,
        cell=None,
        heading=WORD,
        start=0,
        end=len(TEXT),
        text=TEXT,
        context=WORD,
    )
    postings = document_postings([passage])
    document = to.put(
        Document(
            index_id=index.id,
            scope_id=index.id,
            name=f"{WORD}.txt",
            media_type="text/plain",
            size=FIGURE,
            content_sha256=sha256,
            status=IngestStatus.READY,
            progress=1.0,
            chunk_count=1,
            parsed_at=now(),
            attributes={"company": f"Company {WORD}"},
            layout=postings.layout,
        )
    )
    to.put(DocumentCategory(document_id=document.id, category_id=category.id))
    to.put(
        Chunk(
            document_id=document.id,
            position=0,
            unit=1,
            page=1,
            heading=WORD,
            start=0,
            end=len(TEXT),
            text=TEXT,
            context=WORD,
        )
    )
    for term, entries in postings.terms.items():
        to.db.add(Posting(scope_id=index.id, term=term, document_id=document.id, entries=entries))
    return document


def _conversations(to: _Planting, persona: Persona, owner: User, document: Document) -> None:
    at, place = now(), {"stack_id": persona.stack_id, "persona_id": persona.id}
    session = to.put(
        ChatSession(
            **place,
            user_id=owner.id,
            title=f"Talk {WORD}",
            model=WORD,
            attributes={"note": WORD},
            message_count=2,
            last_message_at=at,
        )
    )
    run = {"session_id": session.id, "run_id": session.id}
    question = to.put(ChatMessage(**run, role="user", content=TEXT, depth=1, created_at=at))
    reply = to.put(
        ChatMessage(
            **run,
            role="assistant",
            content=TEXT,
            depth=2,
            parent_id=question.id,
            created_at=at + timedelta(milliseconds=1),
            usage={
                "prompt_tokens": FIGURE,
                "completion_tokens": 0,
                "total_tokens": FIGURE,
                "source": "provider",
            },
            model=WORD,
            provider=WORD,
            trace={"note": WORD},
            rating="helpful",
            comment=TEXT,
        )
    )
    session.leaf_id = reply.id
    to.put(
        Citation(
            message_id=reply.id,
            number=1,
            index_id=document.index_id,
            document_id=document.id,
            document_name=document.name,
            page=1,
            heading=WORD,
            start=0,
            end=len(TEXT),
            score=0.9,
            quote=TEXT,
            content_sha256=document.content_sha256,
            cited=True,
        )
    )
    bot = to.put(
        Bot(
            **place,
            name=f"Bot {WORD}",
            slug=f"bot-{WORD}",
            description=TEXT,
            greeting=TEXT,
            suggested_questions=[TEXT],
            allowed_origins=[SITE],
        )
    )
    day = at.date()
    to.put(BotDay(bot_id=bot.id, day=day, messages=FIGURE, tokens=FIGURE, reserved=1))
    to.put(BotReservation(message_id=reply.id, bot_id=bot.id, day=day, tokens=1))
    to.put(TokenDay(day=day, tokens=FIGURE))
    to.put(TokenReservation(tokens=FIGURE, expires_at=at + timedelta(days=1)))
    to.put(
        UsageRecord(
            user_id=owner.id,
            model=WORD,
            provider=WORD,
            status="complete",
            prompt_tokens=FIGURE,
            source="provider",
        )
    )
    # Only one of those that are added up with others, so that each sum begins like the figure.
    many = dict.fromkeys(("sessions", "questions", "prompt_tokens", "citations", "helpful"), FIGURE)
    hour = hour_of(at)
    to.put(UsageHour(hour=hour, user_id=owner.id, persona_id=persona.id, model=WORD, **many))
    to.put(LatencyHour(bot_id="", hour=hour, measure="latency_ms", bar=bar_of(FIGURE), replies=FIGURE))


def _around(to: _Planting, stack: Stack, owner: User, persona: Persona, sealed: bytes) -> None:
    soon = now() + timedelta(days=1)
    hook = to.put(
        # It tells nobody: what it would say is no concern of a test's, and goes beyond loopback.
        Webhook(
            url=f"{SITE}/told",
            description=TEXT,
            event_types=["document.ready"],
            sealed_secret=sealed,
            is_active=False,
        )
    )
    body = json.dumps({"type": "document.ready", "data": {"id": WORD}})
    sent = {
        "status": DeliveryStatus.DELIVERED,
        "attempts": [{"at": soon.isoformat(), "status_code": 200, "error": WORD}],
    }
    to.put(
        Delivery(webhook_id=hook.id, event_id=_marked_id(), event_type="document.ready", body=body, **sent)
    )
    to.put(
        LlmProvider(
            name=f"Provider {WORD}",
            kind="openai",
            base_url=f"{SITE}/v1",
            sealed_key=sealed,
            api_key_hint=WORD[-4:],
            models=[dict.fromkeys(("input_price", "output_price", "context_window")) | {"name": WORD}],
            is_active=False,
        )
    )
    to.put(Configuration(stack_id=stack.id, values={"default_chat_model": WORD}))
    to.put(TenantExport(status=ExportStatus.FAILED, size=FIGURE, detail=TEXT))
    to.put(
        IdempotencyRecord(
            caller=f"user:{owner.id}",
            operation="personas.create",
            key=WORD,
            fingerprint=digest(WORD),
            status=201,
            headers={},
            body=TEXT.encode(),
            expires_at=soon,
        )
    )
    to.put(
        Job(kind=FORGET, subject_id=_marked_id(), details={"note": WORD}, status=JobStatus.DEAD, error=TEXT)
    )
    to.put(
        AuditEntry(
            actor_kind=ActorKind.USER,
            actor_id=owner.id,
            action=AuditAction.CREATE,
            object_type="persona",
            object_id=persona.id,
            fields=["name"],
            request_id=WORD,
        )
    )

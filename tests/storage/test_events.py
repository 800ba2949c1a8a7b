"""Events: one for each thing that happened, if and only if it was committed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import select, update

from models.base import new_id, now
from models.chat.conversations import ChatMessage, ChatSession
from models.knowledge.library import IngestStatus
from models.tenancy import Product, Region, Stack, Tenant
from models.webhooks import EVENT_TYPES, Delivery, Webhook, new_secret
from storage import conversations, events, library, quotas, secrets
from storage.conversations import Ending
from storage.database import platform, reading, transaction
from tests.installed import Of, add, new_tenant, runner, settled


def listen(of: Of, *types: str, **more: Any) -> str:
    """An endpoint that is told of these; its id."""
    sealed = secrets.seal(new_secret()[1])
    fields = {"url": "https://hooks.example/", "event_types": list(types), "sealed_secret": sealed} | more
    with transaction(of) as db:
        return db.put(Webhook(**fields)).id


def told(of: Of) -> list[tuple[str, dict[str, Any]]]:
    """What is on its way to the tenant, oldest first."""
    with reading(of) as db:
        rows = db.scalars(select(Delivery).order_by(Delivery.created_at, Delivery.id)).all()
    return [(row.event_type, orjson.loads(row.body)["data"]) for row in rows]


def invite(of: Of) -> str:
    """Publish an event; the id in it."""
    id = new_id()
    with transaction(of) as db:
        events.publish(db, "user.invited", {"id": id, "role": "member"})
    return id


def fall_over(of: Of) -> None:
    """Publish, and fail before the commit."""
    with transaction(of) as db:
        events.publish(db, "user.invited", {"id": new_id(), "role": "member"})
        raise ZeroDivisionError


class TestPublishing:
    def test_who_subscribed_is_told_and_nobody_else(self, of: Of) -> None:
        other = new_tenant("B")
        listen(other, *EVENT_TYPES)
        wanted = listen(of, "user.invited", "session.created")
        listen(of, "session.created")
        listen(of, "user.invited", is_active=False)
        id = invite(of)
        assert told(of) == [("user.invited", {"id": id, "role": "member"})]
        assert told(other) == []
        with reading(of) as db:
            row = db.scalars(select(Delivery)).one()
        assert row.webhook_id == wanted
        assert orjson.loads(row.body).keys() == {"type", "timestamp", "data"}

    def test_several_endpoints_are_told_of_one_event(self, of: Of) -> None:
        listen(of, "user.invited")
        listen(of, "user.invited")
        invite(of)
        with reading(of) as db:
            rows = db.scalars(select(Delivery)).all()
        assert len(rows) == 2
        assert len({row.message_id for row in rows}) == 1

    def test_what_is_rolled_back_never_happened(self, of: Of) -> None:
        listen(of, "user.invited")
        with pytest.raises(ZeroDivisionError):
            fall_over(of)
        assert told(of) == []

    def test_other_facts_than_the_contract_s_are_a_fault(self, of: Of) -> None:
        with pytest.raises(RuntimeError, match=r"user\.invited carries id, role"), transaction(of) as db:
            events.publish(db, "user.invited", {"id": new_id(), "email": "a@example.com"})


class TestDocuments:
    def test_ready_is_told_once_however_often_the_job_comes_back(self, of: Of, index: str) -> None:
        listen(of, *EVENT_TYPES)
        document = add(of, index, "note.txt", "Revenue rose by 12 per cent.")
        with runner():
            settled(of, document)
        data = {"id": document, "index_id": index, "page_count": None}
        assert told(of) == [("document.ready", data)]
        assert not library.settle(of, document, IngestStatus.READY)
        assert told(of) == [("document.ready", data)]

    def test_failed_is_told(self, of: Of, index: str) -> None:
        listen(of, *EVENT_TYPES)
        document = add(of, index, "broken.pdf", b"%PDF-1.7 and no more")
        with runner():
            settled(of, document)
        assert told(of) == [
            ("document.failed", {"id": document, "index_id": index, "error_code": "invalid_file"})
        ]


@pytest.fixture
def session(of: Of) -> str:
    """A conversation; its id."""
    with transaction(of) as db:
        product = db.put(Product(name="P", slug=new_id(), capabilities=["chat_ai"]))
        region = db.put(Region(name="R", slug=new_id()))
        stack = db.put(Stack(name="S", product_id=product.id, region_id=region.id))
        return db.put(ChatSession(stack_id=stack.id)).id


def begin(of: Of, session_id: str) -> str:
    """Ask something; the id of the reply, which runs."""
    with transaction(of) as db:
        found = db.require(ChatSession, session_id)
        begun = conversations.begin(
            db, found, "What was revenue?", parent_id=None, attributes={}, persona_version=1
        )
        return begun.reply_id


def ending(of: Of, session_id: str, reply_id: str, **values: Any) -> Ending:
    """A reply that ended."""
    written = {"content": "12", "usage": None, "model": "m", "cost": None}
    given = {"status": "complete", **written, "latency_ms": 5, "first_token_ms": 2} | values
    return Ending(reply_id, session_id, of.tenant_id, None, None, given, [])


def abandon(of: Of) -> None:
    """Let the writers of all replies be gone."""
    with platform() as db:
        db.execute(update(ChatMessage).values(lease_until=now() - timedelta(seconds=1)))


class TestReplies:
    def test_each_end_is_told_once(self, of: Of, session: str) -> None:
        listen(of, *EVENT_TYPES)
        reply = begin(of, session)
        for _ in range(2):  # as after a commit whose answer was lost
            conversations.record([], [], [ending(of, session, reply)])
        facts = {"id": reply, "session_id": session, "status": "complete", "model": "m"}
        assert told(of) == [("message.completed", {**facts, "usage": None, "latency_ms": 5})]

    def test_a_failure_is_told_without_the_provider_s_words(self, of: Of, session: str) -> None:
        listen(of, *EVENT_TYPES)
        reply = begin(of, session)
        error = {"code": "provider_timeout", "detail": "its words"}
        conversations.record([], [], [ending(of, session, reply, status="failed", error=error)])
        facts = {"id": reply, "session_id": session, "status": "failed", "model": "m"}
        assert told(of) == [("message.failed", {**facts, "error_code": "provider_timeout"})]

    def test_one_whose_writer_is_gone_is_told_once(self, of: Of, session: str) -> None:
        listen(of, *EVENT_TYPES)
        reply = begin(of, session)
        abandon(of)
        assert conversations.sweep() == 1
        assert conversations.sweep() == 0
        conversations.record([], [], [ending(of, session, reply)])
        facts = {"id": reply, "session_id": session, "status": "interrupted", "model": None}
        assert told(of) == [("message.completed", {**facts, "usage": None, "latency_ms": None})]

    def test_what_was_held_for_one_whose_writer_is_gone_is_spent_once(self, of: Of, session: str) -> None:
        with platform() as db:
            db.get_one(Tenant, of.tenant_id).max_tokens_per_day = 1000
        reply = begin(of, session)
        quotas.admit(of, reply, 700)
        abandon(of)
        for _ in range(2):
            conversations.sweep()
        with platform(writes=False) as db:
            assert quotas.spent_today(db, of.tenant_id) == 700
        quotas.admit(of, new_id(), 300)

    def test_so_is_one_that_the_next_question_finds_abandoned(self, of: Of, session: str) -> None:
        listen(of, *EVENT_TYPES)
        first = begin(of, session)
        abandon(of)
        begin(of, session)
        assert conversations.sweep() == 0
        assert [(type, data["id"]) for type, data in told(of)] == [("message.completed", first)]

    def test_feedback_is_told_when_it_is_given_or_turned_round(self, of: Of, session: str) -> None:
        listen(of, "feedback.created")
        reply = begin(of, session)
        for rating in ("helpful", "helpful", "unhelpful", None):
            with transaction(of) as db:
                of_session, of_reply = db.require(ChatSession, session), db.require(ChatMessage, reply)
                conversations.rate(db, of_session, of_reply, rating, "its words")
        facts = {"message_id": reply, "session_id": session}
        assert told(of) == [
            ("feedback.created", {**facts, "rating": rating}) for rating in ("helpful", "unhelpful")
        ]

    def test_and_one_that_was_to_be_stopped(self, of: Of, session: str) -> None:
        listen(of, *EVENT_TYPES)
        reply = begin(of, session)
        abandon(of)
        with transaction(of) as db:
            assert conversations.request_stop(db, session) is None
        assert [(type, data["id"]) for type, data in told(of)] == [("message.completed", reply)]

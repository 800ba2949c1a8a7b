"""Branches of a conversation, and how far the database reads for a page of one."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text

from models.chat.conversations import ChatMessage, ChatSession
from storage import conversations
from storage.database import Session, reading, transaction
from tests import scale
from tests.scale import Crowded


@pytest.fixture
def of(migrated: None) -> Crowded:
    """A tenant whose conversations are long enough to be told from short ones."""
    return scale.crowded(long=600, sessions=30, each=4)


def _ask(db: Session, of: Crowded, after: str | None = None) -> str:
    session = db.require(ChatSession, of.session_id)
    begun = conversations.begin(
        db, session, "And then?", parent_id=after, attributes={}, persona_version=None
    )
    return _answered(db, begun.reply_id)


def _again(db: Session, of: Crowded) -> str:
    begun, _ = conversations.begin_again(db, db.require(ChatSession, of.session_id), persona_version=None)
    return _answered(db, begun.reply_id)


def _answered(db: Session, reply_id: str) -> str:
    reply = db.require(ChatMessage, reply_id)
    reply.status = "complete"
    db.flush()
    return reply_id


def _by_parents(db: Session, leaf_id: str) -> list[str]:
    rows = db.execute(select(ChatMessage.id, ChatMessage.parent_id))
    parents = {row.id: row.parent_id for row in rows}
    walked: list[str] = []
    at: str | None = leaf_id
    while at is not None:
        walked.append(at)
        at = parents[at]
    return walked[::-1]


def test_each_branch_of_forks_upon_forks_is_what_its_parents_say(of: Crowded) -> None:
    with transaction(of) as db:
        middle = db.scalars(conversations.part_of_branch(of.session_id, of.leaf_id, 299, 1)).one().id
        leaves = [of.leaf_id, _ask(db, of, middle), _again(db, of), _again(db, of), _ask(db, of)]
        leaves += [_ask(db, of, leaves[2]), _again(db, of), _ask(db, of, of.leaf_id), _again(db, of)]
    with reading(of) as db:
        for leaf in leaves:
            expected = _by_parents(db, leaf)
            assert [row.id for row in conversations.branch(db, of.session_id, leaf)] == expected
            assert conversations.depth_of(db, of.session_id, leaf) == len(expected)
            part = conversations.part_of_branch(of.session_id, leaf, 295, 10)
            assert [row.id for row in db.scalars(part)] == expected[295:305]
            newest = conversations.branch(db, of.session_id, leaf, most=40)
            assert [row.id for row in newest] == expected[-40:]


def test_first_pages_and_figures_read_no_table_from_end_to_end(of: Crowded) -> None:
    with reading(of) as db:
        if db.connection().dialect.name == "postgresql":
            # So few rows are read whole with good reason; asked is whether an index could serve.
            db.execute(text("SET LOCAL enable_seqscan = off"))
        for name, read in scale.reads(of).items():
            with scale.statements() as sent:
                read(db)
            assert sent, name
            for statement, parameters in sent:
                lines = scale.plan(db, statement, parameters)
                assert not scale.whole_tables(lines), (name, lines)


def test_to_ask_reads_neither_all_of_a_table_nor_all_of_a_tenant(of: Crowded) -> None:
    with transaction(of) as db:
        with scale.statements() as sent:
            _ask(db, of)
            _again(db, of)
        if db.connection().dialect.name == "postgresql":
            db.execute(text("SET LOCAL enable_seqscan = off"))
        assert len(sent) > 5
        for statement, parameters in sent:
            lines = scale.plan(db, statement, parameters)
            assert not scale.whole_tables(lines) + scale.whole_tenants(lines), (statement, lines)

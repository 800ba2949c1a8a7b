"""What readers think of replies."""

from __future__ import annotations

from models.chat.conversations import ChatMessage, ChatSession
from storage import analytics, events
from storage.database import Session


def rate(
    db: Session, session: ChatSession, reply: ChatMessage, rating: str | None, comment: str | None
) -> None:
    """Keep (or, with None, take back) what the reader thinks of a reply, and count it at the reply's hour."""
    sums = {"helpful": 0, "unhelpful": 0}
    for name, step in ((reply.rating, -1), (rating, 1)):
        if name is not None:
            sums[name] += step
    if rating is not None and rating != reply.rating:
        told = {"message_id": reply.id, "session_id": session.id, "rating": rating}
        events.publish(db, "feedback.created", told)
    reply.rating, reply.comment = rating, comment
    of = (reply.tenant_id, session.bot_id, session.user_id, session.persona_id, reply.model)
    db.flush()
    analytics.count(
        db.connection(), [analytics.Counted(*of, sums, at=reply.created_at, session_id=session.id)]
    )

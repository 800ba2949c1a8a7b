"""A letter on its way."""

from __future__ import annotations

import structlog

from models.letters import Letter, compose
from models.tenancy import Tenant, User
from storage import accounts, mail
from storage.database import transaction
from storage.queue import Work

log = structlog.get_logger("booga.mail")


def run(work: Work) -> None:
    """Send the letter, unless its link is of no use any more; the mail server may be away for a while."""
    with transaction(work) as db:
        letter = db.get(Letter, work.subject_id)
        if letter is None or not letter.is_good():
            return
        user, tenant = db.require(User, letter.user_id), db.require(Tenant, letter.tenant_id)
        to, kind = user.email, letter.kind
        subject, text = compose(kind, tenant.name, accounts.link_of(letter))
    try:
        mail.send(to, subject, text, id=work.subject_id, tenant_id=work.tenant_id)
    except mail.Undeliverable as fault:
        log.warning("mail refused", letter=work.subject_id, kind=kind, reason=str(fault))


def bury(work: Work) -> None:
    """Nobody is left to be told; the letter can be asked for again."""

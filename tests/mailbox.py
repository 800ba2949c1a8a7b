"""Mail as people get it: files in the data folder of a server, or an SMTP server on loopback."""

from __future__ import annotations

import email
import email.policy
import re
import time
from email.message import EmailMessage
from pathlib import Path

from tests.servers import Server

ARRIVES_WITHIN = 20.0
LINK = re.compile(r"(\S+/account)#(\w+)=(bkm_[\w-]+)")


def read(content: bytes) -> EmailMessage:
    """A mail from its bytes."""
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def mails(server: Server, to: str) -> list[EmailMessage]:
    """What an address was sent so far, oldest first."""
    found = sorted((Path(server.data_dir) / "mail").glob("*.eml"))
    return [mail for mail in (read(path.read_bytes()) for path in found) if mail["To"] == to]


def wait_for(server: Server, to: str, count: int = 1) -> EmailMessage:
    """The newest mail to an address, once there are this many."""
    deadline = time.monotonic() + ARRIVES_WITHIN
    while len(found := mails(server, to)) < count:
        assert time.monotonic() < deadline, f"{len(found)} mails to {to}"
        time.sleep(0.05)  # a job sends it, some time after the answer
    return found[-1]


def token_of(mail: EmailMessage) -> str:
    """The token of the link in a mail."""
    link = LINK.search(mail.get_content())
    assert link is not None, mail.get_content()
    return link[3]

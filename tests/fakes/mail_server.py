"""An SMTP server on loopback: keeps what it is sent, refuses it, or leaves the sender waiting."""

from __future__ import annotations

import asyncio
import threading
from email.message import EmailMessage
from types import TracebackType

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests import mailbox
from tests.backends import free_port

TAKEN = "250 OK"
PATIENCE = 30.0


class MailServer:
    """``answer`` is what it says to a recipient; None: nothing, until ``released`` is set."""

    def __init__(self) -> None:
        self.answer: str | None = TAKEN
        self.asked = threading.Event()
        """Set when somebody wants to send a mail."""
        self.released = threading.Event()
        self.received: list[EmailMessage] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=free_port())

    @property
    def url(self) -> str:
        """For ``BOOGA_SMTP_URL``."""
        return f"smtp://127.0.0.1:{self._controller.port}"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or whatever ``answer`` says."""
        answer = self.answer
        self.asked.set()
        if answer is None:
            await asyncio.to_thread(self.released.wait, PATIENCE)
            return "451 too late"
        if answer == TAKEN:
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep a mail."""
        content = envelope.content
        assert isinstance(content, bytes)
        self.received.append(mailbox.read(content))
        return TAKEN

    def __enter__(self) -> MailServer:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._controller.stop()

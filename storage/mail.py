"""Mail goes out by SMTP where ``BOOGA_SMTP_URL`` names a server, else into ``mail/`` in the data folder."""

from __future__ import annotations

import email
import email.policy
import os
import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from models.base import now
from models.errors import Unavailable
from storage.settings import settings

PATIENCE = 10.0
"""Seconds to wait for the server at each step. Jobs wait here, never requests."""


class Undeliverable(Exception):
    """The server refused the mail for good (a 5xx answer): trying again would not help."""


def sender() -> str:
    """The address that mail comes from."""
    return settings().mail_from or f"no-reply@{urlsplit(settings().public_url).hostname}"


def send(to: str, subject: str, text: str, *, id: str, tenant_id: str) -> None:
    """Send a tenant's mail. The same ``id`` is the same mail, also when it is sent again.

    Raises ``Unavailable`` where it may work later, and ``Undeliverable``.
    """
    mail = EmailMessage()
    mail["From"] = Address("Booga", addr_spec=sender())
    mail["To"] = Address(addr_spec=to)
    mail["Subject"] = subject
    mail["Date"] = format_datetime(now())
    mail["Message-ID"] = f"<{id}@{sender().rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    mail.set_content(text)
    if settings().smtp_url is None:
        _keep(mail, f"{id}-{tenant_id}")
    else:
        _hand_over(mail, settings().smtp_url or "")


def forget(tenant_id: str) -> None:
    """Remove a tenant's mails from the data folder."""
    for letter in _folder().glob(f"*-{tenant_id}.eml"):
        letter.unlink(missing_ok=True)


def forget_to(address: str, tenant_id: str) -> None:
    """Remove a tenant's mails to an address from the data folder."""
    for letter in _folder().glob(f"*-{tenant_id}.eml"):
        mail = email.message_from_bytes(letter.read_bytes(), policy=email.policy.default)
        if str(mail["To"]).lower() == address.lower():
            letter.unlink(missing_ok=True)


def _folder() -> Path:
    return settings().data_dir / "mail"


def _keep(mail: EmailMessage, name: str) -> None:
    folder = _folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    unfinished = folder / f".{name}"
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(mail.as_bytes())
    unfinished.rename(folder / f"{name}.eml")


def _hand_over(mail: EmailMessage, url: str) -> None:
    parts = urlsplit(url)
    host, safe = parts.hostname or "", ssl.create_default_context()
    try:
        server: smtplib.SMTP = (
            smtplib.SMTP_SSL(host, parts.port or 465, timeout=PATIENCE, context=safe)
            if parts.scheme == "smtps"
            else smtplib.SMTP(host, parts.port or 25, timeout=PATIENCE)
        )
        with server:
            server.ehlo()
            if parts.scheme == "smtp" and (parts.username or server.has_extn("starttls")):
                server.starttls(context=safe)  # credentials never go in the clear
            if parts.username:
                server.login(unquote(parts.username), unquote(parts.password or ""))
            server.send_message(mail)
    except smtplib.SMTPRecipientsRefused as fault:
        codes = [code for code, _ in fault.recipients.values()]
        if all(code >= 500 for code in codes):
            raise Undeliverable(f"the recipient was refused ({codes[0]})") from fault
        raise Unavailable("The mail server does not take this mail just now.") from fault
    except smtplib.SMTPResponseException as fault:
        if isinstance(fault, smtplib.SMTPDataError | smtplib.SMTPSenderRefused) and fault.smtp_code >= 500:
            raise Undeliverable(f"the mail was refused ({fault.smtp_code})") from fault
        raise Unavailable("The mail server does not take mail just now.") from fault
    except (OSError, smtplib.SMTPException) as fault:
        raise Unavailable("The mail server does not answer.") from fault

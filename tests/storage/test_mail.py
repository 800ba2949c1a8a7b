"""Mail by SMTP: what a server takes, refuses for now or for good, and what it leaves unanswered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.base import new_id
from models.errors import Unavailable
from storage import mail
from storage.settings import settings
from tests.backends import free_port
from tests.fakes.mail_server import MailServer

pytestmark = [
    pytest.mark.usefixtures("migrated"),
    pytest.mark.parametrize("backend", ["sqlite"], indirect=True),  # no database is asked
]


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BOOGA_SMTP_URL", url)
    settings.cache_clear()


@pytest.fixture
def post(migrated: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with MailServer() as server:
        use(monkeypatch, server.url)
        yield server


def send() -> str:
    id = new_id()
    mail.send("ada@example.com", "Grüße", "Ein Satz: ärgerlich.\n", id=id, tenant_id=new_id())
    return id


def test_it_arrives_as_written(post: MailServer) -> None:
    id = send()
    (received,) = post.received
    assert (received["To"], received["Subject"]) == ("ada@example.com", "Grüße")
    assert received["Message-ID"] == f"<{id}@{mail.sender().rpartition('@')[2]}>"
    assert received["Auto-Submitted"] == "auto-generated"
    assert received.get_content().replace("\r\n", "\n") == "Ein Satz: ärgerlich.\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("550 no such mailbox", mail.Undeliverable), ("451 try later", Unavailable)],
)
def test_refused(post: MailServer, answer: str, expected: type[Exception]) -> None:
    post.answer = answer
    with pytest.raises(expected):
        send()
    assert not post.received


def test_no_answer(post: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    post.answer = None
    monkeypatch.setattr(mail, "PATIENCE", 0.2)
    with pytest.raises(Unavailable):
        send()


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, f"smtp://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable):
        send()


def test_no_password_in_the_clear(post: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, post.url.replace("//", "//ada:secret@"))
    with pytest.raises(Unavailable):
        send()
    assert not post.received

"""Mail by a real SMTP server: it arrives, and a server in trouble is no trouble of the request's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests import mailbox
from tests.backends import Backend
from tests.conftest import MakesClient
from tests.fakes.mail_server import TAKEN, MailServer
from tests.servers import PASSWORD, Server, running

AT_ONCE = 2.0
"""Seconds; far less than a mail server that hangs is waited for (10), and enough for a busy machine."""


@pytest.fixture(scope="module")
def post() -> Iterator[MailServer]:
    with MailServer() as made:
        yield made


@pytest.fixture(scope="module")
def sender(backend: Backend, post: MailServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    given = {**backend.fresh(), "BOOGA_SMTP_URL": post.url}
    with running(tmp_path_factory.mktemp(f"sender-{backend.name}"), backend.name, given) as made:
        yield made


def invite(sender: Server, client: httpx.Client, name: str) -> str:
    """Answered 201 at once, whatever the mail server does."""
    address = f"{name}@{sender.backend}.example"
    began = time.monotonic()
    answer = client.post("/api/v1/tenants/users", json={"email": address, "role": "member"})
    assert answer.status_code == 201, answer.text
    assert time.monotonic() - began < AT_ONCE
    return address


def accepted(post: MailServer, visitor: httpx.Client, address: str) -> None:
    """The mail arrives, once, and its link serves."""
    deadline = time.monotonic() + mailbox.ARRIVES_WITHIN
    while not (found := [mail for mail in post.received if mail["To"] == address]):
        assert time.monotonic() < deadline, f"no mail to {address}"
        time.sleep(0.05)  # a job sends it, some time after the answer
    (mail,) = found
    body = {"token": mailbox.token_of(mail), "password": PASSWORD}
    assert visitor.post("/api/v1/auth/invitations/accept", json=body).status_code == 204


def test_an_invitation_arrives(post: MailServer, sender: Server, connect: MakesClient) -> None:
    post.answer = TAKEN
    address = invite(sender, connect(sender.api_key, sender), "ada")
    accepted(post, connect(server=sender), address)


def test_a_server_that_refuses_fails_no_request_and_is_tried_again(
    post: MailServer, sender: Server, connect: MakesClient
) -> None:
    post.answer = "451 try later"
    post.asked.clear()
    address = invite(sender, connect(sender.api_key, sender), "grace")
    assert post.asked.wait(mailbox.ARRIVES_WITHIN)
    post.answer = TAKEN
    accepted(post, connect(server=sender), address)


def test_a_server_that_hangs_delays_no_request(
    post: MailServer, sender: Server, connect: MakesClient
) -> None:
    post.answer = None
    post.asked.clear()
    client = connect(sender.api_key, sender)
    addresses = [invite(sender, client, "first")]
    assert post.asked.wait(mailbox.ARRIVES_WITHIN)
    addresses.append(invite(sender, client, "second"))
    post.answer = TAKEN
    post.released.set()
    for address in addresses:
        accepted(post, connect(server=sender), address)
    post.released.clear()

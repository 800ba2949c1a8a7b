"""Webhooks: who is told what, signed how, tried how often, and never at a private address."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from models.base import now
from models.webhooks import EVENT_TYPES, FACTS, SCHEDULE, Delivery, Webhook
from openapi import bundle
from openapi.schemas import compile_schema
from tests import servers
from tests.backends import Backend
from tests.conftest import MakesClient
from tests.contract.conformance import described
from tests.contract.guards import faults_of
from tests.fakes.receiver import Receiver
from tests.servers import Server, running, started
from tests.storage.test_outbound import DISGUISED

HOOKS = "/api/v1/webhooks"
_names = count(1)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Somebody who is told."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def sending(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that may send to loopback."""
    given = {**backend.fresh(), "BOOGA_ALLOW_PRIVATE_ADDRESSES": "true"}
    with running(tmp_path_factory.mktemp(f"sending-{backend.name}"), backend.name, given) as made:
        yield made


@pytest.fixture
def owner(sending: Server, connect: MakesClient) -> httpx.Client:
    """Its owner."""
    return connect(sending.api_key, sending)


@pytest.fixture
def name() -> str:
    """A path at the receiver, of this test alone."""
    return f"hook-{next(_names)}"


def hook(client: httpx.Client, url: str, *types: str) -> dict[str, Any]:
    """A new webhook with its secret."""
    response = client.post(HOOKS, json={"url": url, "event_types": [*(types or ("session.created",))]})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def test_of(client: httpx.Client, made: dict[str, Any]) -> dict[str, Any]:
    """Ask for a test; the delivery."""
    response = client.post(f"{HOOKS}/{made['id']}/test")
    assert response.status_code == 202, response.text
    delivery: dict[str, Any] = response.json()
    return delivery


test_of.__test__ = False  # type: ignore[attr-defined]  # pytest's own mark: this is no test


def deliveries(client: httpx.Client, made: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    """What is known of the webhook's deliveries, newest first."""
    found: list[dict[str, Any]] = client.get(f"{HOOKS}/{made['id']}/deliveries", params=query).json()[
        "results"
    ]
    return found


def settled(client: httpx.Client, made: dict[str, Any], attempts: int = 1) -> dict[str, Any]:
    """The only delivery, once so many tries are noted."""
    deadline = time.monotonic() + 30
    while True:
        [delivery] = deliveries(client, made)
        if len(delivery["attempts"]) >= attempts:
            return delivery
        assert time.monotonic() < deadline, delivery
        time.sleep(0.02)  # another process sends


def make_due(server: Server, made: dict[str, Any], **values: Any) -> None:
    """Let the wait before the next try be over."""
    with server.database() as db:
        due = {"due_at": now() - timedelta(seconds=1)} | values
        db.execute(update(Delivery).where(Delivery.webhook_id == made["id"]).values(**due))


class TestManaging:
    def test_the_secret_is_shown_once_and_kept_encrypted(self, owner: httpx.Client, sending: Server) -> None:
        made = hook(owner, "https://hooks.example/a?x=1")
        assert made["secret"].startswith("whsec_")
        assert (made["is_active"], made["disabled_reason"]) == (True, None)
        shown = owner.get(f"{HOOKS}/{made['id']}").json()
        assert "secret" not in shown
        assert made["id"] in [
            entry["id"] for entry in owner.get(HOOKS, params={"page_size": 100}).json()["results"]
        ]
        with sending.database() as db:
            row = db.get_one(Webhook, made["id"])
            assert made["secret"].encode() not in row.sealed_secret
        assert made["secret"] not in sending.log_path.read_text()

    def test_a_repeated_request_makes_one_and_shows_no_secret(self, owner: httpx.Client, name: str) -> None:
        body = {"url": "https://hooks.example/", "event_types": ["file.ready"]}
        first, second = (owner.post(HOOKS, json=body, headers={"Idempotency-Key": name}) for _ in range(2))
        assert second.json() == {key: value for key, value in first.json().items() if key != "secret"}

    def test_change_and_delete(self, owner: httpx.Client) -> None:
        made = hook(owner, "https://hooks.example/a")
        at = f"{HOOKS}/{made['id']}"
        changed = owner.patch(
            at, json={"is_active": False, "description": "x", "event_types": ["file.failed"]}
        )
        assert changed.status_code == 200
        assert (changed.json()["is_active"], changed.json()["event_types"]) == (False, ["file.failed"])
        assert owner.post(f"{at}/test").status_code == 409
        assert owner.delete(at).status_code == 204
        assert owner.get(at).status_code == 404

    @pytest.mark.parametrize("types", [[], ["no.such"], ["file.ready", "file.ready"], ["webhook.test"]])
    def test_only_known_types(self, owner: httpx.Client, types: list[str]) -> None:
        body = {"url": "https://hooks.example/", "event_types": types}
        assert owner.post(HOOKS, json=body).status_code == 400

    def test_scopes(self, client_with: Callable[..., httpx.Client]) -> None:
        reader = client_with(scopes=["webhooks:read"])
        assert reader.get(HOOKS).status_code == 200
        body = {"url": "https://hooks.example/", "event_types": ["file.ready"]}
        assert reader.post(HOOKS, json=body).status_code == 403
        assert client_with(role="member").get(HOOKS).status_code == 403


class TestAddresses:
    @pytest.mark.parametrize("url", DISGUISED)
    def test_a_disguised_address_is_refused_when_it_is_entered(self, client: httpx.Client, url: str) -> None:
        response = client.post(HOOKS, json={"url": url, "event_types": ["file.ready"]})
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["pointer"] == "/url"

    def test_and_when_it_is_changed(self, client: httpx.Client) -> None:
        made = hook(client, "https://hooks.example/")
        response = client.patch(f"{HOOKS}/{made['id']}", json={"url": "https://10.0.0.1/"})
        assert response.status_code == 422

    def test_plain_http_stays_within_the_host_s_network(self, owner: httpx.Client) -> None:
        body = {"url": "http://1.1.1.1/", "event_types": ["file.ready"]}
        assert owner.post(HOOKS, json=body).status_code == 422

    def test_and_before_anything_is_sent(
        self, client: httpx.Client, server: Server, receiver: Receiver, name: str
    ) -> None:
        made = hook(client, "https://hooks.example/")
        with server.database() as db:
            db.execute(update(Webhook).where(Webhook.id == made["id"]).values(url=receiver.url(name)))
        test_of(client, made)
        attempt = settled(client, made)["attempts"][0]
        assert attempt["status_code"] is None
        assert attempt["error"]
        assert receiver.sent(name) == []


class TestSigning:
    def test_the_published_library_verifies(self, owner: httpx.Client, receiver: Receiver, name: str) -> None:
        made = hook(owner, receiver.url(name))
        delivery = test_of(owner, made)
        [received] = receiver.wait(name)
        payload = Verifier(made["secret"]).verify(received.body, received.headers)
        assert payload["type"] == "webhook.test"
        assert payload["data"] == {"webhook_id": made["id"]}
        assert received.headers["webhook-id"] == delivery["message_id"]
        assert received.headers["content-type"] == "application/json"
        with pytest.raises(WebhookVerificationError):
            Verifier(made["secret"]).verify(received.body + b" ", received.headers)
        done = settled(owner, made)
        assert done["status"] == "delivered"
        assert done["next_attempt_at"] is None
        assert done["payload"] == payload
        assert (done["attempts"][0]["status_code"], done["attempts"][0]["response_excerpt"]) == (
            200,
            "thank you",
        )

    def test_two_secrets_sign_while_they_overlap(
        self, owner: httpx.Client, sending: Server, receiver: Receiver, name: str
    ) -> None:
        made = hook(owner, receiver.url(name))
        at = f"{HOOKS}/{made['id']}"
        second = owner.post(f"{at}/rotate-secret").json()["secret"]
        assert second != made["secret"]
        test_of(owner, made)
        [received] = receiver.wait(name)
        for secret in (made["secret"], second):
            Verifier(secret).verify(received.body, received.headers)
        with sending.database() as db:
            ended = {"previous_until": now() - timedelta(seconds=1)}
            db.execute(update(Webhook).where(Webhook.id == made["id"]).values(**ended))
        test_of(owner, made)
        Verifier(second).verify(receiver.wait(name, 2)[1].body, receiver.sent(name)[1].headers)
        with pytest.raises(WebhookVerificationError):
            Verifier(made["secret"]).verify(receiver.sent(name)[1].body, receiver.sent(name)[1].headers)
        third = owner.post(f"{at}/rotate-secret", json={"overlap_seconds": 0}).json()["secret"]
        test_of(owner, made)
        received = receiver.wait(name, 3)[2]
        Verifier(third).verify(received.body, received.headers)
        assert " " not in received.headers["webhook-signature"]


class TestEvents:
    def test_what_happens_is_sent(self, owner: httpx.Client, receiver: Receiver, name: str) -> None:
        made = hook(owner, receiver.url(name), "session.created", "message.completed")
        session = owner.post("/api/v1/chat/sessions", json={}).json()
        question = {"content": "Say nothing of the secret recipe."}
        reply = owner.post(f"/api/v1/chat/sessions/{session['id']}/messages", json=question).json()
        received = [Verifier(made["secret"]).verify(r.body, r.headers) for r in receiver.wait(name, 2)]
        told = {payload["type"]: payload["data"] for payload in received}
        assert told["session.created"]["id"] == session["id"]
        assert told["message.completed"]["id"] == reply["id"]
        assert told["message.completed"]["status"] == "complete"
        assert not any(b"recipe" in r.body for r in receiver.sent(name))
        owner.delete(f"{HOOKS}/{made['id']}")

    def test_the_other_tenant_hears_nothing(
        self, owner: httpx.Client, sending: Server, connect: MakesClient, receiver: Receiver, name: str
    ) -> None:
        stranger = connect(sending.bootstrap("Tenant B")["api_key"], sending)
        theirs = hook(stranger, receiver.url(name))
        ours = hook(owner, receiver.url(f"{name}-ours"))
        owner.post("/api/v1/chat/sessions", json={})
        receiver.wait(f"{name}-ours")
        assert deliveries(stranger, theirs) == []
        assert stranger.get(f"{HOOKS}/{ours['id']}").status_code == 404
        [delivery] = deliveries(owner, ours)
        for webhook in (ours, theirs):
            at = f"{HOOKS}/{webhook['id']}/deliveries/{delivery['id']}/redeliver"
            assert stranger.post(at).status_code == 404
        owner.delete(f"{HOOKS}/{ours['id']}")

    def test_a_paused_webhook_gets_what_waited_when_it_goes_on(
        self, owner: httpx.Client, sending: Server, receiver: Receiver, name: str
    ) -> None:
        made = hook(owner, receiver.url(name, status=503))
        test_of(owner, made)
        settled(owner, made)
        at = f"{HOOKS}/{made['id']}"
        owner.patch(at, json={"is_active": False})
        make_due(sending, made)
        owner.patch(at, json={"url": receiver.url(name), "is_active": True})
        assert settled(owner, made, 2)["status"] == "delivered"


class TestTrying:
    def test_ten_tries_then_it_is_dead_and_can_be_sent_again(
        self, owner: httpx.Client, sending: Server, receiver: Receiver, name: str
    ) -> None:
        made = hook(owner, receiver.url(name, status=500))
        test_of(owner, made)
        for tries in range(1, 11):
            delivery = settled(owner, made, tries)
            if tries <= len(SCHEDULE):
                with sending.database() as db:
                    row = db.scalars(select(Delivery).where(Delivery.webhook_id == made["id"])).one()
                    wait = row.due_at.replace(tzinfo=now().tzinfo) - row.updated_at.replace(
                        tzinfo=now().tzinfo
                    )
                longest = SCHEDULE[tries - 1] * 1.1 + timedelta(seconds=1)
                assert SCHEDULE[tries - 1] - timedelta(seconds=1) <= wait <= longest
                make_due(sending, made)
        assert delivery["status"] == "dead"
        assert delivery["next_attempt_at"] is None
        assert len({r.headers["webhook-id"] for r in receiver.sent(name)}) == 1
        owner.patch(f"{HOOKS}/{made['id']}", json={"url": receiver.url(name)})
        again = owner.post(f"{HOOKS}/{made['id']}/deliveries/{delivery['id']}/redeliver")
        assert again.status_code == 202
        assert settled(owner, made, 11)["status"] == "delivered"
        assert len({r.headers["webhook-id"] for r in receiver.sent(name)}) == 1

    def test_retry_after_puts_it_off(self, owner: httpx.Client, receiver: Receiver, name: str) -> None:
        made = hook(owner, receiver.url(name, status=429, Retry_After=3600))
        test_of(owner, made)
        delivery = settled(owner, made)
        assert delivery["next_attempt_at"] > delivery["created_at"]
        assert delivery["next_attempt_at"] > (now() + timedelta(minutes=58)).isoformat()

    def test_gone_switches_it_off(self, owner: httpx.Client, receiver: Receiver, name: str) -> None:
        made = hook(owner, receiver.url(name, status=410))
        test_of(owner, made)
        assert settled(owner, made)["status"] == "dead"
        shown = owner.get(f"{HOOKS}/{made['id']}").json()
        assert (shown["is_active"], shown["disabled_reason"]) == (False, "gone")
        owner.post("/api/v1/chat/sessions", json={})
        assert len(deliveries(owner, made)) == 1
        assert (
            owner.patch(f"{HOOKS}/{made['id']}", json={"is_active": True}).json()["disabled_reason"] is None
        )

    def test_a_redirect_is_not_followed(self, owner: httpx.Client, receiver: Receiver, name: str) -> None:
        made = hook(owner, receiver.url(name, status=302, Location=f"/{name}-elsewhere"))
        test_of(owner, made)
        assert settled(owner, made)["attempts"][0]["status_code"] == 302
        assert receiver.sent(f"{name}-elsewhere") == []

    def test_of_a_large_answer_the_beginning_is_read(
        self, owner: httpx.Client, receiver: Receiver, name: str
    ) -> None:
        made = hook(owner, receiver.url(name, answer="%00answer", times=1_000_000))
        test_of(owner, made)
        delivery = settled(owner, made)
        assert delivery["status"] == "delivered"
        excerpt = delivery["attempts"][0]["response_excerpt"]
        assert excerpt.startswith("\ufffdanswer")
        assert len(excerpt) == 500

    def test_one_that_hangs_delays_nobody(self, owner: httpx.Client, receiver: Receiver, name: str) -> None:
        receiver.released.clear()
        slow = hook(owner, receiver.url(f"{name}-slow", hang=1))
        quick = hook(owner, receiver.url(name))
        began = time.monotonic()
        for _ in range(6):
            test_of(owner, slow)
        receiver.wait(f"{name}-slow")
        for _ in range(6):
            test_of(owner, quick)
        receiver.wait(name, 6)
        assert all(delivery["status"] == "pending" for delivery in deliveries(owner, slow))
        receiver.released.set()
        assert time.monotonic() - began < 15, "the quick one waited for the slow one's time to be over"
        owner.delete(f"{HOOKS}/{slow['id']}")


class TestDeliveries:
    def test_page_cursor_and_filters(self, owner: httpx.Client, receiver: Receiver, name: str) -> None:
        made = hook(owner, receiver.url(name))
        ids = [test_of(owner, made)["id"] for _ in range(5)]
        receiver.wait(name, 5)
        at = f"{HOOKS}/{made['id']}/deliveries"
        page = owner.get(at, params={"page_size": 2}).json()
        assert page["count"] == 5
        seen = [entry["id"] for entry in page["results"]]
        newer = test_of(owner, made)["id"]
        while page["next_cursor"]:
            page = owner.get(at, params={"page_size": 2, "cursor": page["next_cursor"]}).json()
            seen += [entry["id"] for entry in page["results"]]
        assert seen == ids[::-1]
        assert deliveries(owner, made, ordering="created_at", page_size=6)[-1]["id"] == newer
        assert deliveries(owner, made, status="dead") == []
        assert deliveries(owner, made, event_type="session.created") == []
        assert owner.get(at + ".csv").text.count("\r\n") == 7

    def test_a_killed_server_forgets_none(
        self, backend: Backend, receiver: Receiver, name: str, tmp_path: Any
    ) -> None:
        receiver.released.clear()
        given = {**backend.fresh(), "BOOGA_ALLOW_PRIVATE_ADDRESSES": "true"}
        with started(tmp_path, backend.name, given) as server:
            with httpx.Client(base_url=server.url, headers={"X-API-Key": server.api_key}) as client:
                made = hook(client, receiver.url(name, hang=1))
                session = client.post("/api/v1/chat/sessions", json={}).json()
                receiver.wait(name)
            for pid in [server.process.pid, *server.workers]:
                os.kill(pid, signal.SIGKILL)
            server.process.wait()
            receiver.released.set()
            with server.database() as db:  # the killed one's lease is over
                db.execute(update(Delivery).values(lease_until=now() - timedelta(seconds=1)))
            servers.restart(server)
            first, second = receiver.wait(name, 2)
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            payload = Verifier(made["secret"]).verify(second.body, second.headers)
            assert payload["data"]["id"] == session["id"]
            with server.database() as db:
                assert len(db.scalars(select(Delivery).where(Delivery.webhook_id == made["id"])).all()) == 1


class TestCatalogue:
    def test_event_types_are_the_contract_s(self, client: httpx.Client) -> None:
        shown = client.get(f"{HOOKS}/event-types").json()["results"]
        assert [entry["type"] for entry in shown] == [*EVENT_TYPES]

    def test_every_example_is_what_is_sent(self, client: httpx.Client) -> None:
        spec = described().spec
        callbacks = next(
            o["callbacks"] for _, _, o in bundle.operations(spec) if o["operationId"] == "webhooks.create"
        )
        assert callbacks.keys() == spec["x-webhooks"].keys() == FACTS.keys()
        listed = {
            entry["type"]: entry["example_payload"]
            for entry in client.get(f"{HOOKS}/event-types").json()["results"]
        }
        for type, facts in FACTS.items():
            requests = [spec["x-webhooks"][type]["post"], callbacks[type]["{$request.body#/url}"]["post"]]
            for request in described().resolve(requests):
                content = request["requestBody"]["content"]["application/json"]
                example = content["examples"]["event"]["value"]
                assert faults_of(compile_schema(content["schema"]), example) == []
                assert example["type"] == type
                assert example["data"].keys() == facts
                assert listed.get(type, example) == example

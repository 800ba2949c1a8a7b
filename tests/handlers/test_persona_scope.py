"""What a persona may read, and which version of it a reply belongs to."""

from __future__ import annotations

import json
from typing import Any

import httpx
from sqlalchemy import select

from models.tenancy import Product, Region, Stack
from tests.conftest import MakesClient
from tests.events import events
from tests.fakes.provider import FakeProvider
from tests.handlers import knowledge
from tests.handlers.knowledge import BASE, make, ready, settled, upload
from tests.handlers.test_sessions import SESSIONS, ask, begin
from tests.servers import Server

PERSONAS = "/api/v1/chat/personas"
QUESTION = "What is the name of the lighthouse keeper of Skellow?"
PLANTED = "The name of the lighthouse keeper of Skellow is Ottilie Brandreth."
NEARBY = "Skellow is a village of 1871 people, and the herring is good there."


def cited(client: httpx.Client, persona_id: str) -> list[str]:
    reply = ask(client, begin(client, persona_id=persona_id)["id"], QUESTION)
    citations = reply["citations"]
    assert isinstance(citations, list)
    return [citation["quote"] for citation in citations]


def test_the_best_answer_outside_of_index_and_category_is_not_even_ranked(
    client: httpx.Client, server: Server
) -> None:
    inside, outside = make(client, "indices")["id"], make(client, "indices")["id"]
    label = make(client, "categories")["id"]
    planted = [
        upload(client, outside, f"{PLANTED} Entry {number}.".encode(), f"planted-{number}.txt").json()["id"]
        for number in range(8)
    ]
    ready(client, outside, NEARBY.encode(), file_name="labelled.txt", category_ids=label)
    ready(client, inside, f"{NEARBY} So the log says.".encode(), file_name="log.txt")
    for id in planted:
        assert settled(client, f"{BASE}/documents/{id}")["status"] == "ready"
    narrow: dict[str, Any] = {"default_max_documents": 1, "default_score_threshold": 0}
    for scope in ({"indices": [inside]}, {"categories": [label]}):
        persona = knowledge.persona(client, server, **scope, **narrow)
        # One place among the results, and eight better passages elsewhere: were it cut after ranking,
        # nothing would be left.
        (quote,) = cited(client, persona["id"])
        assert "1871" in quote
        assert "Ottilie" not in quote
    everything = knowledge.persona(client, server, indices=[outside], **narrow)
    assert "Ottilie" in cited(client, everything["id"])[0]


def test_a_running_reply_ends_on_the_version_it_began_with(
    server_with_provider: Server, connect: MakesClient, fake_provider: FakeProvider
) -> None:
    fake_provider.forget()
    client = connect(server_with_provider.api_key, server_with_provider)
    body = {
        "name": "Changing",
        "stack_id": server_with_provider.tenant["stack_id"],
        "system_prompt": "The first.",
    }
    persona = client.post(PERSONAS, json=body).json()
    id = begin(client, persona_id=persona["id"])["id"]
    slow = {"content": "Slowly [[tokens=20&gap=0.05]]"}
    with client.stream("POST", f"{SESSIONS}/{id}/messages/stream", json=slow) as response:
        told = events(response.iter_lines())
        next(told)
        changed = client.patch(f"{PERSONAS}/{persona['id']}", json={"system_prompt": "The second."})
        assert changed.json()["version"] == 2
        last = list(told)[-1].data
    assert (last["status"], last["persona_version"]) == ("complete", 1)
    assert ask(client, id, "And now?")["persona_version"] == 2
    prompts = [json.dumps(request.body["messages"]) for request in fake_provider.requests]
    assert ["The first." in prompt for prompt in prompts] == [True, False]


def test_a_deleted_persona_leaves_its_session_waiting_for_another(
    client: httpx.Client, server: Server
) -> None:
    persona = knowledge.persona(client, server)
    id = begin(client, persona_id=persona["id"])["id"]
    ask(client, id, "Hello?")
    assert client.delete(f"{PERSONAS}/{persona['id']}").status_code == 204
    assert client.get(f"{SESSIONS}/{id}/history").json()["messages"]
    refused = client.post(f"{SESSIONS}/{id}/messages", json={"content": "Still there?"})
    assert refused.status_code == 422
    assert "persona" in refused.json()["detail"]
    other = knowledge.persona(client, server)
    assert client.patch(f"{SESSIONS}/{id}", json={"persona_id": other["id"]}).status_code == 200
    ask(client, id, "Still there?")


def test_a_stack_of_a_product_without_the_capability_takes_no_persona(
    client: httpx.Client, server: Server
) -> None:
    with server.database() as db:
        region = db.scalars(select(Region)).first()
        product = Product(name="Archive", slug=f"archive-{server.tenant['tenant_id']}", capabilities=[])
        db.add(product)
        db.flush()
        assert region is not None
        stack = Stack(
            tenant_id=server.tenant["tenant_id"], name="Archive", product_id=product.id, region_id=region.id
        )
        db.add(stack)
        db.flush()
        stack_id = stack.id
    try:
        for path, body in (
            (PERSONAS, {"name": "Nobody", "stack_id": stack_id}),
            ("/api/v1/chat/configurations", {"stack_id": stack_id}),
        ):
            refused = client.post(path, json=body)
            assert (refused.status_code, refused.json()["error"]) == (403, "capability-required"), path
    finally:
        with server.database() as db:
            db.delete(db.get_one(Stack, stack_id))

"""The provider's own moderation, from ``medium`` on; the fake objects to whatever holds *flagged*."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import MakesClient
from tests.events import events, text_of
from tests.fakes.provider import FakeProvider
from tests.handlers.test_sessions import SESSIONS, ask, begin
from tests.servers import Server

CONFIGURATIONS = "/api/v1/chat/configurations"
LONG = "The revenue of the year rose by a tenth. " * 30


@pytest.fixture
def admin(
    server_with_provider: Server, connect: MakesClient, fake_provider: FakeProvider
) -> Iterator[httpx.Client]:
    """The owner of a tenant of its own, which filters at ``medium``."""
    fake_provider.forget()
    tenant = server_with_provider.bootstrap("Moderated")
    admin = connect(tenant["api_key"], server_with_provider)
    body = {"enable_content_filtering": True, "content_filter_level": "medium"}
    assert admin.post(CONFIGURATIONS, json=body).status_code == 201
    yield admin
    fake_provider.forget()


def calls(fake: FakeProvider, path: str) -> list[Any]:
    return [request.body for request in fake.requests if request.path.endswith(path)]


def test_a_question_it_objects_to_reaches_no_model(admin: httpx.Client, fake_provider: FakeProvider) -> None:
    id = begin(admin)["id"]
    reply = ask(admin, id, "This is flagged.")
    assert (reply["status"], reply["content"]) == ("filtered", "")
    assert "violence" in str(reply["error"])
    told = admin.get(f"{SESSIONS}/{id}/messages/{reply['id']}/trace").json()["filtering"]
    assert (told["cut"], told["categories"], told["caught_by"]) == ("question", ["violence"], "openai")
    assert calls(fake_provider, "/chat/completions") == []


def test_at_low_it_is_not_asked(admin: httpx.Client, fake_provider: FakeProvider) -> None:
    id = admin.get(CONFIGURATIONS).json()["results"][0]["id"]
    admin.patch(f"{CONFIGURATIONS}/{id}", json={"content_filter_level": "low"})
    assert ask(admin, begin(admin)["id"], "This is flagged.")["status"] == "complete"
    assert calls(fake_provider, "/moderations") == []


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_a_reply_ends_before_the_portion_it_objects_to(
    admin: httpx.Client, fake_provider: FakeProvider, way: str
) -> None:
    fake_provider.behaviour(text=f"{LONG}Then it was flagged. {LONG}")
    url, question = f"{SESSIONS}/{begin(admin)['id']}/messages", {"content": "How was the year?"}
    if way == "whole":
        reply = admin.post(url, json=question).json()
    else:
        told = list(events(admin.post(f"{url}/stream", json=question).text.splitlines()))
        reply = told[-1].data
        assert text_of(told) == reply["content"]
    assert reply["status"] == "filtered"
    assert LONG.startswith(reply["content"])
    assert "flagged" not in reply["content"]


def test_what_it_allows_comes_through_unchanged_and_the_trace_names_it(
    admin: httpx.Client, fake_provider: FakeProvider
) -> None:
    fake_provider.behaviour(text=LONG.strip())
    id = begin(admin)["id"]
    reply = ask(admin, id, "How was the year?")
    assert (reply["status"], reply["content"]) == ("complete", LONG.strip())
    assert [len(call["input"]) > 0 for call in calls(fake_provider, "/moderations")]
    trace = admin.get(f"{SESSIONS}/{id}/messages/{reply['id']}/trace").json()
    looked = {"level": "medium", "moderated_by": "openai", "moderation_error": None}
    assert trace["filtering"] == {**looked, "cut": None, "categories": [], "caught_by": None}


def test_what_arrived_before_the_provider_failed_is_kept(
    admin: httpx.Client, fake_provider: FakeProvider
) -> None:
    fake_provider.behaviour(text="One two three four five six seven.", cut=4, gap=0.01)
    id = begin(admin)["id"]
    admin.post(f"{SESSIONS}/{id}/messages", json={"content": "Count."})
    reply = admin.get(f"{SESSIONS}/{id}/messages").json()["results"][-1]
    assert reply["content"].strip() == "One two three four"

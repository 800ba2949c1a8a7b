"""Citations of replies: where passages stand, letter for letter, and links under the same permission."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests import documents
from tests.conftest import MakesClient
from tests.fakes.provider import FakeProvider
from tests.handlers import knowledge
from tests.servers import Server

SESSIONS = "/api/v1/chat/sessions"
FILES = "/api/v1/chat/files"
SHEET = documents.workbook({"Cover": [["Lamps"]], "Sales": [["Region", "Lamps sold"], ["Harbour", 918]]})
WEB = documents.web_page("<h1>Lamps</h1><p>We make them.</p><h2>Sales</h2><p>Harbour lamps sold: 918.</p>")
WORD = documents.word([(1, "Lamps"), "We make them.", (2, "Sales"), "Harbour lamps sold: 918."])
MARKDOWN = b"# Lamps\n\nWe make them.\n\n## Sales\n\nHarbour lamps sold: 918.\n"
QUESTION = "How many harbour lamps were sold?"


def reply_of(client: httpx.Client, server: Server, index: str, question: str, **more: Any) -> dict[str, Any]:
    """A reply of a persona that reads the index."""
    persona = knowledge.persona(client, server, indices=[index], **more)
    session = f"{SESSIONS}/{client.post(SESSIONS, json={'persona_id': persona['id']}).json()['id']}"
    answer = client.post(f"{session}/messages", json={"content": question})
    assert answer.status_code == 201, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def test_a_page_its_offsets_and_its_words(client: httpx.Client, server: Server) -> None:
    index = knowledge.make(client, "indices")["id"]
    content = knowledge.report()
    document = knowledge.ready(client, index, content)
    reply = reply_of(client, server, index, "What were the lamp inventories?")
    citations = reply["citations"]
    assert [citation["number"] for citation in citations] == list(range(1, len(citations) + 1))
    best = citations[0]
    assert (best["page"], best["document_id"], best["index_id"]) == (2, document["id"], index)
    page = knowledge.PAGES[1]
    assert best["quote"].replace("\t", " ") == page[best["start"] : best["end"]].replace("\t", " ")
    assert best["content_sha256"] == hashlib.sha256(content).hexdigest()
    assert best["url"] == f"{server.url}{knowledge.BASE}/documents/{document['id']}/content#page=2"
    assert client.get(best["url"]).content == content
    for citation in citations:
        assert citation["cited"] is (f"[{citation['number']}]" in reply["content"])


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("lamps.xlsx", SHEET, {"sheet": "Sales", "cell": "A1:B2", "page": None}),
        ("lamps.html", WEB, {"heading": "Sales", "page": None, "sheet": None}),
        ("lamps.md", MARKDOWN, {"heading": "Sales", "page": None, "sheet": None}),
        ("lamps.docx", WORD, {"heading": "Sales", "page": None, "sheet": None}),
    ],
)
def test_sheets_name_cells_with_their_header_and_texts_their_heading(
    client: httpx.Client, server: Server, name: str, content: bytes, place: dict[str, Any]
) -> None:
    index = knowledge.make(client, "indices")["id"]
    document = knowledge.ready(client, index, content, file_name=name)
    reply = reply_of(client, server, index, QUESTION, default_score_threshold=0)
    found = next(citation for citation in reply["citations"] if "918" in citation["quote"])
    assert {field: found[field] for field in place} == place
    assert found["end"] - found["start"] == len(found["quote"])
    if found["sheet"]:
        assert "Lamps sold" in found["quote"]
    assert found["url"] == f"{server.url}{knowledge.BASE}/documents/{document['id']}/content"


def test_the_link_is_under_the_permission_of_its_reader(
    client: httpx.Client, server: Server, other: httpx.Client, client_with: Callable[..., httpx.Client]
) -> None:
    index = knowledge.make(client, "indices")["id"]
    knowledge.ready(client, index)
    url = reply_of(client, server, index, "lamp inventories")["citations"][0]["url"]
    assert client.get(url).status_code == 200
    assert other.get(url).status_code == client_with(role="member").get(url).status_code == 404
    assert httpx.get(url).status_code == 401


def test_what_was_not_given_is_no_citation(
    server_with_provider: Server, connect: MakesClient, fake_provider: FakeProvider
) -> None:
    fake_provider.forget()
    fake_provider.behaviour(text="It was 918 [1], says [2, 44] and [45].")
    chat = connect(server_with_provider.api_key, server_with_provider)
    index = knowledge.make(chat, "indices")["id"]
    knowledge.ready(chat, index)
    reply = reply_of(chat, server_with_provider, index, "lamp inventories", default_score_threshold=0)
    given = {citation["number"]: citation["cited"] for citation in reply["citations"]}
    assert (given[1], given[2], given[3]) == (True, True, False)
    assert not {44, 45} & given.keys()
    trace = chat.get(f"{SESSIONS}/{reply['session_id']}/messages/{reply['id']}/trace").json()
    assert trace["dropped_citations"] == [44, 45]
    assert reply["content"] == "It was 918 [1], says [2, 44] and [45].", "the provider's text stays as it is"

"""Search over HTTP: what is found, where it stands, and within what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.contract.conformance import described
from tests.handlers import knowledge
from tests.handlers.knowledge import BASE, PAGES, UNKNOWN, make, pointers, ready
from tests.handlers.test_indices import assign
from tests.servers import Server

SEARCH = f"{BASE}/search"


def ask(client: httpx.Client, query: str, **more: Any) -> Any:
    answer = client.post(SEARCH, json={"query": query, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def shelf() -> dict[str, Any]:
    """What the first test made, for the others of the same server."""
    return {}


@pytest.fixture
def document(client: httpx.Client, server: Server, shelf: dict[str, Any]) -> dict[str, Any]:
    if shelf.get("url") != server.url:
        label = make(client, "categories")["id"]
        index = make(client, "indices")["id"]
        found = ready(client, index, file_name="lamps.pdf", category_ids=label)
        shelf.update(url=server.url, document=found)
    kept: dict[str, Any] = shelf["document"]
    return kept


class TestHits:
    @pytest.mark.parametrize("mode", ["hybrid", "keyword", "vector"])
    @pytest.mark.parametrize(
        ("question", "page"),
        [("What were the lamp inventories?", 2), ("net revenue of the lamp segment", 3), ("lighthouses", 1)],
    )
    def test_lead_to_the_page(
        self, client: httpx.Client, document: dict[str, Any], mode: str, question: str, page: int
    ) -> None:
        found = ask(client, question, mode=mode, document_ids=[document["id"]], score_threshold=0)
        assert found["mode"] == mode
        assert found["took_ms"] > 0
        best = found["results"][0]
        assert best["page"] == page
        assert best["number"] == 1
        assert best["document_name"] == "lamps.pdf"
        assert best["index_id"] == document["index_id"]
        assert best["content_sha256"] == document["content_sha256"]
        assert all(
            line in PAGES[page - 1].replace("\t", " ")
            for line in best["quote"].replace("\t", " ").splitlines()
        )
        assert best["end"] - best["start"] == len(best["quote"])
        looked = {"hybrid": {"keyword", "vector"}, "keyword": {"keyword"}, "vector": {"vector"}}[mode]
        assert {name for name in ("keyword", "vector") if best["scores"][name] is not None} <= looked
        assert best["scores"]["fused"] > 0
        assert best["reasons"]

    def test_have_what_citations_have(
        self, client: httpx.Client, server: Server, document: dict[str, Any]
    ) -> None:
        best = ask(client, "lamp inventories", score_threshold=0)["results"][0]
        schemas = described().spec["components"]["schemas"]
        assert set(schemas["Citation"]["properties"]) | {"scores", "reasons"} == set(best)
        assert best["cited"] is False
        assert (
            best["url"] == f"{server.url}{BASE}/documents/{best['document_id']}/content#page={best['page']}"
        )
        assert client.get(best["url"]).status_code == 200

    def test_number_upwards_and_no_more_than_asked_for(
        self, client: httpx.Client, document: dict[str, Any]
    ) -> None:
        narrowed = {"document_ids": [document["id"]], "score_threshold": 0}
        many = ask(client, "lamps revenue balance", **narrowed)["results"]
        assert [hit["number"] for hit in many] == [*range(1, len(many) + 1)]
        assert len(many) > 1
        assert len(ask(client, "lamps revenue balance", max_documents=1, **narrowed)["results"]) == 1

    def test_reach_the_threshold(self, client: httpx.Client, document: dict[str, Any]) -> None:
        question = "What were the lamp inventories?"
        everything = ask(client, question, score_threshold=0)["results"]
        best = max(hit["score"] for hit in everything)
        assert 0 < best < 1
        for threshold in (best / 2, best):
            assert all(
                hit["score"] >= threshold
                for hit in ask(client, question, score_threshold=threshold)["results"]
            )
        assert ask(client, question, score_threshold=1)["results"] == []


class TestNarrowed:
    def test_by_each_kind_of_id(self, client: httpx.Client, document: dict[str, Any]) -> None:
        empty_index, empty_label = make(client, "indices")["id"], make(client, "categories")["id"]
        for narrowed, finds in (
            ({"index_ids": [document["index_id"]]}, True),
            ({"index_ids": [document["index_id"].upper()]}, True),
            ({"category_ids": document["category_ids"]}, True),
            ({"document_ids": [document["id"]]}, True),
            ({"index_ids": [empty_index, document["index_id"]]}, True),
            ({"index_ids": [empty_index]}, False),
            ({"category_ids": [empty_label]}, False),
            ({"index_ids": []}, False),
            ({"document_ids": [document["id"]], "category_ids": [empty_label]}, False),
        ):
            found = ask(client, "lamp inventories", score_threshold=0, **narrowed)["results"]
            assert {hit["document_id"] for hit in found} == ({document["id"]} if finds else set()), narrowed

    @pytest.mark.parametrize("kind", ["index_ids", "category_ids", "document_ids"])
    def test_by_what_is_not_there(
        self, client: httpx.Client, other: httpx.Client, document: dict[str, Any], kind: str
    ) -> None:
        ids = {
            "index_ids": document["index_id"],
            "category_ids": document["category_ids"][0],
            "document_ids": document["id"],
        }
        own = {"index_ids": "indices", "category_ids": "categories"}
        first = make(other, own[kind])["id"] if kind in own else ready_in(other)
        unknown, foreign = (
            other.post(SEARCH, json={"query": "lamps", kind: [first, id]}) for id in (UNKNOWN, ids[kind])
        )
        for answer in (unknown, foreign):
            assert answer.status_code == 404
            assert pointers(answer) == [f"/{kind}/1"]
        assert unknown.json()["detail"] == foreign.json()["detail"]


def ready_in(client: httpx.Client) -> str:
    """A document of this tenant."""
    found: str = ready(client, make(client, "indices")["id"])["id"]
    return found


class TestReach:
    def test_another_tenant_s_is_not_found(self, other: httpx.Client, document: dict[str, Any]) -> None:
        found = ask(other, "lamp inventories", score_threshold=0)["results"]
        assert document["id"] not in [hit["document_id"] for hit in found]

    @pytest.mark.parametrize("way", ["indices", "categories"])
    def test_a_member_finds_what_its_personas_are_given(
        self,
        server: Server,
        client: httpx.Client,
        client_with: Callable[..., httpx.Client],
        way: str,
    ) -> None:
        index, label = make(client, "indices")["id"], make(client, "categories")["id"]
        given = ready(client, index, category_ids=label)["id"]
        member = client_with(role="viewer")

        def finds() -> bool:
            hits = ask(member, "lamp inventories", score_threshold=0, max_documents=50)["results"]
            return given in [hit["document_id"] for hit in hits]

        assert not finds()
        assert member.post(SEARCH, json={"query": "lamps", "document_ids": [given]}).status_code == 404
        places = {"indices": [index]} if way == "indices" else {"categories": [label]}
        persona = knowledge.persona(client, server, **places)
        assign(server, persona["id"])
        assert finds()
        narrowed = {"index_ids": [index]} if way == "indices" else {"category_ids": [label]}
        assert ask(member, "lamp inventories", score_threshold=0, **narrowed)["results"]
        client.patch(f"/api/v1/chat/personas/{persona['id']}", json={"is_active": False})
        assert not finds()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": " "},
        {"query": "x" * 4001},
        {"query": "x", "mode": "fuzzy"},
        {"query": "x", "max_documents": 0},
        {"query": "x", "max_documents": 51},
        {"query": "x", "score_threshold": 1.1},
        {"query": "x", "index_ids": ["1"]},
        {"query": "x", "tenant_id": UNKNOWN},
    ],
)
def test_what_the_contract_refuses(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post(SEARCH, json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"]

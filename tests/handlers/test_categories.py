"""Categories over HTTP; what they share with indices is tested in test_indices.py."""

from __future__ import annotations

import httpx

from tests.handlers import knowledge
from tests.handlers.knowledge import BASE, make


def test_a_category_counts_what_carries_it(client: httpx.Client) -> None:
    index, category = make(client, "indices"), make(client, "categories")
    assert knowledge.upload(client, index["id"], category_ids=category["id"]).status_code == 201
    assert knowledge.upload(client, index["id"]).status_code == 201
    assert client.get(f"{BASE}/categories/{category['id']}").json()["document_count"] == 1
    listed = client.get(f"{BASE}/categories", params={"search": category["name"]}).json()["results"]
    assert {entry["id"]: entry["document_count"] for entry in listed}[category["id"]] == 1


def test_documents_outlive_their_category(client: httpx.Client) -> None:
    index, category = make(client, "indices"), make(client, "categories")
    document = knowledge.upload(client, index["id"], category_ids=category["id"]).json()
    assert document["category_ids"] == [category["id"]]
    assert client.delete(f"{BASE}/categories/{category['id']}").status_code == 204
    assert client.get(f"{BASE}/documents/{document['id']}").json()["category_ids"] == []

"""Personas over HTTP."""

import httpx


def test_list(client: httpx.Client) -> None:
    assert client.get("/api/v1/chat/personas").json()["count"] >= 1

"""What tests of knowledge share: places for documents, files that are waited for, personas that read them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import httpx

from tests import documents
from tests.servers import Server

BASE = "/api/v1/chat/knowledge"
FILES = "/api/v1/chat/files"
READY_WITHIN = 90.0
UNKNOWN = "01934c5e-7d2a-7c3b-9a44-000000000000"
_numbers = itertools.count(1)

PAGES = (
    "Harbour Lamps\nAnnual overview\nThe company makes lamps for harbours and lighthouses.",
    "Balance sheet\nCash and equivalents\t4,310\nLamp inventories\t918\nTotal assets\t15,204",
    "Revenue\nNet revenue of the lamp segment\t7,425\nNet revenue of services\t1,106",
)


def report(*, mark: str | None = None) -> bytes:
    """A PDF of three pages. Each call makes other bytes, unless a mark says which."""
    return documents.pdf(PAGES, title=mark or f"Report {next(_numbers)}")


def make(client: httpx.Client, kind: str, **values: Any) -> dict[str, Any]:
    """A new index (``indices``) or category (``categories``) with a name of its own."""
    answer = client.post(f"{BASE}/{kind}", json={"name": f"Place {next(_numbers)}", **values})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def upload(
    client: httpx.Client,
    index_id: str,
    content: bytes | None = None,
    file_name: str = "report.pdf",
    **fields: Any,
) -> httpx.Response:
    """A document by multipart."""
    return client.post(
        f"{BASE}/documents",
        files={"file": (file_name, report() if content is None else content)},
        data={"index_id": index_id, **fields},
    )


def settled(client: httpx.Client, path: str) -> dict[str, Any]:
    """A document or a session's file, once it is ready or failed."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        body = client.get(path).json()
        found: dict[str, Any] = body.get("data", body)
        if found["status"] in ("ready", "failed"):
            return found
        time.sleep(0.1)  # it is being read in the background
    raise AssertionError(f"{path} was not read in time: {found}")


def ready(client: httpx.Client, index_id: str, content: bytes | None = None, **more: Any) -> dict[str, Any]:
    """A document that can be found."""
    answer = upload(client, index_id, content, **more)
    assert answer.status_code == 201, answer.text
    found = settled(client, f"{BASE}/documents/{answer.json()['id']}")
    assert found["status"] == "ready", found
    return found


def persona(
    client: httpx.Client,
    server: Server,
    *,
    indices: Sequence[str] = (),
    categories: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """A persona that is given these."""
    answer = client.post(
        "/api/v1/chat/personas",
        json={
            "name": f"Persona {next(_numbers)}",
            "stack_id": server.tenant["stack_id"],
            "accessible_index_ids": list(indices),
            "accessible_category_ids": list(categories),
            **more,
        },
    )
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def pointers(answer: httpx.Response) -> list[str]:
    """Which fields a problem names."""
    return [
        fault["pointer"] if "pointer" in fault else fault["parameter"] for fault in answer.json()["errors"]
    ]

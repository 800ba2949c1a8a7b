"""The first minute of somebody new: start, paste, and read an answer that cites a page."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openpyxl
import pytest
from openai import OpenAI
from pypdf import PdfReader

from storage.demo import REPORT, WORKBOOK
from tests import demo_documents
from tests.backends import free_port
from tests.contract import conformance
from tests.journeys.demo import ROOT, Demo, serving, start
from tests.relay import relay
from tests.servers import ENDS_WITHIN, STARTS_WITHIN

SPENT = "How much did Tarnwick spend on property, plant and equipment in 2025?"
WORK_AT = "How many employees are at the Gdynia plant?"
CHAT = "/api/v1/chat"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A first start, in an empty data folder."""
    with serving(tmp_path_factory.mktemp("demo") / "data") as made:
        yield made


@pytest.fixture
def client(demo: Demo) -> Iterator[httpx.Client]:
    """Whoever has read what the start printed."""
    with conformance.client(demo.url, demo.key) as made:
        yield made


def joined(text: str) -> str:
    """A text with its white space as single blanks: where lines end is each reader's own affair."""
    return " ".join(text.split())


def stands_on_its_page(citation: dict[str, Any], original: bytes) -> bool:
    """Whether another reader than the server's finds the quote on the page that a citation names."""
    page = PdfReader(io.BytesIO(original)).pages[citation["page"] - 1]
    return bool(citation["quote"]) and joined(citation["quote"]) in joined(page.extract_text())


def of_report(citations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The citations that name a page of the report."""
    return [citation for citation in citations if citation["document_name"] == REPORT.name]


def counts(client: httpx.Client) -> dict[str, int]:
    """How much there is of what the demo makes."""
    return {
        kind: client.get(f"{CHAT}/{kind}").json()["count"]
        for kind in ("personas", "knowledge/indices", "knowledge/documents")
    }


def test_an_answer_quotes_the_page_that_it_cites(client: httpx.Client) -> None:
    session = client.post(f"{CHAT}/sessions", json={}).json()
    reply = client.post(f"{CHAT}/sessions/{session['id']}/messages", json={"content": SPENT}).json()
    assert (reply["status"], reply["answer_status"]) == ("complete", "answered")
    assert "Purchases of property, plant and equipment (26,140)" in joined(reply["content"])
    cited = next(citation for citation in reply["citations"] if "(26,140)" in citation["quote"])
    assert (cited["page"], cited["cited"]) == (8, True)
    original = client.get(cited["url"]).content
    assert original == REPORT.read_bytes()
    assert all(stands_on_its_page(citation, original) for citation in of_report(reply["citations"]))


def test_a_figure_of_the_workbook_is_cited_by_sheet_and_cell(client: httpx.Client) -> None:
    session = client.post(f"{CHAT}/sessions", json={}).json()
    reply = client.post(f"{CHAT}/sessions/{session['id']}/messages", json={"content": WORK_AT}).json()
    cited = reply["citations"][0]
    assert (cited["document_name"], cited["sheet"], cited["page"]) == (WORKBOOK.name, "Plants", None)
    cells = openpyxl.load_workbook(WORKBOOK)[cited["sheet"]][cited["cell"]]
    assert ("Gdynia", 547) in [(row[0].value, row[2].value) for row in cells]
    assert "Gdynia Poland 547" in joined(reply["content"])


def test_the_official_client_gets_the_same(demo: Demo) -> None:
    with OpenAI(base_url=f"{demo.url}/openai/v1", api_key=demo.key) as openai:
        assert [model.id for model in openai.models.list()] == ["analyst"]
        answer = openai.chat.completions.create(
            model="analyst", messages=[{"role": "user", "content": SPENT}]
        )
    assert "(26,140)" in (answer.choices[0].message.content or "")
    citations = (answer.model_extra or {})["citations"]
    assert any("(26,140)" in citation["quote"] and citation["page"] == 8 for citation in citations)
    assert all(stands_on_its_page(citation, REPORT.read_bytes()) for citation in of_report(citations))


def test_the_printed_command_answers_but_for_the_address_as_it_stands(demo: Demo) -> None:
    with relay(demo.url) as door:
        command = demo.command.replace(demo.url, door.url)
        done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, check=True)  # noqa: S603, S607 - what our own program prints is what is tried
    assert f"{REPORT.name}, page 8" in done.stdout
    assert "Purchases of property, plant and equipment (26,140)" in joined(done.stdout)


def test_the_printed_addresses_answer(demo: Demo, client: httpx.Client) -> None:
    told = {word for word in demo.printed.split() if word.startswith(demo.url) and "/v1/chat/" not in word}
    assert len(told) == 6
    for url in told - {demo.url, f"{demo.url}/openai/v1"}:
        assert client.get(url).is_success, url


def test_the_key_is_kept_for_nobody_else(demo: Demo) -> None:
    kept = demo.data_dir / "demo.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert json.loads(kept.read_text())["api_key"] == demo.key


def test_a_second_start_makes_nothing_twice(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir) as first, conformance.client(first.url, first.key) as client:
        made = counts(client)
        document = client.get(f"{CHAT}/knowledge/documents").json()["results"][0]
        assert client.delete(f"{CHAT}/knowledge/documents/{document['id']}").is_success
    with serving(data_dir) as second, conformance.client(second.url, second.key) as client:
        assert second.key == first.key
        # What the owner deleted stays deleted.
        assert counts(client) == {**made, "knowledge/documents": 1}
    (data_dir / "demo.json").unlink()
    with serving(data_dir) as third, conformance.client(third.url, third.key) as client:
        assert third.key != first.key
        assert counts(client) == made


def test_a_start_that_was_cut_off_is_taken_up(tmp_path: Path) -> None:
    data_dir, log = tmp_path / "data", tmp_path / "cut.out"
    cut = start(data_dir, log, f"http://127.0.0.1:{free_port()}")
    deadline = time.monotonic() + STARTS_WITHIN
    while not (data_dir / "demo.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # the file is all that tells how far it is
    os.kill(cut.pid, signal.SIGKILL)
    cut.wait(ENDS_WITHIN)
    kept = json.loads((data_dir / "demo.json").read_text())
    assert "index_id" not in kept, "it was done before it could be cut off"
    with serving(data_dir) as demo, conformance.client(demo.url, demo.key) as client:
        assert demo.key == kept["api_key"]
        assert counts(client) == {"personas": 1, "knowledge/indices": 1, "knowledge/documents": 2}
        documents = client.get(f"{CHAT}/knowledge/documents").json()["results"]
        assert {document["status"] for document in documents} == {"ready"}


def test_the_documents_are_what_their_script_writes() -> None:
    written, committed = PdfReader(io.BytesIO(demo_documents.report())), PdfReader(REPORT)
    assert [page.extract_text() for page in written.pages] == [
        page.extract_text() for page in committed.pages
    ]
    sheets = [openpyxl.load_workbook(book) for book in (io.BytesIO(demo_documents.workbook()), WORKBOOK)]
    assert [[list(sheet.values) for sheet in book] for book in sheets][0] == [
        list(sheet.values) for sheet in sheets[1]
    ]


def test_make_run_is_this_command() -> None:
    command = ["make", "--no-print-directory", "-n", "run"]  # also beneath another make
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert planned.stdout.splitlines()[-1].split() == [".venv/bin/booga", "serve", "--demo"]

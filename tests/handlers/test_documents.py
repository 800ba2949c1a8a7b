"""Documents over HTTP: added, read, corrected, tried again, removed, and who may see them."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from handlers.documents import LIMIT
from models.knowledge.library import Chunk
from models.work import Job
from tests import backends, documents
from tests.handlers import knowledge
from tests.handlers.knowledge import BASE, UNKNOWN, make, pointers, ready, report, settled, upload
from tests.handlers.test_indices import assign
from tests.servers import Server, running

DOCUMENTS = f"{BASE}/documents"


@pytest.fixture
def index(client: httpx.Client) -> dict[str, Any]:
    return make(client, "indices")


def add(client: httpx.Client, index_id: str, **body: Any) -> httpx.Response:
    return client.post(DOCUMENTS, json={"index_id": index_id, **body})


class TestUpload:
    def test_a_pdf_is_read_in_the_background(self, client: httpx.Client, index: dict[str, Any]) -> None:
        content = report()
        answer = upload(client, index["id"], content, "Annual report.pdf")
        assert answer.status_code == 201
        added = answer.json()
        item = f"{DOCUMENTS}/{added['id']}"
        assert answer.headers["location"] == item
        assert added["name"] == "Annual report.pdf"
        assert added["index_id"] == index["id"]
        assert added["status"] == "pending"
        assert added["progress"] == 0
        assert added["media_type"] == "application/pdf"
        assert added["size"] == len(content)
        assert added["content_sha256"] == hashlib.sha256(content).hexdigest()
        found = settled(client, item)
        assert found["status"] == "ready"
        assert found["progress"] == 1
        assert found["page_count"] == 3
        assert found["chunk_count"] == found["vector_count"] >= 3
        assert found["error_code"] is None

    @pytest.mark.parametrize(
        ("name", "content", "media_type"),
        [
            ("lamps.docx", documents.word([(1, "Lamps"), "We sell lamps."]), "wordprocessingml.document"),
            (
                "lamps.xlsx",
                documents.workbook({"Lamps": [["Kind", "Sold"], ["Oil", 7]]}),
                "spreadsheetml.sheet",
            ),
            ("lamps.csv", documents.comma_separated([["Kind", "Sold"], ["Oil", 7]]), "text/csv"),
            ("lamps.HTM", documents.web_page("<h1>Lamps</h1><p>We sell lamps.</p>"), "text/html"),
            ("lamps.md", b"# Lamps\n\nWe sell lamps.\n", "text/markdown"),
            ("folder\\lamps.txt", b"We sell lamps.", "text/plain"),
        ],
    )
    def test_every_kind(
        self, client: httpx.Client, index: dict[str, Any], name: str, content: bytes, media_type: str
    ) -> None:
        found = ready(client, index["id"], content, file_name=name)
        assert found["media_type"].endswith(media_type)
        assert found["name"] == name.rpartition("\\")[2]
        assert found["chunk_count"] > 0

    def test_the_same_content_is_kept_once_in_an_index(
        self, client: httpx.Client, index: dict[str, Any]
    ) -> None:
        content = report()
        first = upload(client, index["id"], content)
        again = upload(client, index["id"], content, "another name.pdf")
        assert again.status_code == 200
        assert again.json()["id"] == first.json()["id"]
        assert again.json()["name"] == first.json()["name"]
        assert again.headers["location"] == first.headers["location"]
        elsewhere = upload(client, make(client, "indices")["id"], content)
        assert elsewhere.status_code == 201
        assert elsewhere.json()["id"] != first.json()["id"]

    def test_with_a_name_and_categories(self, client: httpx.Client, index: dict[str, Any]) -> None:
        labels = sorted(make(client, "categories")["id"] for _ in range(3))
        answer = upload(
            client,
            index["id"],
            name="The year in lamps",
            category_ids=[f"{labels[0]},{labels[1].upper()}", labels[2]],
        )
        assert answer.status_code == 201
        assert answer.json()["name"] == "The year in lamps"
        assert sorted(answer.json()["category_ids"]) == labels
        assert settled(client, f"{DOCUMENTS}/{answer.json()['id']}")["status"] == "ready"

    def test_ids_of_nothing(self, client: httpx.Client, other: httpx.Client, index: dict[str, Any]) -> None:
        theirs, label = make(other, "indices")["id"], make(other, "categories")["id"]
        told = []
        for index_id in (UNKNOWN, theirs):
            for answer in (upload(client, index_id), add(client, index_id, name="x", text="y")):
                assert answer.status_code == 404
                assert pointers(answer) == ["/index_id"]
                told.append(answer.json()["detail"])
        for category_id in (UNKNOWN, label):
            for answer in (
                upload(client, index["id"], category_ids=category_id),
                add(client, index["id"], name="x", text="y", category_ids=[category_id]),
            ):
                assert answer.status_code == 404
                assert pointers(answer) == ["/category_ids/0"]
                told.append(answer.json()["detail"])
        assert len(set(told)) == 1

    @pytest.mark.parametrize("name", ["lamps.exe", "lamps", "lamps.doc", ".pdf"])
    def test_a_kind_that_cannot_be_read(self, client: httpx.Client, index: dict[str, Any], name: str) -> None:
        answer = upload(client, index["id"], b"anything", name)
        assert answer.status_code == 422
        assert pointers(answer) == ["/file"]

    def test_more_than_the_limit(self, client: httpx.Client, index: dict[str, Any]) -> None:
        answer = upload(client, index["id"], b"x" * (LIMIT + 1), "long.txt")
        assert answer.status_code == 413
        assert client.get(DOCUMENTS, params={"index_id": index["id"]}).json()["count"] == 0

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({}, "/index_id"),
            ({"index_id": "1"}, "/index_id"),
            ({"index_id": UNKNOWN, "tenant_id": "1"}, "/tenant_id"),
        ],
    )
    def test_a_form_that_the_contract_refuses(
        self, client: httpx.Client, fields: dict[str, str], pointer: str
    ) -> None:
        answer = client.post(DOCUMENTS, files={"file": ("a.txt", b"a")}, data=fields)
        assert answer.status_code == 400
        assert any(fault["pointer"] in (pointer, "") for fault in answer.json()["errors"])

    def test_a_key_replays_the_first_answer(self, client: httpx.Client, index: dict[str, Any]) -> None:
        content, key = report(), {"Idempotency-Key": f"upload-{index['id']}"}
        form: dict[str, Any] = {"data": {"index_id": index["id"]}, "headers": key}
        first = client.post(DOCUMENTS, files={"file": ("a.pdf", content)}, **form)
        replayed = client.post(DOCUMENTS, files={"file": ("a.pdf", content)}, **form)
        assert (first.status_code, replayed.status_code) == (201, 201)
        assert replayed.json() == first.json()
        assert replayed.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.headers
        other = client.post(DOCUMENTS, files={"file": ("a.pdf", report())}, **form)
        assert other.status_code == 422
        assert other.json()["error"] == "idempotency-key-reused"
        assert client.get(DOCUMENTS, params={"index_id": index["id"]}).json()["count"] == 1


class TestFailures:
    @pytest.mark.parametrize(
        ("name", "content", "code"),
        [
            ("lamps.pdf", b"not a PDF at all", "invalid_file"),
            ("locked.pdf", documents.pdf(["Secret lamps."], password="word"), "encrypted_file"),
            ("scanned.pdf", documents.scanned_pdf(), "needs_ocr"),
            ("empty.txt", b" \n", "empty_file"),
        ],
    )
    def test_told_with_a_code_and_tried_again(
        self, client: httpx.Client, index: dict[str, Any], name: str, content: bytes, code: str
    ) -> None:
        item = f"{DOCUMENTS}/{upload(client, index['id'], content, name).json()['id']}"
        failed = settled(client, item)
        assert (failed["status"], failed["error_code"]) == ("failed", code)
        assert failed["error_detail"]
        again = client.post(f"{item}/retry")
        assert again.status_code == 202
        assert (again.json()["status"], again.json()["error_code"]) == ("pending", None)
        assert settled(client, item)["error_code"] == code

    def test_only_what_failed_is_tried_again(self, client: httpx.Client, index: dict[str, Any]) -> None:
        found = ready(client, index["id"])
        answer = client.post(f"{DOCUMENTS}/{found['id']}/retry")
        assert answer.status_code == 409
        assert client.get(f"{DOCUMENTS}/{found['id']}").json()["status"] == "ready"
        assert client.post(f"{DOCUMENTS}/{UNKNOWN}/retry").status_code == 404


class TestText:
    @pytest.mark.parametrize(
        ("name", "media_type"),
        [("Notes on lamps", "text/plain"), ("notes.md", "text/markdown"), ("report.pdf", "text/plain")],
    )
    def test_becomes_a_document(
        self, client: httpx.Client, index: dict[str, Any], name: str, media_type: str
    ) -> None:
        text = f"Lamps called {name} sold well — 7 €."
        answer = add(client, index["id"], name=name, text=text)
        assert answer.status_code == 201
        found = settled(client, answer.headers["location"])
        assert (found["status"], found["name"], found["media_type"]) == ("ready", name, media_type)
        assert client.get(f"{DOCUMENTS}/{found['id']}/content").text == text
        assert add(client, index["id"], name="Other", text=text).status_code == 200

    def test_with_metadata(self, client: httpx.Client, index: dict[str, Any]) -> None:
        known = {"company": "Harbour Lamps", "aliases": ["HL"], "fiscal_year": 2024}
        added = add(client, index["id"], name="Notes", text="Lamps.", metadata=known).json()
        assert added["metadata"] == known | {"ticker": None, "period": None, "form": None}

    @pytest.mark.parametrize(
        "body",
        [
            {"name": "x"},
            {"name": "x", "text": "y", "url": "https://example.com/"},
            {"text": "y"},
            {"name": "x", "text": ""},
            {"name": "x", "text": "y", "metadata": {"fiscal_year": "2024"}},
            {"name": "x", "text": "y", "metadata": {"period": "2024"}},
            {"name": "x", "url": "file:///etc/passwd"},
        ],
    )
    def test_what_the_contract_refuses(
        self, client: httpx.Client, index: dict[str, Any], body: dict[str, Any]
    ) -> None:
        answer = add(client, index["id"], **body)
        assert answer.status_code == 400
        assert answer.json()["errors"]

    def test_other_media_types_are_not_taken(self, client: httpx.Client) -> None:
        assert client.post(DOCUMENTS, content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415


class Site(BaseHTTPRequestHandler):
    """A web server with a report, a program and a page that moved."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(301)
            self.send_header("Location", "/report")
            self.end_headers()
            return
        kinds = {
            "/report": "application/pdf",
            "/notes.md": "text/plain",
            "/program": "application/x-msdownload",
        }
        body = report(mark="on the web") if self.path == "/report" else b"# Lamps\n\nWe sell lamps."
        self.send_response(200)
        self.send_header("Content-Type", kinds[self.path])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not onto the terminal."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose tenants may use the host's own network, since tests stay on loopback."""
    given = {"BOOGA_ALLOW_PRIVATE_ADDRESSES": "true"}
    with running(tmp_path_factory.mktemp("open"), "sqlite", given) as made:
        yield made


class TestWebAddress:
    @pytest.fixture
    def server(self, open_server: Server) -> Server:
        return open_server

    @pytest.mark.parametrize(
        ("path", "media_type"), [("/report", "application/pdf"), ("/notes.md", "text/markdown")]
    )
    def test_what_stands_there_becomes_a_document(
        self, client: httpx.Client, index: dict[str, Any], site: str, path: str, media_type: str
    ) -> None:
        answer = add(client, index["id"], name="From the web", url=site + path)
        assert answer.status_code == 201
        found = settled(client, answer.headers["location"])
        assert (found["status"], found["name"]) == ("ready", "From the web")
        assert found["media_type"] == media_type
        assert add(client, index["id"], name="Again", url=site + path).json()["id"] == found["id"]

    @pytest.mark.parametrize("path", ["/moved", "/program"])
    def test_nothing_usable(self, client: httpx.Client, index: dict[str, Any], site: str, path: str) -> None:
        answer = add(client, index["id"], name="x", url=site + path)
        assert answer.status_code == 422
        assert pointers(answer) == ["/url"]

    def test_a_key_asks_the_address_once(
        self, client: httpx.Client, index: dict[str, Any], site: str
    ) -> None:
        body = {"index_id": index["id"], "name": "x", "url": f"{site}/report"}
        key = {"Idempotency-Key": index["id"]}
        first, second = (client.post(DOCUMENTS, json=body, headers=key) for _ in range(2))
        assert (first.status_code, second.status_code) == (201, 201)
        assert second.headers["idempotent-replayed"] == "true"
        assert second.json() == first.json()


def test_the_host_s_own_network_is_not_asked(client: httpx.Client, index: dict[str, Any], site: str) -> None:
    answer = add(client, index["id"], name="x", url=f"{site}/report")
    assert answer.status_code == 422
    assert pointers(answer) == ["/url"]


class TestList:
    def test_filters(self, client: httpx.Client, index: dict[str, Any]) -> None:
        label = make(client, "categories")["id"]
        good = ready(client, index["id"], file_name="good lamps.pdf", category_ids=label)
        bad = upload(client, index["id"], b"no", "bad lamps.pdf").json()
        settled(client, f"{DOCUMENTS}/{bad['id']}")

        def listed(**query: str) -> list[str]:
            page = client.get(DOCUMENTS, params={"index_id": index["id"], **query}).json()
            assert page["count"] == len(page["results"])
            return [entry["id"] for entry in page["results"]]

        assert listed() == [bad["id"], good["id"]]
        assert listed(ordering="created_at") == [good["id"], bad["id"]]
        assert listed(ordering="size") == [bad["id"], good["id"]]
        assert listed(category_id=label) == [good["id"]]
        assert listed(status="failed") == [bad["id"]]
        assert listed(status="ready") == [good["id"]]
        assert listed(search="GOOD") == [good["id"]]
        for unknown in ("index_id", "category_id"):
            answer = client.get(DOCUMENTS, params={unknown: UNKNOWN})
            assert answer.status_code == 404
            assert answer.json()["errors"][0]["parameter"] == unknown

    def test_as_csv(self, client: httpx.Client, index: dict[str, Any]) -> None:
        upload(client, index["id"], b"Lamps.", "=lamps.txt")
        answer = client.get(DOCUMENTS, params={"index_id": index["id"]}, headers={"Accept": "text/csv"})
        head, row = answer.text.splitlines()
        assert head.startswith("id,name,index_id,status,")
        assert ",'=lamps.txt," in row


class TestUpdate:
    def test_name_categories_and_metadata(self, client: httpx.Client, index: dict[str, Any]) -> None:
        label = make(client, "categories")["id"]
        found = ready(client, index["id"])
        item = f"{DOCUMENTS}/{found['id']}"
        changed = client.patch(item, json={"name": "Lamps 2024", "category_ids": [label]}).json()
        assert (changed["name"], changed["category_ids"]) == ("Lamps 2024", [label])
        assert changed["updated_at"] > found["updated_at"]
        client.patch(item, json={"metadata": {"company": "Harbour Lamps", "ticker": "HL"}})
        changed = client.patch(item, json={"metadata": {"ticker": None, "aliases": ["Lamps"]}}).json()
        assert changed["metadata"]["company"] == "Harbour Lamps"
        assert changed["metadata"]["ticker"] is None
        assert changed["metadata"]["aliases"] == ["Lamps"]
        assert changed["category_ids"] == [label]
        assert client.patch(item, json={"category_ids": []}).json()["category_ids"] == []
        assert client.get(item).json()["category_ids"] == []

    def test_what_cannot_be(self, client: httpx.Client, index: dict[str, Any]) -> None:
        item = f"{DOCUMENTS}/{upload(client, index['id']).json()['id']}"
        refused = client.patch(item, json={"category_ids": [UNKNOWN]})
        assert refused.status_code == 404
        assert pointers(refused) == ["/category_ids/0"]
        assert client.patch(item, json={"status": "ready"}).status_code == 400
        assert client.patch(item, json={}).status_code == 400


class TestDelete:
    def test_everything_of_it_goes(self, client: httpx.Client, server: Server, index: dict[str, Any]) -> None:
        found = ready(client, index["id"])
        item = f"{DOCUMENTS}/{found['id']}"
        question = {"query": "lamp inventories", "index_ids": [index["id"]], "score_threshold": 0}
        assert client.post(f"{BASE}/search", json=question).json()["results"]
        gone = client.delete(item)
        assert gone.status_code == 200
        assert gone.json() == {
            "vectors_removed": found["vector_count"],
            "chunks_removed": found["chunk_count"],
        }
        for path in (item, f"{item}/content"):
            assert client.get(path).status_code == 404
        assert client.delete(item).status_code == 404
        assert client.post(f"{BASE}/search", json=question).json()["results"] == []

    def test_of_what_was_never_read(self, client: httpx.Client, index: dict[str, Any]) -> None:
        bad = upload(client, index["id"], b"no", "bad.pdf").json()
        settled(client, f"{DOCUMENTS}/{bad['id']}")
        gone = client.delete(f"{DOCUMENTS}/{bad['id']}")
        assert gone.json() == {"vectors_removed": 0, "chunks_removed": 0}


class TestContent:
    def test_the_original(self, client: httpx.Client, index: dict[str, Any]) -> None:
        content = report()
        added = upload(client, index["id"], content).json()
        path = f"{DOCUMENTS}/{added['id']}/content"
        answer = client.get(path)
        assert answer.content == content
        assert answer.headers["content-type"] == "application/pdf"
        assert answer.headers["etag"] == f'"{added["content_sha256"]}"'
        known = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
        head = client.head(path)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(content)))
        assert answer.headers["accept-ranges"] == head.headers["accept-ranges"] == "bytes"

    def test_a_part_of_it(self, client: httpx.Client, index: dict[str, Any]) -> None:
        content = report()
        path = f"{DOCUMENTS}/{upload(client, index['id'], content).json()['id']}/content"
        size, etag = len(content), f'"{hashlib.sha256(content).hexdigest()}"'

        def get(range: str, **more: str) -> tuple[int, bytes, str | None]:
            answer = client.get(path, headers={"Range": range, **more})
            assert answer.headers["content-length"] == str(len(answer.content))
            assert answer.headers.get("etag") == (etag if answer.status_code < 400 else None)
            return answer.status_code, answer.content, answer.headers.get("content-range")

        whole = (200, content, None)
        assert get("bytes=0-99") == (206, content[:100], f"bytes 0-99/{size}")
        assert get("bytes=100-100") == (206, content[100:101], f"bytes 100-100/{size}")
        assert get("Bytes=500-") == (206, content[500:], f"bytes 500-{size - 1}/{size}")
        assert get("bytes=-20") == (206, content[-20:], f"bytes {size - 20}-{size - 1}/{size}")
        assert get(f"bytes=10-{size * 9}") == (206, content[10:], f"bytes 10-{size - 1}/{size}")
        assert get(f"bytes=-{size * 9}") == (206, content, f"bytes 0-{size - 1}/{size}")
        assert get("bytes=0-0", **{"If-Range": etag}) == (206, content[:1], f"bytes 0-0/{size}")
        for other in ('"another"', f"W/{etag}", "Thu, 26 Nov 2026 08:00:00 GMT"):
            assert get("bytes=0-0", **{"If-Range": other}) == whole
        for range in ("bytes=0-1,5-9", "lines=1-2", "bytes=9-1", "bytes=x-y", "bytes", "bytes=" + "9" * 900):
            assert get(range) == whole
        known = client.get(path, headers={"Range": "bytes=0-1", "If-None-Match": etag})
        assert known.status_code == 304
        assert client.head(path, headers={"Range": "bytes=0-1"}).headers["content-length"] == str(size)
        for range in (f"bytes={size}-", f"bytes={size}-{size * 2}"):
            behind = client.get(path, headers={"Range": range})
            assert behind.status_code == 416
            assert behind.headers["content-range"] == f"bytes */{size}"
            assert behind.json()["error"] == "range-not-satisfiable"
            assert pointers(behind) == ["Range"]

    def test_a_web_page_runs_nothing_here(self, client: httpx.Client, index: dict[str, Any]) -> None:
        page = documents.web_page("<script>document.cookie</script><p>Lamps.</p>")
        added = upload(client, index["id"], page, "lamps.html").json()
        answer = client.get(f"{DOCUMENTS}/{added['id']}/content")
        assert answer.content == page
        assert answer.headers["content-type"] == "text/html"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"

    def test_a_name_cannot_break_the_header(self, client: httpx.Client, index: dict[str, Any]) -> None:
        added = add(client, index["id"], name='a"; x=y; ü\u2028\r\nSet-Cookie: z', text="Lamps.").json()
        answer = client.get(f"{DOCUMENTS}/{added['id']}/content")
        assert answer.headers["content-disposition"] == (
            "inline; filename*=UTF-8''a%22%3B%20x%3Dy%3B%20%C3%BC%E2%80%A8%0D%0ASet-Cookie%3A%20z"
        )
        assert "set-cookie" not in answer.headers


class TestWhoMaySee:
    def paths(self, id: str) -> list[tuple[str, str]]:
        item = f"{DOCUMENTS}/{id}"
        return [("GET", item), ("GET", f"{item}/content")]

    def test_another_tenant_sees_nothing(
        self, client: httpx.Client, other: httpx.Client, index: dict[str, Any]
    ) -> None:
        added = upload(client, index["id"]).json()
        item = f"{DOCUMENTS}/{added['id']}"
        writes = [("PATCH", item, {"name": "x"}), ("DELETE", item, None), ("POST", f"{item}/retry", None)]
        for method, path, body in [*((m, p, None) for m, p in self.paths(added["id"])), *writes]:
            answer = other.request(method, path, json=body)
            assert answer.status_code == 404
            assert answer.json()["detail"] == "There is no such resource."
        assert added["id"] not in other.get(DOCUMENTS).text
        assert client.get(item).status_code == 200

    @pytest.mark.parametrize("way", ["indices", "categories"])
    def test_a_member_sees_what_its_personas_are_given(
        self,
        server: Server,
        client: httpx.Client,
        client_with: Callable[..., httpx.Client],
        index: dict[str, Any],
        way: str,
    ) -> None:
        label = make(client, "categories")["id"]
        given = upload(client, index["id"], category_ids=label).json()
        kept = upload(client, make(client, "indices")["id"]).json()
        member = client_with(role="member")
        for _, path in self.paths(given["id"]):
            assert member.get(path).status_code == 404
        places = {"indices": [index["id"]]} if way == "indices" else {"categories": [label]}
        assign(server, knowledge.persona(client, server, **places)["id"])
        for _, path in self.paths(given["id"]):
            assert member.get(path).status_code == 200
        for _, path in self.paths(kept["id"]):
            assert member.get(path).status_code == 404
        listed = [entry["id"] for entry in member.get(DOCUMENTS, params={"page_size": 100}).json()["results"]]
        assert given["id"] in listed
        assert kept["id"] not in listed
        assert member.delete(f"{DOCUMENTS}/{given['id']}").status_code == 403
        assert upload(member, index["id"]).status_code == 403


def test_without_chroma_uploads_and_searches_wait(
    tmp_path_factory: pytest.TempPathFactory, connect: Any
) -> None:
    with ExitStack() as services:
        chroma = services.enter_context(backends._chroma())
        given = {"BOOGA_CHROMA_URL": chroma["BOOGA_CHROMA_URL"]}
        with running(tmp_path_factory.mktemp("chroma"), "sqlite", given) as server:
            client = connect(server.api_key, server)
            index = make(client, "indices")
            found = ready(client, index["id"])
            services.close()
            question = {"query": "lamp inventories", "score_threshold": 0}
            for answer in (
                upload(client, index["id"]),
                client.post(f"{BASE}/search", json=question),
                client.post(f"{BASE}/search", json={**question, "mode": "vector"}),
                client.delete(f"{DOCUMENTS}/{found['id']}"),
            ):
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
            by_words = client.post(f"{BASE}/search", json={**question, "mode": "keyword"}).json()
            assert by_words["mode"] == "keyword"
            assert by_words["results"][0]["document_id"] == found["id"]
            assert client.get(f"{DOCUMENTS}/{found['id']}").status_code == 200


def test_a_text_of_five_million_characters(client: httpx.Client, index: dict[str, Any]) -> None:
    line = io.StringIO()
    while line.tell() < 5_000_000:
        line.write("The lamps of the harbour were lit at dusk. ")
    text = line.getvalue()
    assert add(client, index["id"], name="Long", text=text + "x").status_code == 400
    assert add(client, index["id"], name="Long", text=text[:5_000_000]).status_code == 201
    client.delete(f"{BASE}/indices/{index['id']}")


def test_a_document_deleted_while_it_is_read_ends_its_job_and_leaves_nothing(
    client: httpx.Client, server: Server, index: dict[str, Any]
) -> None:
    content = documents.bomb_pdf(300) + index["id"].encode()
    added = upload(client, index["id"], content).json()
    item = f"{DOCUMENTS}/{added['id']}"
    deadline = time.monotonic() + 60
    while client.get(item).json()["status"] == "pending" and time.monotonic() < deadline:
        time.sleep(0.05)  # until a worker takes it
    assert client.get(item).json()["status"] == "parsing"
    assert client.delete(item).json() == {"vectors_removed": 0, "chunks_removed": 0}
    assert client.get(item).status_code == 404
    sha256 = added["content_sha256"]
    original = server.data_dir / "files" / server.tenant["tenant_id"] / sha256[:2] / sha256
    while (_jobs_of(server, added["id"]) or original.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)  # the child is ended, and what is left is removed in the background
    assert _jobs_of(server, added["id"]) == []
    assert not original.exists()
    with server.database() as db:
        assert db.scalar(select(func.count()).where(Chunk.document_id == added["id"])) == 0


def _jobs_of(server: Server, document_id: str) -> list[str]:
    with server.database() as db:
        return list(db.scalars(select(Job.kind).where(Job.subject_id == document_id)))

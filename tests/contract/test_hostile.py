"""Hostile bodies against every operation that takes one: the right refusal, the same process afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends import Backend
from tests.conftest import MakesClient
from tests.contract import conformance
from tests.contract.hostile import FILE, FORM_BODIES, JSON, JSON_BODIES, Hostile, exchange, head, status_of
from tests.contract.specimens import Operation, Specimens, operations
from tests.servers import Server, running

# What is refused before any statement does not depend on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

TAKES_JSON = [o for o in operations() if o.body is not None and o.body[0] == JSON]
TAKES_FORMS = [
    o for o in operations() if "multipart/form-data" in o.spec.get("requestBody", {}).get("content", {})
]
PLAIN = [o for o in TAKES_JSON if "{" not in o.path and not o.is_public]
TAKES_BODIES = [o for o in operations() if "requestBody" in o.spec]
LARGE = 200 * 1024 * 1024
PIECE = b"x" * (1024 * 1024)
FLAT = 48 * 1024 * 1024
"""Bytes that a worker may grow by meanwhile: far less than the body, more than an allocator's moods."""


@pytest.fixture(autouse=True)
def _same_process(server: Server) -> Iterator[None]:
    before = server.workers
    yield
    assert server.workers == before


@pytest.fixture(scope="module")
def quiet(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that does nothing else meanwhile, so that its memory tells of the body alone."""
    with running(tmp_path_factory.mktemp("quiet"), backend.name, backend.fresh()) as made:
        yield made


def _answers(ours: Specimens, operation: Operation, table: tuple[Hostile, ...]) -> dict[str, Any]:
    """Cases that were answered otherwise than they should: {name: what came}."""
    call = ours.call(operation)
    valid = json.dumps(call.pop("json", {})).encode()
    known = [(name.encode(), value.encode()) for name, value in call.pop("headers", {}).items()]
    call = {name: call[name] for name in ("method", "url", "params")}
    most = operation.spec.get("x-max-body-bytes", 1_048_576)
    wrong = {}
    for case in table:
        body = case.of(valid)
        if not body and not operation.spec["requestBody"].get("required"):
            continue
        if (case.status == 413 and len(body) <= most) or (case.sound and operation.is_lenient):
            continue
        headers = [(b"Content-Type", case.kind.encode("latin-1"))] if case.kind is not None else []
        response = ours.client_for(operation).request(**call, content=body, headers=headers + known)
        if response.status_code != case.status:
            wrong[case.name] = (response.status_code, response.text[:300])
    return wrong


@pytest.mark.parametrize("operation", TAKES_JSON, ids=lambda o: o.id)
def test_json(operation: Operation, ours: Specimens) -> None:
    assert _answers(ours, operation, JSON_BODIES) == {}


@pytest.mark.parametrize("operation", TAKES_FORMS, ids=lambda o: o.id)
def test_forms(operation: Operation, ours: Specimens) -> None:
    assert _answers(ours, operation, FORM_BODIES) == {}


def test_there_are_forty() -> None:
    assert len(JSON_BODIES) >= 40


class TestFraming:
    """How a body is delimited (RFC 9112, 6), beneath all operations alike."""

    PATH = "/api/v1/chat/personas"

    @pytest.fixture
    def valid(self, server: Server) -> bytes:
        return json.dumps({"name": "Chunked", "stack_id": server.tenant["stack_id"]}).encode()

    def test_chunks_are_taken(self, server: Server, valid: bytes) -> None:
        pieces = [b"%x\r\n%b\r\n" % (1, valid[n : n + 1]) for n in range(len(valid))]
        start = head(server, self.PATH, f"Content-Type: {JSON}", "Transfer-Encoding: chunked")
        assert status_of(exchange(server, start, *pieces, b"0\r\n\r\n")) == 201

    def test_chunks_with_extensions_and_trailers_are_taken(self, server: Server, valid: bytes) -> None:
        start = head(server, self.PATH, f"Content-Type: {JSON}", "Transfer-Encoding: chunked")
        body = b"%x;note=1\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(valid), valid)
        assert status_of(exchange(server, start, body)) == 201

    def test_waits_for_permission(self, server: Server, valid: bytes) -> None:
        start = head(
            server,
            self.PATH,
            f"Content-Type: {JSON}",
            f"Content-Length: {len(valid)}",
            "Expect: 100-continue",
        )
        answer = exchange(server, start, valid)
        assert status_of(answer) == 100
        assert status_of(answer.partition(b"\r\n\r\n")[2]) == 201

    @pytest.mark.parametrize("size", [b"zz", b"-1", b"0x10", b"", b"f" * 40])
    def test_a_chunk_of_no_size_is_refused(self, server: Server, size: bytes) -> None:
        start = head(server, self.PATH, f"Content-Type: {JSON}", "Transfer-Encoding: chunked")
        assert status_of(exchange(server, start, size + b"\r\n{}\r\n0\r\n\r\n")) == 400

    @pytest.mark.parametrize(
        "lines",
        [
            ["Content-Length: -1"],
            ["Content-Length: many"],
            ["Content-Length: 2", "Content-Length: 3"],
            ["Content-Length: 2", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: gzip, chunked, gzip"],
            ["Content-Length: " + "9" * 40],
        ],
        ids=["negative", "no-number", "two", "and-chunked", "chunked-inside", "beyond-64-bits"],
    )
    def test_a_length_that_contradicts_itself_is_refused(self, server: Server, lines: list[str]) -> None:
        start = head(server, self.PATH, f"Content-Type: {JSON}", *lines)
        assert status_of(exchange(server, start, b"{}")) in (400, 413)

    @pytest.mark.parametrize("told", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
    def test_a_body_that_stops_is_nothing_made(self, server: Server, valid: bytes, told: str) -> None:
        start = head(server, self.PATH, f"Content-Type: {JSON}", told)
        begun = valid if told.startswith("Content") else b"%x\r\n%b\r\n" % (len(valid), valid)
        assert status_of(exchange(server, start, begun, ends=True)) in (0, 400)

    def test_a_length_that_is_too_small_is_not_read_further(self, server: Server, valid: bytes) -> None:
        start = head(server, self.PATH, f"Content-Type: {JSON}", f"Content-Length: {len(valid) - 5}")
        assert status_of(exchange(server, start, valid)) == 400

    @pytest.mark.parametrize("size", [20_000, 200_000])
    def test_a_huge_header_harms_nobody(self, server: Server, size: int) -> None:
        start = head(server, self.PATH, "X-Long: " + "x" * size, method="GET")
        assert status_of(exchange(server, start)) in (200, 400, 431)

    def test_a_huge_url_is_refused(self, server: Server) -> None:
        start = head(server, self.PATH + "?search=" + "x" * 60_000, method="GET")
        assert status_of(exchange(server, start)) in (400, 414)

    @pytest.mark.parametrize(
        "target", ["/api/v1/%ff", "/api/v1/%00", "/api/v1/chat/personas?search=%ed%a0%80"]
    )
    def test_a_url_that_is_not_text_is_refused(self, server: Server, target: str) -> None:
        assert status_of(exchange(server, head(server, target, method="GET"))) == 400

    @pytest.mark.parametrize("name", ["X-Request-ID", "If-None-Match", "Accept", "Idempotency-Key", "Cookie"])
    @pytest.mark.parametrize(
        "value",
        ["\xff\xfe", "x" * 5000, '"', ",;=,", "\x7f"],
        ids=["not-ascii", "long", "quote", "marks", "delete"],
    )
    def test_odd_headers_are_no_fault_of_ours(self, server: Server, name: str, value: str) -> None:
        start = head(server, self.PATH, f"{name}: {value}", method="GET")
        assert 200 <= status_of(exchange(server, start)) < 500


def _memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the kernel does not tell {name}")


class TestSize:
    @pytest.mark.parametrize("operation", [*PLAIN[:1], *TAKES_FORMS[:1]], ids=lambda o: o.id)
    @pytest.mark.parametrize("framing", ["length", "chunked"])
    def test_200_megabytes_are_refused_in_little_memory(
        self, operation: Operation, framing: str, quiet: Server, connect: MakesClient
    ) -> None:
        client = connect(quiet.api_key, quiet)
        assert client.get(TestFraming.PATH).is_success  # what is loaded at the first request is loaded
        (worker,) = quiet.workers
        Path(f"/proc/{worker}/clear_refs").write_text("5")  # the peak counts from here (proc(5))
        before = _memory(worker, "VmRSS")
        kind = JSON if operation in TAKES_JSON else "multipart/form-data; boundary=edge"
        headers = {"Content-Type": kind}
        if framing == "length":
            headers["Content-Length"] = str(LARGE)
        response = client.request(
            operation.method, operation.path, content=_pieces(kind), headers=headers, timeout=60
        )
        assert response.status_code == 413
        assert quiet.workers == [worker]
        assert _memory(worker, "VmHWM") - before < FLAT

    @pytest.mark.parametrize("operation", TAKES_BODIES, ids=lambda o: o.id)
    def test_the_length_alone_is_enough(self, operation: Operation, server: Server, ours: Specimens) -> None:
        call = ours.call(operation)
        known = [f"{name}: {value}" for name, value in call.get("headers", {}).items()]
        kind = next(iter(operation.spec["requestBody"]["content"]))
        start = head(
            server,
            call["url"],
            f"Content-Type: {kind}",
            f"Content-Length: {LARGE}",
            f"X-Forwarded-For: {conformance.an_address()}",
            *known,
            method=operation.method.upper(),
            key=ours.client_for(operation).headers.get("X-API-Key", ""),
        )
        answer = exchange(server, start)
        assert status_of(answer) == 413
        told = json.loads(answer.rpartition(b"\r\n\r\n")[2])
        assert operation.is_lenient or told["meta"]["max_bytes"] < LARGE

    def test_who_is_nobody_is_told_so_first(self, server: Server, connect: MakesClient) -> None:
        response = connect().post(
            TestFraming.PATH,
            content=_pieces(JSON),
            headers={"Content-Type": JSON, "Content-Length": str(LARGE)},
        )
        assert response.status_code == 401


def _pieces(kind: str) -> Iterator[bytes]:
    """200 MB that begin like what they claim to be."""
    start = b'{"name":"' if kind == JSON else b"--edge\r\n" + FILE + b"\r\n\r\n"
    yield start
    left = LARGE - len(start)
    while left:
        yield PIECE[:left]
        left -= len(PIECE[:left])

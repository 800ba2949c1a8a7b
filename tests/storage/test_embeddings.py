"""The offline encoder against its own forward pass in numpy, and the hosted one against a real server."""

import json
import math
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from storage.embeddings import EmbeddingFailure, OfflineEmbedder, OpenAIEmbedder, Unavailable, load
from storage.embeddings import offline as offline_module
from storage.embeddings.graph import read_safetensors
from storage.embeddings.offline import TOKENIZER_FILE, WEIGHTS_FILE, packaged_folder

Array = NDArray[Any]

TEXTS = ["Net sales rose by 8.1 percent.", "What were the company's total liabilities at year end?", "cash"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def exact(cache: Path) -> OfflineEmbedder:
    return OfflineEmbedder(cache, precision="float32")


@pytest.fixture(scope="module")
def quick(cache: Path) -> OfflineEmbedder:
    return OfflineEmbedder(cache)


def _forward(texts: Sequence[str]) -> Array:
    """BERT written out plainly, as the paper has it (Devlin et al. 2018), to hold the graph against."""
    weights = read_safetensors(packaged_folder() / WEIGHTS_FILE)
    tokenizer = Tokenizer.from_file(str(packaged_folder() / TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)

    def dense(x: Array, name: str) -> Any:
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(x: Array, name: str) -> Any:
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return (x - x.mean(-1, keepdims=True)) / spread * weights[name + ".weight"] + weights[name + ".bias"]

    def heads(x: Array) -> Array:
        return x.reshape(len(x), 12, 32).transpose(1, 0, 2)

    rows = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        x = weights["embeddings.word_embeddings.weight"][ids].astype(np.float64)
        x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
        x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for number in range(6):
            layer = f"encoder.layer.{number}."
            query, key, value = (
                heads(dense(x, layer + f"attention.self.{n}")) for n in ("query", "key", "value")
            )
            scores = query @ key.transpose(0, 2, 1) / math.sqrt(32)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (scores / scores.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(ids), 384)
            x = norm(dense(mixed, layer + "attention.output.dense") + x, layer + "attention.output.LayerNorm")
            wide = dense(x, layer + "intermediate.dense")
            wide = wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))) / 2
            x = norm(dense(wide, layer + "output.dense") + x, layer + "output.LayerNorm")
        mean = x.mean(0)
        rows.append(mean / np.linalg.norm(mean))
    return np.array(rows)


class TestOffline:
    def test_the_graph_computes_what_the_weights_mean(self, exact: OfflineEmbedder) -> None:
        vectors = exact.embed(TEXTS)

        assert vectors.dtype == np.float32
        assert vectors.shape == (3, exact.dimensions)
        assert np.abs(vectors - _forward(TEXTS)).max() < 1e-4

    def test_int8_stays_near(self, exact: OfflineEmbedder, quick: OfflineEmbedder) -> None:
        near = (exact.embed(TEXTS) * quick.embed(TEXTS)).sum(axis=1)

        assert near.min() > 0.98

    def test_meaning_decides(self, quick: OfflineEmbedder) -> None:
        question, right, wrong = quick.embed(
            [
                "How much money did the company earn?",
                "Net income for the fiscal year was $5.8 billion.",
                "The directors are elected at the annual meeting.",
            ]
        )

        assert question @ right > question @ wrong + 0.1

    @pytest.mark.parametrize("texts", [[], [""], ["\x00"], ["\ud800"], ["word " * 5000], ["\U0001f600"]])
    def test_any_text_has_a_vector_of_length_one(self, quick: OfflineEmbedder, texts: list[str]) -> None:
        vectors = quick.embed(texts)

        assert vectors.shape == (len(texts), 384)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_a_vector_depends_on_its_text_alone(self, cache: Path, quick: OfflineEmbedder) -> None:
        many = [f"{TEXTS[n % 3]} {'more ' * n}" for n in range(20)]

        together = OfflineEmbedder(cache, threads=2).embed(many)

        assert np.array_equal(together, np.concatenate([quick.embed([text]) for text in many]))

    def test_what_stands_beyond_256_tokens_has_no_part(self, quick: OfflineEmbedder) -> None:
        first, second = quick.embed(["sales " * 300, "sales " * 300 + "an ending that differs"])

        assert np.array_equal(first, second)

    def test_names_tell_precisions_apart(self, exact: OfflineEmbedder, quick: OfflineEmbedder) -> None:
        assert exact.name != quick.name
        assert quick.name.startswith("all-MiniLM-L6-v2@53aa51172d14")

    def test_the_graph_is_written_once_and_whole(self, tmp_path: Path) -> None:
        threads = [threading.Thread(target=OfflineEmbedder(tmp_path).prepare) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        files = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}

        OfflineEmbedder(tmp_path).embed(["text"])

        assert sorted(name.rpartition(".")[2] for name in files) == ["data", "onnx"]
        assert files == {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}

    def test_a_damaged_cache_is_written_anew(self, tmp_path: Path, quick: OfflineEmbedder) -> None:
        OfflineEmbedder(tmp_path).prepare()
        for file in tmp_path.iterdir():
            file.write_bytes(file.read_bytes()[:100])

        assert np.array_equal(OfflineEmbedder(tmp_path).embed(["text"]), quick.embed(["text"]))

    def test_other_weights_than_those_checked_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(offline_module, "WEIGHTS_SHA256", "0" * 64)

        with pytest.raises(EmbeddingFailure, match="not the file that was checked"):
            OfflineEmbedder(tmp_path).embed(["text"])

    def test_another_tokenizer_than_the_one_checked_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(offline_module, "TOKENIZER_SHA256", "0" * 64)

        assert isinstance(load("offline", cache=tmp_path), Unavailable)

    def test_a_folder_of_the_operator_is_named_by_its_own_hash(self, cache: Path, tmp_path: Path) -> None:
        for name in (WEIGHTS_FILE, TOKENIZER_FILE):
            (tmp_path / name).symlink_to(packaged_folder() / name)

        embedder = load("offline", cache=cache, folder=tmp_path)

        assert isinstance(embedder, OfflineEmbedder)
        assert embedder.name == OfflineEmbedder(cache).name

    def test_wrong_weights_in_that_folder_are_a_failure(self, tmp_path: Path) -> None:
        (tmp_path / WEIGHTS_FILE).write_bytes(b"\x02\0\0\0\0\0\0\0{}")
        (tmp_path / TOKENIZER_FILE).symlink_to(packaged_folder() / TOKENIZER_FILE)

        with pytest.raises(EmbeddingFailure, match="cannot be loaded"):
            OfflineEmbedder(tmp_path / "cache", folder=tmp_path).embed(["text"])


class _Server(ThreadingHTTPServer):
    """Answers `/v1/embeddings` with vectors that tell which text they stand for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.failures: list[int] = []
        self.vector = [3.0, 4.0]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body | {"key": self.headers["Authorization"]})
        status = self.server.failures.pop(0) if self.server.failures else 200
        rows = [
            {"object": "embedding", "index": n, "embedding": [*self.server.vector, float(len(text))]}
            for n, text in enumerate(body["input"])
        ]
        answer = {"object": "list", "model": body["model"], "data": rows[::-1], "usage": {}}
        content = json.dumps(answer if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status != 200:
            self.send_header("Retry-After-Ms", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: the tests look at what was asked."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def hosted(server: _Server) -> Iterator[OpenAIEmbedder]:
    embedder = OpenAIEmbedder(
        model="own-model", api_key="sk-1", base_url=f"http://127.0.0.1:{server.server_port}/v1"
    )
    yield embedder
    embedder.close()


class TestHosted:
    def test_batches_keep_their_order(self, server: _Server, hosted: OpenAIEmbedder) -> None:
        vectors = hosted.embed(["x" * length for length in range(1, 301)])

        assert [len(body["input"]) for body in server.asked] == [128, 128, 44]
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
        assert np.allclose(vectors[:, 2] / vectors[:, 0] * 3, np.arange(1, 301), rtol=1e-4)

    def test_the_key_and_the_model_are_sent(self, server: _Server, hosted: OpenAIEmbedder) -> None:
        hosted.embed(["text"])

        assert (server.asked[0]["key"], server.asked[0]["model"]) == ("Bearer sk-1", "own-model")
        assert hosted.name == "openai:own-model"

    def test_an_unknown_model_is_asked_for_its_dimensions_once(
        self, server: _Server, hosted: OpenAIEmbedder
    ) -> None:
        assert (hosted.dimensions, hosted.dimensions) == (3, 3)
        assert len(server.asked) == 1

    def test_a_passing_fault_is_tried_again(self, server: _Server, hosted: OpenAIEmbedder) -> None:
        server.failures = [429, 500]

        assert hosted.embed(["text"]).shape == (1, 3)

    def test_a_lasting_fault_is_a_failure(self, server: _Server, hosted: OpenAIEmbedder) -> None:
        server.failures = [401]

        with pytest.raises(EmbeddingFailure, match="AuthenticationError"):
            hosted.embed(["text"])

    @pytest.mark.parametrize("vector", [[math.nan, 1.0], [math.inf, 1.0]])
    def test_senseless_vectors_are_a_failure(
        self, server: _Server, hosted: OpenAIEmbedder, vector: list[float]
    ) -> None:
        server.vector = vector

        with pytest.raises(EmbeddingFailure):
            hosted.embed(["text"])

    def test_a_change_of_length_is_a_failure(self, server: _Server, hosted: OpenAIEmbedder) -> None:
        hosted.embed(["text"])
        server.vector = [1.0]

        with pytest.raises(EmbeddingFailure, match="differ in length"):
            hosted.embed(["text"])


class TestLoad:
    def test_each_kind(self, cache: Path) -> None:
        assert isinstance(load("offline", cache=cache), OfflineEmbedder)
        assert isinstance(load("openai", cache=cache, api_key="sk-1"), OpenAIEmbedder)

    def test_none_is_told_with_its_reason(self, cache: Path, tmp_path: Path) -> None:
        off = load("none", cache=cache)
        missing = load("offline", cache=cache, folder=tmp_path)

        assert isinstance(off, Unavailable)
        assert isinstance(missing, Unavailable)
        assert "keywords alone" in off.reason
        assert WEIGHTS_FILE in missing.reason

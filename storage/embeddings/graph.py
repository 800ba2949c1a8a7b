"""The ONNX graph of a small BERT sentence encoder, made from its published weights.

The weights come as safetensors, without a graph. This writes one out of onnxruntime's fused operators, so
that nothing is left for it to optimise at load time: token ids of one text in, a vector of length 1 out
(mean over the tokens, then L2: Reimers and Gurevych 2019). There is no padding and no mask, because texts
run one by one: on a processor that is as quick as batches, and a text's vector then depends on nothing else.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Precision = Literal["int8", "float32"]
Tensors = Mapping[str, np.ndarray[Any, Any]]

INPUT, OUTPUT = "input_ids", "embedding"
GRAPH_VERSION = 1
"""Part of the cached file's name: raise it with every change that alters a vector."""

_FUSED = "com.microsoft"
_OPSET, _IR_VERSION = 17, 9
_EPSILON = 1e-12
_HEAD_WIDTH = 32  # of MiniLM; 384 wide, 12 heads
_EXTERNAL_BYTES = 1024
_TYPES = {"F32": "<f4", "I64": "<i8"}


def read_safetensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a safetensors file, mapped and not copied (https://github.com/huggingface/safetensors).

    Raises ValueError for a file that is not one.
    """
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    if len(raw) < 8:
        raise ValueError(f"{path} is not a safetensors file")
    start = 8 + int(raw[:8].view("<u8")[0])
    header = json.loads(raw[8:start].tobytes())
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _TYPES:
            continue
        first, last = entry["data_offsets"]
        flat = raw[start + first : start + last].view(_TYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def write(weights: Path, target: Path, precision: Precision) -> None:
    """Build the graph and put it at `target`, all of it or nothing; its data lies beside it as `.data`.

    Raises ValueError or KeyError for weights of another model.
    """
    import onnx

    target.parent.mkdir(parents=True, exist_ok=True)
    data = target.name + ".data"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        draft = Path(folder) / target.name
        onnx.save_model(
            _model(read_safetensors(weights), precision),
            str(draft),
            save_as_external_data=True,
            location=data,
            size_threshold=_EXTERNAL_BYTES,
        )
        # The data first: whoever finds the graph finds its data too.
        os.replace(draft.with_name(data), target.with_name(data))
        os.replace(draft, target)


def _model(tensors: Tensors, precision: Precision) -> Any:
    from onnx import TensorProto, helper

    graph = _Graph(precision)
    vector = _encoder(graph, tensors)
    width = tensors["embeddings.LayerNorm.weight"].shape[0]
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "sentence-encoder",
            [helper.make_tensor_value_info(INPUT, TensorProto.INT32, [1, "tokens"])],
            [helper.make_tensor_value_info(vector, TensorProto.FLOAT, [1, width])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)],
        ir_version=_IR_VERSION,
        producer_name="booga",
    )


@dataclass(slots=True)
class _Graph:
    """Nodes and constants as they are added; each method returns the name of what it yields."""

    precision: Precision
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, value: np.ndarray[Any, Any]) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, inputs: list[str], *, outputs: list[str] | None = None, **more: Any) -> str:
        from onnx import helper

        names = outputs or [f"n{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, names, **more))
        return names[0]

    def product(self, value: str, weight: np.ndarray[Any, Any], *, exact: bool = False) -> str:
        """`value` times a dense layer's weight; in int8 each column has its own scale, and no offset."""
        matrix = weight.T
        if exact or self.precision == "float32":
            return self.node("MatMul", [value, self.constant(matrix)])
        scale = (np.abs(matrix).max(axis=0) / 127).astype(np.float32)
        rounded = np.rint(matrix / np.where(scale == 0, 1, scale)).astype(np.int8)
        inputs = [value, self.constant(rounded), self.constant(scale)]
        return self.node("DynamicQuantizeMatMul", inputs, domain=_FUSED)


def _encoder(graph: _Graph, tensors: Tensors) -> str:
    def constant(name: str) -> str:
        return graph.constant(tensors[name])

    def add_and_norm(value: str, skipped: str, layer: str) -> str:
        inputs = [
            value,
            skipped,
            constant(layer + "LayerNorm.weight"),
            constant(layer + "LayerNorm.bias"),
            constant(layer + "dense.bias"),
        ]
        return graph.node("SkipLayerNormalization", inputs, domain=_FUSED, epsilon=_EPSILON)

    words = tensors["embeddings.word_embeddings.weight"]
    # Every token is of the first of the two types, so that its row can be added to the positions.
    positions = (
        tensors["embeddings.position_embeddings.weight"]
        + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    inputs = [INPUT, "", graph.constant(words), graph.constant(positions), ""]
    inputs += [constant("embeddings.LayerNorm.weight"), constant("embeddings.LayerNorm.bias")]
    state = graph.node(
        "EmbedLayerNormalization", inputs, outputs=["embedded", "length"], domain=_FUSED, epsilon=_EPSILON
    )
    width = words.shape[1]
    thirds = graph.constant(np.full(3, width, dtype=np.int64))
    for number in range(_layers(tensors)):
        layer = f"encoder.layer.{number}."
        own = [layer + f"attention.self.{part}." for part in ("query", "key", "value")]
        joined = graph.product(state, np.concatenate([tensors[part + "weight"] for part in own]))
        bias = graph.constant(np.concatenate([tensors[part + "bias"] for part in own]))
        split = [f"{joined}_{part}" for part in "qkv"]
        graph.node("Split", [joined, thirds], outputs=split, axis=2)
        heads = width // _HEAD_WIDTH
        attended = graph.node("MultiHeadAttention", [*split, bias], domain=_FUSED, num_heads=heads)
        mixed = graph.product(attended, tensors[layer + "attention.output.dense.weight"])
        state = add_and_norm(mixed, state, layer + "attention.output.")
        wide = graph.product(state, tensors[layer + "intermediate.dense.weight"])
        active = graph.node("BiasGelu", [wide, constant(layer + "intermediate.dense.bias")], domain=_FUSED)
        # What comes out of the activation has outliers, and rounding it is most of what int8 would cost.
        narrow = graph.product(active, tensors[layer + "output.dense.weight"], exact=True)
        state = add_and_norm(narrow, state, layer + "output.")
    mean = graph.node("ReduceMean", [state], axes=[1], keepdims=0)
    return graph.node("LpNormalization", [mean], outputs=[OUTPUT], axis=1, p=2)


def _layers(tensors: Tensors) -> int:
    found = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    if not found:
        raise ValueError("these are not the weights of a BERT encoder")
    return len(found)

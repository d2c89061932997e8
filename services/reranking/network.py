"""
DCN-v2 in torch, and the same network, or the mean of several, as an ONNX graph.

The graph is written node by node with onnx.helper: no tracer, no exporter, nothing to keep in step but the forty
lines here, and a test that compares both networks. Source: Wang et al., WWW 2021, parallel structure.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from protos.arrays import Float32

DENSE, CODES, SCORES = "dense", "codes", "scores"
# Opset 17 and IR 8 are read by every onnxruntime since 1.12.
_OPSET, _IR = 17, 8
# Standardised inputs are cut here: a value six deviations out says "large", not how large.
_CLIP = 6.0


class CrossNetwork(nn.Module):
    """
    dense (n, F), codes (n, C) → scores (n,).

    x₀ = [standardised dense, embeddings]; cross layers x ← x₀ ⊙ (U V x + b) + x of low rank, a deep tower beside
    them, one linear layer over both.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        mean: Float32,
        scale: Float32,
        cardinalities: Sequence[int],
        embedding: int,
        crosses: int,
        rank: int,
        hidden: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(scale))
        tables = [nn.Embedding(size, embedding) for size in cardinalities]
        for table in tables:
            nn.init.normal_(table.weight, std=0.05)
        self.embeddings = nn.ModuleList(tables)
        width = len(mean) + embedding * len(cardinalities)
        self.narrow = nn.ModuleList(nn.Linear(width, rank) for _ in range(crosses))
        widen = [nn.Linear(rank, width) for _ in range(crosses)]
        for layer in widen:
            nn.init.normal_(layer.weight, std=0.01)
        self.widen = nn.ModuleList(widen)
        sizes = [width, *hidden]
        self.deep = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(width + sizes[-1], 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, dense: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        standard = ((dense - self.mean) * self.scale).clamp(-_CLIP, _CLIP)
        x0 = torch.cat([standard, *(table(codes[:, i]) for i, table in enumerate(self.embeddings))], dim=1)
        x0 = self.dropout(x0)
        crossed, deep = x0, x0
        for narrow, widen in zip(self.narrow, self.widen, strict=True):
            crossed = x0 * widen(narrow(crossed)) + crossed
        for layer in self.deep:
            deep = self.dropout(torch.relu(layer(deep)))
        scores: torch.Tensor = self.last(torch.cat([crossed, deep], dim=1))[:, 0]
        return scores


def write_onnx(networks: Sequence[CrossNetwork], path: Path) -> None:
    """
    Write the mean of *networks* as they score, without dropout; inputs `dense` and `codes` of any number of rows.

    Two that differ in nothing but their seed order differently; their mean is steadier than either.
    """
    graph = _Graph()
    parts = [graph.add(network, f"{number}.") for number, network in enumerate(networks)]
    graph.node("Mean", parts, SCORES)
    made = helper.make_graph(
        graph.nodes,
        "reranking",
        [
            helper.make_tensor_value_info(DENSE, TensorProto.FLOAT, ["n", len(networks[0].mean)]),
            helper.make_tensor_value_info(CODES, TensorProto.INT64, ["n", len(networks[0].embeddings)]),
        ],
        [helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["n"])],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="tutti")
    model.ir_version = _IR
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and constants under construction; every name of a network begins with its *prefix*."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, network: CrossNetwork, prefix: str) -> str:
        """Name of the output (n,) of *network*."""

        def constant(name: str, value: ArrayLike) -> str:
            self.constants.append(numpy_helper.from_array(np.array(value, order="C"), prefix + name))
            return prefix + name

        def node(operator: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
            return self.node(operator, inputs, prefix + name, **attributes)

        def linear(layer: nn.Module, x: str, name: str) -> str:
            weight, bias = (layer.get_parameter(t).detach().numpy() for t in ("weight", "bias"))
            return node("Gemm", [x, constant(f"{name}.w", weight), constant(f"{name}.b", bias)], name, transB=1)

        centred = node("Sub", [DENSE, constant("mean", network.mean.numpy())], "centred")
        standard = node("Mul", [centred, constant("scale", network.scale.numpy())], "standard")
        bounds = [constant("low", np.float32(-_CLIP)), constant("high", np.float32(_CLIP))]
        parts = [node("Clip", [standard, *bounds], "clipped")]
        for i, table in enumerate(network.embeddings):
            code = node("Gather", [CODES, constant(f"column{i}", np.int64(i))], f"code{i}", axis=1)
            words = constant(f"words{i}", table.get_parameter("weight").detach().numpy())
            parts.append(node("Gather", [words, code], f"embedded{i}", axis=0))
        x0 = node("Concat", parts, "x0", axis=1)
        crossed, deep = x0, x0
        for i, (narrow, widen) in enumerate(zip(network.narrow, network.widen, strict=True)):
            mixed = linear(widen, linear(narrow, crossed, f"narrow{i}"), f"widen{i}")
            product = node("Mul", [x0, mixed], f"cross{i}.product")
            crossed = node("Add", [product, crossed], f"cross{i}.sum")
        for i, layer in enumerate(network.deep):
            deep = node("Relu", [linear(layer, deep, f"deep{i}")], f"deep{i}.relu")
        column = linear(network.last, node("Concat", [crossed, deep], "both", axis=1), "column")
        return node("Squeeze", [column, constant("axes", np.array([1], np.int64))], "scores")

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        """Add a node with one output, called like the node."""
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

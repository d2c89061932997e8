"""
DCN-v2 in torch, and the same network, or the mean of several, as an ONNX graph.

The graph is written node by node with onnx.helper: no tracer, no exporter, nothing to keep in step but the forty
lines here, and a test that compares both networks. Source: Wang et al., WWW 2021, parallel structure.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
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


Linear = tuple[Float32, Float32]
"""Weight (outputs, inputs) and bias (outputs,)."""


class _Graph:
    """Nodes and constants under construction; every name of a network begins with its *prefix*."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._standards: dict[bytes, str] = {}

    def add(self, network: CrossNetwork, prefix: str) -> str:
        """
        Name of the output (n,) of *network*.

        The last cross layer x₀ ⊙ (V h + b) + x is never made. Of it a candidate needs one number, its product with the
        weights l of the last linear layer, and that is h · (l ⊙ V)ᵀx₀ + (l ⊙ b) · x₀ + l · x. So all that is linear in
        x₀ is one product, all that is linear in another cross layer's output another (measured: docs/adr/0042).
        """
        x0 = self._inputs(network, prefix)
        narrow, widen, deep = (
            [_numbers(one) for one in layers] for layers in (network.narrow, network.widen, network.deep)
        )
        weights, bias = _numbers(network.last)
        tower = len(deep[-1][1]) if deep else weights.shape[1] // 2
        say, tower_say = weights[0, :-tower], weights[0, -tower:]
        alone = np.zeros_like(say) if deep else tower_say.copy()
        alone += say * widen[-1][1] if widen else say
        if len(widen) == 1:
            alone += say
        first: dict[str, Linear] = {"alone": (alone[None], bias)}
        if widen:
            swept = np.ascontiguousarray((widen[-1][0] * say[:, None]).T)
            first |= {"narrow": narrow[0], "swept": (swept, np.zeros(len(swept), np.float32))}
        if deep:
            first["deep"] = deep[0]
        made = self._linear(x0, first, f"{prefix}first")
        parts, say_of_parts, crossed, h = [made["alone"]], [np.ones(1, np.float32)], x0, made.get("narrow", "")
        for i, ((v, b), following) in enumerate(zip(widen[:-1], narrow[1:], strict=True)):
            # x₀ ⊙ (V h + b) + x₀ is x₀ ⊙ (V h + b + 1).
            mixed = self._linear(h, {"": (v, b + 1 if i == 0 else b)}, f"{prefix}widen{i}")[""]
            product = self.node("Mul", [x0, mixed], f"{prefix}cross{i}")
            crossed = product if i == 0 else self.node("Add", [product, crossed], f"{prefix}cross{i}.sum")
            wanted: dict[str, Linear] = {"narrow": following}
            if i == len(widen) - 2:
                wanted["alone"] = say[None], np.zeros(1, np.float32)
            found = self._linear(crossed, wanted, f"{prefix}narrow{i + 1}")
            h = found["narrow"]
            parts += [found["alone"]] if "alone" in found else []
        say_of_parts *= len(parts)
        if widen:
            parts.append(self.node("Mul", [h, made["swept"]], f"{prefix}last_cross"))
            say_of_parts.append(np.ones(len(swept), np.float32))
        if deep:
            x = self.node("Relu", [made["deep"]], f"{prefix}deep0.relu")
            for i, layer in enumerate(deep[1:], 1):
                x = self.node("Relu", [self._linear(x, {"": layer}, f"{prefix}deep{i}")[""]], f"{prefix}deep{i}.relu")
            parts.append(x)
            say_of_parts.append(tower_say)
        both = self.node("Concat", parts, f"{prefix}both", axis=1)
        last = np.concatenate(say_of_parts)[None], np.zeros(1, np.float32)
        column = self._linear(both, {"": last}, f"{prefix}column")[""]
        return self.node(
            "Squeeze", [column, self._constant(f"{prefix}axes", np.array([1], np.int64))], f"{prefix}scores"
        )

    def _inputs(self, network: CrossNetwork, prefix: str) -> str:
        """x₀; networks that were taught by the same rows share its standardised part."""
        mean, scale = network.mean.numpy(), network.scale.numpy()
        standard = self._standards.get(mean.tobytes() + scale.tobytes())
        if standard is None:
            centred = self.node("Sub", [DENSE, self._constant(f"{prefix}mean", mean)], f"{prefix}centred")
            scaled = self.node("Mul", [centred, self._constant(f"{prefix}scale", scale)], f"{prefix}standard")
            bounds = [self._constant(f"{prefix}{n}", np.float32(x)) for n, x in (("low", -_CLIP), ("high", _CLIP))]
            standard = self.node("Clip", [scaled, *bounds], f"{prefix}clipped")
            self._standards[mean.tobytes() + scale.tobytes()] = standard
        parts = [standard]
        for i, table in enumerate(network.embeddings):
            column = self._constant(f"{prefix}column{i}", np.int64(i))
            code = self.node("Gather", [CODES, column], f"{prefix}code{i}", axis=1)
            words = self._constant(f"{prefix}words{i}", table.get_parameter("weight").detach().numpy())
            parts.append(self.node("Gather", [words, code], f"{prefix}embedded{i}", axis=0))
        return self.node("Concat", parts, f"{prefix}x0", axis=1)

    def _linear(self, x: str, wanted: Mapping[str, Linear], name: str) -> dict[str, str]:
        """Several linear functions of *x* as one product; the names of what they give."""
        weight = self._constant(f"{name}.w", np.concatenate([w for w, _ in wanted.values()]))
        bias = self._constant(f"{name}.b", np.concatenate([b for _, b in wanted.values()]))
        product = self.node("Gemm", [x, weight, bias], name, transB=1)
        if len(wanted) == 1:
            return dict.fromkeys(wanted, product)
        outputs = {one: f"{name}.{one}" for one in wanted}
        sizes = self._constant(f"{name}.sizes", np.array([len(b) for _, b in wanted.values()], np.int64))
        split = helper.make_node("Split", [product, sizes], list(outputs.values()), name=f"{name}.split", axis=1)
        self.nodes.append(split)
        return outputs

    def _constant(self, name: str, value: ArrayLike) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        """Add a node with one output, called like the node."""
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name


def _numbers(layer: nn.Module) -> Linear:
    weight, bias = (layer.get_parameter(name).detach().numpy() for name in ("weight", "bias"))
    return weight, bias

"""
The transformer in torch, and the same network as an ONNX graph.

Written node by node like the re-ranker's, for the same reason: no exporter, and a test that compares both. The graph
reads embedded items and gives the last state, so that the embeddings lie on disk once, in the index.

SASRec (Kang and McAuley, ICDM 2018) with what came after: normalised before each layer, and positions counted from
the state that asks (a learned bias by distance, Shaw et al., NAACL 2018, in T5's form) and not from the window's end.
So every prefix of a sequence is learnt from as serving will read it: with its newest item at distance 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from services.collaborative_filtering.sequence import (
    DISTANCES,
    EMBEDDED,
    GAPS,
    GAPS_S,
    KINDS,
    LONGEST,
    MASK,
    N_KINDS,
    STATES,
)

# LayerNormalization is an operator from opset 17 on; IR 8 is read by every onnxruntime since 1.12.
_OPSET, _IR = 17, 8
_EPSILON = 1e-5


class Block(nn.Module):
    """Attention and a narrow feed-forward layer, each added to what it read."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width, eps=_EPSILON)
        self.before_feed = nn.LayerNorm(width, eps=_EPSILON)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        # As wide as the state: SASRec's own, a third of the arithmetic of the usual four times.
        self.widen, self.narrow = nn.Linear(width, width), nn.Linear(width, width)
        self.by_distance = nn.Parameter(torch.zeros(heads, LONGEST))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        q, length, width = x.shape
        read = self.before_attention(x)
        query, key, value = (
            layer(read).view(q, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        logits = query @ key.transpose(2, 3) * (width // self.heads) ** -0.5
        shares = self.dropout(torch.softmax(logits + self.by_distance[:, distances] + mask, 3))
        mixed = (shares @ value).transpose(1, 2).reshape(q, length, width)
        x = x + self.dropout(self.out(mixed))
        fed = self.narrow(torch.relu(self.widen(self.before_feed(x))))
        result: torch.Tensor = x + self.dropout(fed)
        return result


class Transformer(nn.Module):
    """embedded (q, l, d), kinds and gaps (q, l), mask (q, 1, l, l), distances (l, l) → states (q, l, d)."""

    def __init__(self, width: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.kinds, self.gaps = nn.Embedding(N_KINDS, width), nn.Embedding(len(GAPS_S) + 1, width)
        for table in (self.kinds, self.gaps):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(blocks))
        self.last = nn.LayerNorm(width, eps=_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        embedded: torch.Tensor,
        kinds: torch.Tensor,
        gaps: torch.Tensor,
        mask: torch.Tensor,
        distances: torch.Tensor,
    ) -> torch.Tensor:
        width = embedded.shape[2]
        # Embeddings are scored by inner product and so kept short; √d brings them to the size of the states.
        x = self.dropout(embedded * width**0.5 + self.kinds(kinds) + self.gaps(gaps))
        for block in self.blocks:
            x = block(x, mask, distances)
        states: torch.Tensor = self.last(x)
        return states

    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return [block for block in self.blocks if isinstance(block, Block)]


def onnx_graph(network: Transformer) -> bytes:
    """The network as it guesses (without dropout), giving the last state (q, d) only; any q and l ≤ LONGEST."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    width = network.last.normalized_shape[0]

    def constant(name: str, value: ArrayLike) -> str:
        constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(operator: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def learnt(module: nn.Module, name: str) -> np.ndarray:
        return np.asarray(module.get_parameter(name).detach().numpy())

    def linear(layer: nn.Module, x: str, name: str) -> str:
        product = node("MatMul", [x, constant(f"{name}.w", learnt(layer, "weight").T)], f"{name}.product")
        return node("Add", [product, constant(f"{name}.b", learnt(layer, "bias"))], name)

    def normal(layer: nn.Module, x: str, name: str) -> str:
        scale, shift = constant(f"{name}.w", learnt(layer, "weight")), constant(f"{name}.b", learnt(layer, "bias"))
        return node("LayerNormalization", [x, scale, shift], name, axis=-1, epsilon=_EPSILON)

    x = node("Mul", [EMBEDDED, constant("stretch", np.float32(width**0.5))], "stretched")
    for table, codes in ((network.kinds, KINDS), (network.gaps, GAPS)):
        words = node(
            "Gather", [constant(f"{codes}.table", learnt(table, "weight")), codes], f"{codes}.embedded", axis=0
        )
        x = node("Add", [x, words], f"{codes}.added")
    for i, block in enumerate(network.layers()):
        each = width // block.heads
        split = constant(f"split{i}", np.array([0, 0, block.heads, each], np.int64))
        read = normal(block.before_attention, x, f"read{i}")
        parts = {}
        # Keys are laid out transposed, so that the product with the queries needs no further turn.
        for name, layer, turn in (
            ("query", block.query, [0, 2, 1, 3]),
            ("key", block.key, [0, 2, 3, 1]),
            ("value", block.value, [0, 2, 1, 3]),
        ):
            heads = node("Reshape", [linear(layer, read, f"{name}{i}"), split], f"{name}{i}.heads")
            parts[name] = node("Transpose", [heads], f"{name}{i}.turned", perm=turn)
        product = node("MatMul", [parts["query"], parts["key"]], f"product{i}")
        logits = node("Mul", [product, constant(f"scale{i}", np.float32(each**-0.5))], f"logits{i}")
        biases = constant(f"distance{i}.table", learnt(block, "by_distance"))
        bias = node("Gather", [biases, DISTANCES], f"distance{i}", axis=1)
        biased = node("Add", [node("Add", [logits, bias], f"biased{i}"), MASK], f"masked{i}")
        shares = node("Softmax", [biased], f"shares{i}", axis=3)
        mixed = node(
            "Transpose", [node("MatMul", [shares, parts["value"]], f"mix{i}")], f"mix{i}.turned", perm=[0, 2, 1, 3]
        )
        joined = node("Reshape", [mixed, constant(f"join{i}", np.array([0, 0, width], np.int64))], f"joined{i}")
        x = node("Add", [x, linear(block.out, joined, f"out{i}")], f"attended{i}")
        wide = node("Relu", [linear(block.widen, normal(block.before_feed, x, f"feed{i}"), f"widen{i}")], f"relu{i}")
        x = node("Add", [x, linear(block.narrow, wide, f"narrow{i}")], f"fed{i}")
    newest = node("Gather", [x, constant("newest", np.int64(-1))], "state", axis=1)
    normal(network.last, newest, STATES)
    graph = helper.make_graph(
        nodes,
        "sequence",
        [
            helper.make_tensor_value_info(EMBEDDED, TensorProto.FLOAT, ["q", "l", width]),
            helper.make_tensor_value_info(KINDS, TensorProto.INT64, ["q", "l"]),
            helper.make_tensor_value_info(GAPS, TensorProto.INT64, ["q", "l"]),
            helper.make_tensor_value_info(MASK, TensorProto.FLOAT, ["q", 1, "l", "l"]),
            helper.make_tensor_value_info(DISTANCES, TensorProto.INT64, ["l", "l"]),
        ],
        [helper.make_tensor_value_info(STATES, TensorProto.FLOAT, ["q", width])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="tutti")
    model.ir_version = _IR
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))

"""
LambdaMART: gradient-boosted trees on the same rows as the network, and the same trees as an ONNX graph.

Sources: Burges, MSR-TR-2010-82; LightGBM, Ke et al., NIPS 2017. The graph is one TreeEnsembleRegressor written from
LightGBM's own dump, so that serving needs no LightGBM; a test compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from protos.arrays import Float32
from services.reranking.network import DENSE, SCORES

# Opset 3 of ai.onnx.ml and IR 8 are read by every onnxruntime since 1.12.
_OPSET, _ML_OPSET, _IR = 17, 3, 8


@dataclass(frozen=True, slots=True)
class Parameters:
    """
    Small trees: borrowed from the reference LambdaMART of Online Retail, on whose validation window 400 trees, 31
    leaves and other ranking losses were no better. Half as many at twice the learning rate cost half the time.
    """

    trees: int = 150
    leaves: int = 15
    learning_rate: float = 0.1
    min_rows_a_leaf: int = 50
    column_share: float = 0.5
    row_share: float = 0.8
    l2: float = 1.0
    judged_places: int = 30


def learn(
    dense: Float32,
    gains: Float32,
    lengths: NDArray[np.int64],
    used: Parameters,
    seed: int,
    weights: Float32 | None = None,
) -> lightgbm.Booster:
    """
    Fit on lists that lie one after the other.

    Args:
        dense: (n, F) finite.
        gains: (n,) ≥ 0; lists are ordered by their ranks among all gains, as LambdaMART wants whole labels.
        lengths: (q,) rows of each list.
        weights: (q,) how much each list counts; None: all alike.
    """
    levels, labels = np.unique(gains, return_inverse=True)
    options: dict[str, Any] = {
        "objective": "lambdarank",
        # A gain counts as what it is worth, and not as 2^label - 1.
        "label_gain": levels.tolist(),
        "lambdarank_truncation_level": used.judged_places,
        "num_leaves": used.leaves,
        "learning_rate": used.learning_rate,
        "min_data_in_leaf": used.min_rows_a_leaf,
        "feature_fraction": used.column_share,
        "bagging_fraction": used.row_share,
        "bagging_freq": 1,
        "lambda_l2": used.l2,
        # Rows are finite. 63 bins a column in place of 255: LightGBM's own advice for speed, its price not measured.
        "use_missing": False,
        "max_bin": 63,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        # One: threads that wait for each other on a shared machine are slower than none.
        "num_threads": 1,
        "verbose": -1,
    }
    by_row = None if weights is None else np.repeat(weights, lengths)
    rows = lightgbm.Dataset(dense, labels, group=lengths, weight=by_row, free_raw_data=True)
    return lightgbm.train(options, rows, used.trees)


def write_onnx(booster: lightgbm.Booster, path: Path) -> None:
    """Write *booster* as a graph with input `dense` (n, F) and output `scores` (n,)."""
    nodes = _Nodes()
    for number, tree in enumerate(booster.dump_model()["tree_info"]):
        nodes.add(number, tree["tree_structure"])
    trees = helper.make_node(
        "TreeEnsembleRegressor", [DENSE], ["column"], name="trees", domain="ai.onnx.ml", n_targets=1, **nodes.fields
    )
    flat = helper.make_node("Squeeze", ["column", "axes"], [SCORES], name="flat")
    graph = helper.make_graph(
        [trees, flat],
        "lambdamart",
        [helper.make_tensor_value_info(DENSE, TensorProto.FLOAT, ["n", booster.num_feature()])],
        [helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="tutti")
    model.ir_version = _IR
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


class _Nodes:
    """The attributes of a TreeEnsembleRegressor, which lists every node of every tree column by column."""

    def __init__(self) -> None:
        nodes = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
        targets = ("treeids", "nodeids", "ids", "weights")
        self.fields: dict[str, list[Any]] = {
            **{f"nodes_{name}": [] for name in nodes},
            **{f"target_{name}": [] for name in targets},
        }

    def add(self, tree: int, structure: Mapping[str, Any]) -> None:
        """One tree of LightGBM's dump, nodes numbered in preorder."""
        self._add(tree, structure, 0)

    def _add(self, tree: int, node: Mapping[str, Any], number: int) -> int:
        """Add *node* and what is below it from *number* on; the next free number."""
        if "leaf_value" in node:
            self._node(tree, number, 0, "LEAF", 0.0, 0, 0)
            for name, value in zip(
                ("treeids", "nodeids", "ids", "weights"), (tree, number, 0, float(node["leaf_value"])), strict=True
            ):
                self.fields[f"target_{name}"].append(value)
            return number + 1
        if node["decision_type"] != "<=":
            raise ValueError(f"a split of kind {node['decision_type']!r}; expected '<=' on numbers alone")
        place = self._node(
            tree, number, node["split_feature"], "BRANCH_LEQ", _at_most(node["threshold"]), number + 1, 0
        )
        right = self._add(tree, node["left_child"], number + 1)
        self.fields["nodes_falsenodeids"][place] = right
        return self._add(tree, node["right_child"], right)

    def _node(self, tree: int, number: int, column: int, mode: str, value: float, yes: int, no: int) -> int:
        for name, entry in (
            ("treeids", tree),
            ("nodeids", number),
            ("featureids", column),
            ("modes", mode),
            ("values", value),
            ("truenodeids", yes),
            ("falsenodeids", no),
        ):
            self.fields[f"nodes_{name}"].append(entry)
        return len(self.fields["nodes_treeids"]) - 1


def _at_most(threshold: float) -> float:
    """The largest float32 that is not above *threshold*: for every float32 the comparison comes out the same."""
    rounded = np.float32(threshold)
    return float(rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf)))

"""
The network with weights of eight bits: what it costs in quality and saves in time, on lists that nobody learnt from.

The rule: it serves where it wins and costs next to nothing, and what was found is written into the manifest either way.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
from onnxruntime.quantization import QuantType, quantize_dynamic

from protos.arrays import Float32
from services.reranking import sessions
from services.reranking.lists import Lists

QUANTISE = ("auto", "int8", "never")
"""What the parameter may say: if it wins, always, never."""

MOST_LOST = 0.005
"""Of ndcg@10 that may be lost, as a share. Given (issue 5)."""

LEAST_WON = 0.2
"""Of the network's time that must be saved, as a share. Judged: below it two measurements differ by chance, and the
artefact should not depend on that."""

_ROUNDS = 15
"""Lists timed, one by one, either network in turn; the median is taken."""


def write(network: Path, out: Path) -> None:
    """Write the graph *network* with weights in int8, activations quantised as they come, to *out*."""
    root = logging.getLogger()
    level = root.level
    # It advises a pass of preprocessing that changes nothing in a graph without unknown shapes inside.
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(network, out, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    finally:
        root.setLevel(level)


def compared(network: Path, quantised: Path, rows: Lists) -> tuple[Float32, float]:
    """
    Scores (n,) of *rows* by the quantised network, list by list as it serves; and its time as a share of the other's.
    """
    whole, small = (sessions.opened(path.read_bytes()) for path in (network, quantised))
    scores = sessions.by_network(small, rows.dense, rows.codes, rows.offsets)
    longest = np.argsort(-rows.lengths, kind="stable")[:_ROUNDS]
    spent: list[list[float]] = [[], []]
    for start, end in zip(rows.offsets[longest].tolist(), rows.offsets[longest + 1].tolist(), strict=True):
        for session, seconds in ((whole, spent[0]), (small, spent[1])):
            begun = time.thread_time()
            sessions.by_network(session, rows.dense[start:end], rows.codes[start:end], None)
            seconds.append(time.thread_time() - begun)
    by_whole, by_small = (float(np.median(one)) for one in spent)
    return scores, by_small / max(by_whole, 1e-9)


def serves(quantise: str, ndcg: float, ndcg_int8: float, time_share: float) -> bool:
    """Whether the quantised network is the one that serves; *quantise* as in QUANTISE."""
    if quantise != "auto":
        return quantise == "int8"
    return ndcg_int8 >= (1 - MOST_LOST) * ndcg and time_share <= 1 - LEAST_WON

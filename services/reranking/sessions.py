"""
The learners as they are run: one onnxruntime session each, and how many rows it is given at once.

The rule: what a list scores depends on nobody else in the call. A quantised network reads its scale from all rows of a
run, so it is run list by list; the others are cut where their rows stay in the processor's cache.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from protos.arrays import Float32

# Rows of a run. Measured, two networks of 182 inputs, ms for 400 rows in a call of 12,800: all at once 1.20, 800 and
# 400 at a time 0.96 and 0.97 (docs/adr/0042); 800 rows are 0.6 MB, within a core's second cache.
_ROWS = 800


def opened(graph: bytes) -> onnxruntime.InferenceSession:
    """
    A session of one thread: calls come one at a time, and the machine's other cores belong to the other services.

    Everything else is onnxruntime's default; other settings made no difference that could be told from noise
    (docs/adr/0042).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def by_network(
    session: onnxruntime.InferenceSession, dense: Float32, codes: NDArray[np.int64], offsets: NDArray[np.int64] | None
) -> Float32:
    """
    Scores (n,) of the rows *dense* (n, F) and *codes* (n, C).

    Args:
        offsets: (q + 1,) of lists, each of which is run alone; None: rows do not depend on each other.
    """
    cuts = _cuts(len(dense)) if offsets is None else offsets.tolist()
    parts = [
        session.run(None, {"dense": dense[a:b], "codes": codes[a:b]})[0] for a, b in itertools.pairwise(cuts) if b > a
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])


def _cuts(n: int) -> list[int]:
    """Where runs begin and end: even parts of _ROWS at most."""
    parts = -(-n // _ROWS)
    return [n * i // max(parts, 1) for i in range(max(parts, 1) + 1)]

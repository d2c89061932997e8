"""Fusion over all queries at once gives the order that the orchestrator gives each of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fusion import fuse
from orchestrator.core.model import Retrieved
from protos.arrays import Rows
from services.chassis.model import Candidates
from services.training.tuning.fusion import merge

NAMES = ("a", "b")


@st.composite
def answers(draw):
    """Of two sources to the same few queries: lists of up to 25 distinct keys, falling scores, some of them equal."""
    queries = draw(st.integers(1, 3))
    said = []
    for _ in NAMES:
        lists, scores = [], []
        for _ in range(queries):
            keys = draw(st.lists(st.integers(0, 40), unique=True, max_size=25))
            steps = draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=len(keys), max_size=len(keys)))
            lists.append(keys)
            scores.append(10 - np.cumsum(steps, dtype=np.float32))
        said.append(Candidates(Rows.of(lists), np.concatenate(scores).astype(np.float32)))
    return said


def as_served(said, query, weights, method):
    retrieved = {}
    for name, one in zip(NAMES, said, strict=True):
        start, end = one.rows.offsets[query : query + 2]
        retrieved[name] = Retrieved(one.rows.row(query), one.scores[start:end], "")
    return fuse(retrieved, NAMES, dict(zip(NAMES, weights, strict=True)), method, 60)


@pytest.mark.parametrize("method", ["z_score", "reciprocal_rank"])
@given(said=answers(), weight=st.sampled_from([0.0, 0.25, 1.0, 1.5]))
def test_lists_are_those_of_the_orchestrator(method, said, weight):
    lists = merge(said, 60).lists([1.0, weight], method)

    for query, row in enumerate(lists):
        served = as_served(said, query, [1.0, weight], method)
        # Sums of the same numbers in another order may leave a tie either way: what is compared is the scores in turn.
        score = dict(zip(served.keys.tolist(), served.scores.tolist(), strict=True))
        shown = row[row >= 0].tolist()
        assert len(shown) == len(set(shown)) == min(20, len(served.keys))
        np.testing.assert_allclose([score[key] for key in shown], served.scores[: len(shown)], atol=1e-6)

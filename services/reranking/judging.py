"""
How much either learner has to say, chosen on shoppers that neither has seen; and the figures of what came out.

The rule: shares and calibration are chosen for each kind of list by itself where there are lists enough to choose by,
else on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32
from services.reranking.blend import SHARES, Blend, Blends, calibrated, expected_calibration_error, mixed
from services.reranking.lists import Lists
from services.reranking.model import KNOWN_SHARE
from services.training.metrics import ndcg_at

LEAST_JUDGED = 50
"""Lists of a kind that choose a share of their own. Judged: five shares are compared; with fewer, chance chooses."""


@dataclass(frozen=True, slots=True)
class Opinions:
    """
    What both learners say about n candidates: scores (n,) float32 each.

    is_new  (n,) whether nothing the shopper touched is left on the candidate's list
    """

    network: Float32
    trees: Float32
    is_new: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Lists, network: Float32, trees: Float32) -> Opinions:
        """About the candidates of *rows*."""
        return cls(network, trees, rows.dense[:, KNOWN_SHARE] <= 0)

    def only(self, chosen: NDArray[np.bool_]) -> Opinions:
        """About the *chosen* (n,) candidates."""
        return Opinions(self.network[chosen], self.trees[chosen], self.is_new[chosen])

    def mixed(self, share: float) -> tuple[float, float]:
        """Weights of network and trees at which the trees have this *share*."""
        return mixed(share, self.network, self.trees)


def equal_say(taught: Opinions) -> Blends:
    """The first of SHARES for everything, where nobody was kept back to judge by."""
    blend = Blend(*taught.mixed(SHARES[0]))
    return Blends(blend, blend)


def chosen(taught: Opinions, said: Opinions, rows: Lists, fused_column: int) -> tuple[Blends, dict[str, float]]:
    """
    The blends that order held-out lists best, calibrated; and the figures of them and of their parts.

    Args:
        taught: about what was learnt from; tells how far the learners' scores spread.
        said: about the candidates of *rows*, the held-out lists.
        fused_column: of `Lists.dense`, the fused order.
    """
    general = _best(taught, said, rows)
    shares, blends, errors, counts = {}, {}, [], []
    for is_new in (False, True):
        like = taught.only(taught.is_new == is_new)
        own, own_rows = said.only(said.is_new == is_new), rows.only(said.is_new[rows.offsets[:-1]] == is_new)
        enough = len(own_rows) >= LEAST_JUDGED and len(like.is_new) > 0
        shares[is_new] = _best(like, own, own_rows) if enough else general
        # A kind with too few lists is scaled and calibrated with the other one.
        like, own, own_rows = (like, own, own_rows) if enough else (taught, said, rows)
        blends[is_new], error = _calibrated(like.mixed(shares[is_new]), own, own_rows)
        errors.append(error)
        counts.append(len(own_rows))
    both = Blends(known=blends[False], new=blends[True])
    figures = {
        "judged_queries": float(len(rows)),
        "ndcg_at_10": ndcg(both.of(said.network, said.trees, rows.dense[:, KNOWN_SHARE]), rows),
        "ndcg_at_10_fused": ndcg(rows.dense[:, fused_column], rows),
        "ndcg_at_10_network": ndcg(said.network, rows),
        "ndcg_at_10_lambdamart": ndcg(said.trees, rows),
        "share_of_trees": shares[False],
        "share_of_trees_new": shares[True],
        "calibration_error": float(np.average(errors, weights=counts)),
    }
    return both, figures


def ndcg(scores: Float32, rows: Lists) -> float:
    """Mean ndcg@10 of the lists ordered by *scores* (n,), of what is wanted of their candidates; by their weights."""
    figures = []
    for start, end in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
        wanted = set(np.flatnonzero(rows.gains[start:end] > 0).tolist())
        figures.append(ndcg_at(np.argsort(-scores[start:end], kind="stable").tolist(), wanted, 10))
    return float(np.average(figures, weights=rows.weights))


def _best(taught: Opinions, said: Opinions, rows: Lists) -> float:
    """The share of the trees that orders *rows* best, the first of equals in the order of SHARES."""
    scales = {share: taught.mixed(share) for share in SHARES}
    figures = {share: ndcg(said.network * a + said.trees * b, rows) for share, (a, b) in scales.items()}
    return max(figures, key=lambda share: round(figures[share], 3))


def _calibrated(scale: tuple[float, float], said: Opinions, rows: Lists) -> tuple[Blend, float]:
    """The blend of these weights as a probability, and its calibration error."""
    scores = (said.network * scale[0] + said.trees * scale[1]).astype(np.float64)
    wanted = rows.gains > 0
    # Calibrated on every other list and judged on the rest; what serves is calibrated on all.
    is_odd = np.repeat(np.arange(len(rows)) % 2 == 1, rows.lengths)
    halves = (is_odd, ~is_odd) if len(rows) > 1 else (~is_odd, ~is_odd)
    half = Blend(*scale, *calibrated(scores[halves[0]], wanted[halves[0]]))
    likely = half.of(said.network, said.trees)
    error = expected_calibration_error(likely[halves[1]], wanted[halves[1]])
    return Blend(*scale, *calibrated(scores, wanted)), error

"""
Chooses between blends: the weights that make what was wanted most likely, and whether one more method is worth having.

The rule: a blend is judged on shoppers whose queries it did not learn from, and the two that are compared answer the
same queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.tutti.v1 import common_pb2
from services.chassis.affinity import IMPERSONAL, standardised
from services.chassis.model import GenerateQueries
from services.collaborative_filtering.model import METHODS, WEIGHTS_OF
from services.collaborative_filtering.serve import CollaborativeFiltering
from services.training.lessons import Asked
from services.training.metrics import ndcg_at

# First guesses: seven numbers need few examples. The weights of baskets still differ from seed to seed.
LEAST_LISTS, _MOST_LISTS, _EACH, _STEPS = 30, 600, 100, 150

LEAST_GAIN = 0.01
"""
Share of ndcg@10 by which a method must improve the blend, besides being above noise: with many queries even a
thousandth is, and the transformer costs a fit for every lesson and a run for every query. A choice, not a measurement.
"""

# Share of resamples that may lie at or below 0. A wrong "yes" is paid for on every day until the next training, so
# chance gets one try in forty, shared by the kinds of pages there are to win on.
_NOISE, _RESAMPLES = 0.025 / (1 + len(WEIGHTS_OF)), 4_000


@dataclass(frozen=True, slots=True)
class Shown:
    """
    What a blend has to order for one query.

    closeness  (METHODS, n) float32, standardised; gains (n,) float32, 0 for what was not wanted
    wanted     how many items were, among the n or not
    """

    closeness: Float32
    gains: Float32
    wanted: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Mean ndcg@10 of two blends on held-out shoppers, the bootstrap's bounds of the difference, and what follows."""

    without: float
    with_it: float
    low: float
    high: float
    queries: int

    @property
    def is_taken(self) -> bool:
        return self.low > 0 and self.with_it - self.without >= LEAST_GAIN * self.without

    @property
    def why(self) -> str:
        """One sentence for whoever reads the manifest."""
        if self.is_taken:
            return "taken: better than the blend without it by more than noise"
        if self.low <= 0:
            return "left out: not better than the blend without it by more than noise"
        return f"left out: better than the blend without it by less than {LEAST_GAIN:.0%}"

    def figures(self) -> dict[str, float]:
        """For the manifest."""
        return {
            "ndcg_at_10_without": round(self.without, 5),
            "ndcg_at_10_with": round(self.with_it, 5),
            "difference_low": round(self.low, 5),
            "difference_high": round(self.high, 5),
            "queries": self.queries,
        }


def picked(asked: Asked, seed: int) -> NDArray[np.int64]:
    """Queries to choose by, of every kind of page."""
    rng = np.random.default_rng(seed)
    kinds = pages(asked.shoppers.placements).values()
    return np.sort(np.concatenate([rng.permutation(rows)[:_MOST_LISTS] for rows in kinds]))


def pages(placements: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """Name of the weights in `Parameters` → which of these (q,) placements they are for."""
    own = {name: np.flatnonzero(placements == placement) for placement, name in WEIGHTS_OF.items()}
    return {"weights": np.flatnonzero(~np.isin(placements, tuple(WEIGHTS_OF))), **own}


def shown(model: CollaborativeFiltering, asked: Asked, queries: NDArray[np.int64]) -> list[Shown]:
    """What *model*'s methods propose for these *queries*, one after the other."""
    answered = GenerateQueries(
        np.full(len(queries), _EACH, np.int32),
        asked.shoppers.take(queries),
        Rows.of([asked.exclude.row(i) for i in queries]),
        Rows.empty(len(queries)),
    )
    lists = []
    for i, (keys, closeness) in zip(queries.tolist(), model.closeness(answered), strict=True):
        start, end = asked.wanted.offsets[i : i + 2]
        wanted = asked.wanted.values[start:end]
        gains = np.zeros(len(keys), np.float32)
        at = np.searchsorted(keys, wanted)
        found = at < len(keys)
        found[found] = keys[at[found]] == wanted[found]
        gains[at[found]] = asked.gains[start:end][found]
        lists.append(Shown(standardised(closeness) if len(keys) else closeness, gains, len(wanted)))
    return lists


def methods_on(name: str) -> list[int]:
    """
    Methods of METHODS that may have a say where the weights of this *name* count.

    What everybody wants is no complement of anything: without trending, ndcg@10 in the basket is .298 in place of .293
    (Online Retail, validation window).
    """
    left_out = IMPERSONAL if name == WEIGHTS_OF[common_pb2.PLACEMENT_CART] else ()
    return [i for i, method in enumerate(METHODS) if method not in left_out]


def weights_of(lists: Sequence[Shown], methods: Sequence[int]) -> tuple[float, ...] | None:
    """A weight a method of METHODS, 0 for what is not among *methods*; None for too few lists to learn from."""
    usable = [one for one in lists if one.gains.any()]
    if len(usable) < LEAST_LISTS:
        return None
    full = np.zeros(len(METHODS))
    # A method that never says anything, such as categories where there are none, would keep the weight it began with.
    speaks = [m for m in methods if any(one.closeness[m].any() for one in usable)]
    if speaks:
        full[speaks] = blend_weights([(one.closeness[speaks], one.gains) for one in usable])
    return tuple(round(weight, 4) for weight in full.tolist())


def compare(
    without: Sequence[Shown],
    with_it: Sequence[Shown],
    method: int,
    users: NDArray[np.int64],
    seed: int,
    methods: Sequence[int] = tuple(range(len(METHODS))),
) -> Verdict | None:
    """
    The blend of all *methods* against the blend of all but *method*, on the same queries; of those with a truth.

    Args:
        users: (q,) whose query each is; a shopper's queries are learnt from together, judged together and drawn
            together by the bootstrap, since they resemble each other.

    Returns:
        None where there are too few lists to learn weights from half of them.
    """
    rng = np.random.default_rng(seed)
    asked = [i for i, one in enumerate(without) if one.wanted]
    if not asked:
        return None
    distinct, who = np.unique(users[asked], return_inverse=True)
    fold = (rng.permutation(len(distinct)) % 2)[who]
    others = [m for m in methods if m != method]
    before = _judged([without[i] for i in asked], others, fold)
    after = _judged([with_it[i] for i in asked], methods, fold)
    if before is None or after is None:
        return None
    sums, counts = np.bincount(who, after - before), np.bincount(who)
    drawn = rng.multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), _RESAMPLES)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), [_NOISE, 1 - _NOISE])
    return Verdict(float(before.mean()), float(after.mean()), float(low), float(high), len(asked))


def _judged(lists: Sequence[Shown], methods: Sequence[int], fold: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """ndcg@10 of every query (q,) by weights learnt from the other fold; None where that is too few lists."""
    figures = np.zeros(len(lists))
    for judged in (0, 1):
        weights = weights_of([lists[i] for i in np.flatnonzero(fold != judged).tolist()], methods)
        if weights is None:
            return None
        for i in np.flatnonzero(fold == judged).tolist():
            one = lists[i]
            order = np.argsort(-(np.asarray(weights, np.float32) @ one.closeness), kind="stable")
            places = set(np.flatnonzero(one.gains).tolist())
            # What was wanted and not proposed counts as missed: places nobody ranks.
            places |= set(range(len(one.gains), len(one.gains) + one.wanted - len(places)))
            figures[i] = ndcg_at(order.tolist(), places, 10)
    return figures


def blend_weights(lists: Sequence[tuple[Float32, Float32]]) -> list[float]:
    """
    Weights ≥ 0 of the methods, largest 1, that make what was wanted most likely: listwise softmax cross-entropy.

    Args:
        lists: for each query the standardised closeness (methods, n) and the gains (n,), not all 0.

    Source: ListNet's top-one loss, Cao et al., ICML 2007; convex in the weights.
    """
    longest = max(gain.shape[0] for _, gain in lists)
    methods = lists[0][0].shape[0]
    inputs = torch.zeros(len(lists), longest, methods)
    shares = torch.zeros(len(lists), longest)
    gaps = torch.full((len(lists), longest), -1e9)
    for i, (closeness, gain) in enumerate(lists):
        inputs[i, : len(gain)] = torch.from_numpy(np.ascontiguousarray(closeness.T))
        shares[i, : len(gain)] = torch.from_numpy(gain / gain.sum())
        gaps[i, : len(gain)] = 0
    weights = torch.full((methods,), 0.3, requires_grad=True)
    optimiser = torch.optim.Adam([weights], lr=0.05)
    for _ in range(_STEPS):
        optimiser.zero_grad()
        loss = -(shares * torch.log_softmax(inputs @ weights + gaps, 1)).sum(1).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
        optimiser.step()
        with torch.no_grad():
            weights.clamp_(min=0)
    found = weights.detach().numpy().astype(np.float64)
    return [float(weight) for weight in found / max(found.max(), 1e-9)]

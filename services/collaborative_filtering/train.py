"""
Fits what is blended, implicit ALS by alternating full solves in torch and the affinities, and chooses the weights.

Deterministic. Stored are the factors of every item with interactions, the affinities' tables, and of the latest
shoppers which items they wanted, without saying who they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from services.chassis.affinity import FILE, standardised
from services.chassis.model import Fitted, GenerateQueries
from services.chassis.retrieval import VectorIndex, write_index
from services.chassis.signals import DAY_S, FOCUS_PLACEMENTS, STRENGTH, strengths
from services.collaborative_filtering.model import Parameters
from services.collaborative_filtering.serve import CollaborativeFiltering
from services.training import affinity, lessons
from services.training.dataset import Dataset
from services.training.lessons import Asked

# Padded floats gathered at once: rows × longest row × dimensions. Derived: 8 M float32 are 32 MB, which stays
# in the last-level cache of few machines but in the memory of all.
_BATCH_FLOATS = 8_000_000

# For choosing weights. Seven numbers need few examples: from 300 lists on they change in the second digit only.
_LEAST_LISTS, _MOST_LISTS, _EACH, _STEPS = 30, 600, 100, 150


def fit(dataset: Dataset, parameters: Mapping[str, Any], seed: int, out: Path) -> Fitted:
    """
    Fit on all events of *dataset* and write the artefact's files into *out*.

    Args:
        parameters: overrides of the defaults in `model.Parameters`.
    """
    used = Parameters(**parameters)
    users, keys, weights = interactions(dataset, used.half_life_days * DAY_S)
    factors, loss = als(users, keys, weights, (len(dataset.user_ids), dataset.n_items), used, seed)
    known = np.unique(keys)
    write_index(out, factors[known], known.astype(np.int32))
    affinity.learn(dataset).without("text").save(out / FILE)
    return Fitted(
        asdict(used), {"interactions": float(len(keys)), "items_with_factors": float(len(known)), "fit_error": loss}
    )


def choose(past: Dataset, seed: int) -> Mapping[str, Any]:
    """
    Weights for this shop: everything is fitted before the last window of *past*, and what was wanted in it decides.

    Returns:
        parameters for `fit`; none where the past is too short to tell.
    """
    windows = lessons.windows(past)
    if not windows:
        return {}
    before = past.before(windows[-1].start_us)
    if not len(before) or not STRENGTH[before.types].any():
        return {}
    asked = lessons.ask(past, windows[-1], seed)
    used = Parameters()
    users, keys, weights = interactions(before, used.half_life_days * DAY_S)
    factors, _ = als(users, keys, weights, (len(before.user_ids), before.n_items), used, seed)
    known = np.unique(keys)
    index = VectorIndex(factors[known], known.astype(np.int32))
    model = CollaborativeFiltering("", index, affinity.learn(before).without("text"), used)
    shown, gains = _shown(model, asked, np.random.default_rng(seed))
    in_focus = np.isin(asked.shoppers.placements, FOCUS_PLACEMENTS)
    chosen: dict[str, Any] = {}
    for name, rows in (("weights", np.flatnonzero(~in_focus)), ("focus_weights", np.flatnonzero(in_focus))):
        lists = [(shown[i], gains[i]) for i in rows.tolist() if i in shown]
        if len(lists) >= _LEAST_LISTS:
            chosen[name] = tuple(round(weight, 4) for weight in blend_weights(lists))
    return chosen


def _shown(
    model: CollaborativeFiltering, asked: Asked, rng: np.random.Generator
) -> tuple[dict[int, Float32], dict[int, Float32]]:
    """Query → standardised closeness (METHODS, n) of what is proposed, and its gains (n,); of those with any gain."""
    home = np.flatnonzero(~np.isin(asked.shoppers.placements, FOCUS_PLACEMENTS))
    focus = np.flatnonzero(np.isin(asked.shoppers.placements, FOCUS_PLACEMENTS))
    picked = np.sort(np.concatenate([rng.permutation(rows)[:_MOST_LISTS] for rows in (home, focus)]))
    shoppers = asked.shoppers.take(picked)
    exclude = Rows.of([asked.exclude.row(i) for i in picked])
    counts = np.full(len(picked), _EACH, np.int32)
    queries = GenerateQueries(counts, shoppers, exclude, Rows.empty(len(picked)))
    shown, gains = {}, {}
    for i, (keys, closeness) in zip(picked.tolist(), model.closeness(queries), strict=True):
        start, end = asked.wanted.offsets[i : i + 2]
        gain = np.zeros(len(keys), np.float32)
        at = np.searchsorted(keys, asked.wanted.values[start:end])
        found = at < len(keys)
        found[found] = keys[at[found]] == asked.wanted.values[start:end][found]
        gain[at[found]] = asked.gains[start:end][found]
        if gain.any():
            shown[i], gains[i] = standardised(closeness), gain
    return shown, gains


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


def interactions(dataset: Dataset, half_life_s: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    """One entry a (user, item) pair: users (m,), keys (m,), summed decayed strengths (m,) float32, sorted by user."""
    strength = strengths(dataset.types, dataset.ages_s, half_life_s)
    # An old event keeps a trace, or a shopper who left a year ago would have no factors to learn from.
    usable = strength > 0
    pairs, inverse = np.unique(
        dataset.users[usable].astype(np.int64) * dataset.n_items + dataset.keys[usable], return_inverse=True
    )
    weights = np.maximum(np.bincount(inverse, strength[usable], len(pairs)), 1e-4).astype(np.float32)
    return pairs // dataset.n_items, pairs % dataset.n_items, weights


def als(
    users: NDArray[np.int64],
    keys: NDArray[np.int64],
    weights: Float32,
    shape: tuple[int, int],
    parameters: Parameters,
    seed: int,
) -> tuple[Float32, float]:
    """
    Item factors (n_items, d) float32, and the mean weighted squared error on observed pairs after the last sweep.

    Raises:
        ValueError: no pair has any weight.
    """
    if not len(keys):
        raise ValueError("no event says that anybody wants anything (views, clicks, carts, purchases): nothing to fit")
    generator = torch.Generator().manual_seed(seed)
    dimensions = parameters.dimensions
    items = torch.randn(shape[1], dimensions, generator=generator) * (0.1 / dimensions**0.5)
    by_user = _Side(users, keys, weights, shape[0])
    by_item = _Side(keys, users, weights, shape[1])
    people = torch.zeros(shape[0], dimensions)
    for _ in range(parameters.sweeps):
        people = by_user.solve(items, parameters)
        items = by_item.solve(people, parameters)
    people = by_user.solve(items, parameters)
    predicted = (people[torch.from_numpy(users)] * items[torch.from_numpy(keys)]).sum(1)
    weight = torch.from_numpy(weights)
    error = float((weight * (1 - predicted) ** 2).sum() / weight.sum())
    factors: Float32 = items.numpy()
    return factors, error


class _Side:
    """The sparse matrix from one side: rows with their columns and weights, in batches of similar length."""

    def __init__(self, rows: NDArray[np.int64], columns: NDArray[np.int64], weights: Float32, n_rows: int) -> None:
        order = np.argsort(rows, kind="stable")
        self._columns = torch.from_numpy(columns[order])
        self._weights = torch.from_numpy(weights[order])
        self._lengths = np.bincount(rows, minlength=n_rows)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        self._n_rows = n_rows

    def solve(self, fixed: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Factors (n_rows, d) of every row given the *fixed* side; zero for an empty row."""
        d = fixed.shape[1]
        gram = parameters.unobserved_weight * (fixed.T @ fixed)
        eye = torch.eye(d)
        solved = torch.zeros(self._n_rows, d)
        by_length = np.argsort(self._lengths, kind="stable")
        by_length = by_length[self._lengths[by_length] > 0]
        start = 0
        while start < len(by_length):
            stop = self._batch_end(by_length, start, d)
            rows = by_length[start:stop]
            lengths = torch.from_numpy(self._lengths[rows])
            places = torch.arange(int(lengths.max()))[None, :]
            filled = places < lengths[:, None]
            at = (torch.from_numpy(self._starts[rows])[:, None] + places).clamp(max=len(self._columns) - 1)
            weight = torch.where(filled, self._weights[at], torch.zeros(()))
            own = fixed[self._columns[at]]
            weighted = own * weight[:, :, None]
            scaled = (lengths + parameters.unobserved_weight * len(fixed)) ** parameters.frequency_exponent
            ridge = parameters.regularisation * scaled
            left = gram + weighted.transpose(1, 2) @ own + ridge.float()[:, None, None] * eye
            solved[torch.from_numpy(rows)] = torch.cholesky_solve(
                weighted.sum(1)[:, :, None], torch.linalg.cholesky(left)
            )[:, :, 0]
            start = stop
        return solved

    def _batch_end(self, by_length: NDArray[np.int64], start: int, d: int) -> int:
        stop = start + 1
        while stop < len(by_length) and (stop + 1 - start) * self._lengths[by_length[stop]] * d <= _BATCH_FLOATS:
            stop += 1
            if stop - start >= 1024:
                break
        return stop

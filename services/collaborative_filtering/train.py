"""
Fits what is blended, implicit ALS by alternating full solves in torch and the affinities, and chooses the weights.

Deterministic. Stored are the factors of every item with interactions, the affinities' tables, and of the latest
shoppers which items they wanted, without saying who they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protos import needs
from protos.arrays import Float32, Rows
from protos.tutti.v1 import common_pb2
from services.chassis import index_choice
from services.chassis.affinity import FILE, Affinities, Table
from services.chassis.model import Fitted, Shoppers
from services.chassis.retrieval import VectorIndex, write_index
from services.chassis.signals import DAY_S, STRENGTH, strengths
from services.collaborative_filtering import choice, sequence, sequence_train
from services.collaborative_filtering.model import EQUAL, METHODS, WEIGHTS_OF, Parameters, Solver, user_vectors
from services.collaborative_filtering.sequence import SequenceModel
from services.collaborative_filtering.serve import MAPPED_FILE, CollaborativeFiltering
from services.training import affinity, cold, device, headway, lessons
from services.training.dataset import DAY_US, Dataset

# Padded floats gathered at once: rows × longest row × dimensions. Derived: 8 M float32 are 32 MB, which stays
# in the last-level cache of few machines but in the memory of all.
_BATCH_FLOATS = 8_000_000

# Pairs of shopper and item that factors are learnt from, those of the latest shoppers. Measured: 1.4 M pairs of 50,000
# shoppers and 100,000 items take 55 s of CPU a fit, and time grows with pairs and rows; so 80 s at most. People's
# factors are not kept, and items that only others touched are found by the other methods.
MOST_PAIRS = 2_000_000

# Who tells something about order: fewer steps are hardly a sequence. Below so many such shoppers no trial is held.
# Derived: on Online Retail 889 queries leave the difference in ndcg@10 uncertain by ±.004. Of 500 shoppers a third to
# a half come back in a window, which makes ±.006 at best, 2 % of what is judged: smaller shops would win by chance.
_TELLING_STEPS, LEAST_SHOPPERS = 5, 500

TRAINING = sequence_train.Training()


def fit(dataset: Dataset, parameters: Mapping[str, Any], seed: int, out: Path) -> Fitted:
    """
    Fit on all events of *dataset* and write the artefact's files into *out*.

    Args:
        parameters: overrides of the defaults in `model.Parameters`.
    """
    used = Parameters(**parameters)
    users, keys, weights = interactions(dataset, used.half_life_days * DAY_S)
    end = 0.5 if used.sequence else 0.9
    with headway.span(0.0, end):
        (factors, loss), affinities = _both(dataset, (users, keys, weights), used, seed)
    known = np.unique(keys)
    factors, mapped = with_cold(factors, dataset, affinities.tables["text"])
    findable = np.union1d(known, mapped)
    asking = likely_shoppers(dataset, seed)
    towers, speaks = user_vectors(Solver.of(factors, mapped, used), factors, asking, used)
    index = write_index(out, factors[findable], findable.astype(np.int32), towers=towers[speaks], seed=seed)
    np.save(out / MAPPED_FILE, mapped, allow_pickle=False)
    affinities.save(out / FILE)
    metrics = {
        "interactions": float(len(keys)),
        "items_with_factors": float(len(known)),
        "items_with_borrowed_factors": float(len(mapped)),
        "fit_error": loss,
        **index,
        **needs.figures("interactions", 1, len(keys)),
        **needs.figures("lists_to_weigh_its_methods_by", choice.LEAST_LISTS, is_met=tuple(used.weights) != EQUAL),
    }
    if used.sequence:
        with headway.span(end, 1.0):
            learnt = sequence_train.learn(dataset, factors, seed, TRAINING)
        metrics |= sequence.write(out, learnt.graph, learnt.vectors, learnt.keys, asking, seed)
        metrics |= {"sequence_guesses": float(learnt.guesses), "sequence_loss": learnt.loss}
    return Fitted(asdict(used), metrics)


def choose(
    past: Dataset, seed: int, base: Mapping[str, Any] | None = None, is_brief: bool = False
) -> Mapping[str, Any]:
    """
    Weights for this shop: everything is fitted before the last window of *past*, and what was wanted in it decides.

    Also whether the transformer is worth having: fitted on the same, and taken for the pages on which the blend with it
    orders held-out shoppers' lists better than the blend without by more than noise (`choice.Verdict`).

    Args:
        base: overrides of the defaults that are decided already; what is blended is fitted with them.
        is_brief: the weights alone; no trial of the transformer.

    Returns:
        parameters for `fit`: *base* and what was chosen, which is nothing where the past is too short to tell.
    """
    given = dict(base or {})
    windows = lessons.windows(past)
    if not windows:
        return given
    before = past.before(windows[-1].start_us)
    if not len(before) or not STRENGTH[before.types].any():
        return given
    # Sessions of the whole window: ten numbers are learnt from them, and of one week there are too few (Online Retail,
    # validation window, ndcg@10 in the basket: .270 with 90 lists, .293 with 577).
    window_days = (windows[-1].end_us - windows[-1].start_us) / DAY_US
    asked = lessons.ask(past, windows[-1], seed, session_days=window_days)
    used = Parameters(**given)
    users, keys, weights = interactions(before, used.half_life_days * DAY_S)
    with headway.span(0.0, 0.4):
        (factors, _), affinities = _both(before, (users, keys, weights), used, seed)
    factors, mapped = with_cold(factors, before, affinities.tables["text"])
    findable = np.union1d(np.unique(keys), mapped)
    index = VectorIndex(factors[findable], findable.astype(np.int32))
    queries = choice.picked(asked, seed)
    # Every method proposes while its weight is looked for.
    alike: dict[str, Any] = dict.fromkeys(("weights", *WEIGHTS_OF.values()), (1.0,) * len(METHODS))
    everywhere = replace(used, **alike)
    without = choice.shown(CollaborativeFiltering("", index, affinities, everywhere, mapped=mapped), asked, queries)
    pages = {name: rows.tolist() for name, rows in choice.pages(asked.shoppers.placements[queries]).items()}
    chosen: dict[str, Any] = given
    for name, rows in pages.items():
        methods = [m for m in choice.methods_on(name) if METHODS[m] != "sequence"]
        if (found := choice.weights_of([without[i] for i in rows], methods)) is not None:
            chosen[name] = found
    if is_brief:
        return chosen
    telling = int((np.bincount(sequence_train.steps_of(before)[0]) >= _TELLING_STEPS).sum())
    if telling < LEAST_SHOPPERS:
        why = f"no trial: {telling} shoppers with {_TELLING_STEPS} steps or more, {LEAST_SHOPPERS} needed"
        return {**chosen, "sequence_trial": {"why": why}}
    with headway.span(0.5, 0.9):
        learnt = sequence_train.learn(before, factors, seed, TRAINING)
    network = SequenceModel(learnt.graph, VectorIndex(learnt.vectors, learnt.keys))
    model = CollaborativeFiltering("", index, affinities, everywhere, network, mapped)
    with_it = choice.shown(model, asked, queries)
    trial: dict[str, Any] = {}
    for name, rows in pages.items():
        lists = [with_it[i] for i in rows]
        verdict = choice.compare(
            [without[i] for i in rows],
            lists,
            METHODS.index("sequence"),
            asked.users[queries[rows]],
            seed,
            choice.methods_on(name),
        )
        if verdict is None:
            trial[name] = {"why": "left out: too few lists to judge by"}
            continue
        trial[name] = {"why": verdict.why, **verdict.figures()}
        if verdict.is_taken:
            chosen |= {name: choice.weights_of(lists, choice.methods_on(name)), "sequence": True}
    return {**chosen, "sequence_trial": trial}


def _both(
    dataset: Dataset,
    pairs: tuple[NDArray[np.int64], NDArray[np.int64], Float32],
    used: Parameters,
    seed: int,
) -> tuple[tuple[Float32, float], Affinities]:
    """
    Factors from *pairs* (`interactions`), and affinities, side by side: each is of one thread and reads nothing of the
    other, so two cores halve the time and change no bit.
    """
    with ThreadPoolExecutor(1) as beside:
        learning = beside.submit(affinity.learn, dataset, affinity.Parameters(**used.affinity))
        with headway.span(0.0, 0.6):
            factors = als(*pairs, (len(dataset.user_ids), dataset.n_items), used, seed)
        return factors, learning.result()


def likely_shoppers(dataset: Dataset, seed: int) -> Shoppers:
    """Who may ask tomorrow: shoppers by how much they did, every other one of them on the page of some item."""
    rng = np.random.default_rng(seed)
    events = rng.integers(0, len(dataset), index_choice.QUERIES) if len(dataset) else np.empty(0, np.int64)
    on_page = np.arange(len(events)) % 2 == 1
    seen = rng.permutation(dataset.keys[events])
    return dataset.shoppers(
        dataset.users[events],
        np.full(len(events), dataset.until_us),
        Rows.of([seen[i : i + 1] if is_on_page else seen[:0] for i, is_on_page in enumerate(on_page)]),
        np.where(on_page, common_pb2.PLACEMENT_ITEM, common_pb2.PLACEMENT_HOME).astype(np.uint8),
    )


def with_cold(factors: Float32, dataset: Dataset, text: Table) -> tuple[Float32, NDArray[np.int32]]:
    """
    *factors* (n_items, d) with those of cold items borrowed from items alike in words (`training.cold`), and whose.

    text  `affinity.learn`'s table of words
    """
    is_cold = cold.is_cold(dataset)
    filled = cold.mapped(factors, cold.lookalikes(text, is_cold))
    return filled, np.flatnonzero(is_cold & (np.abs(filled).sum(1) > 0)).astype(np.int32)


def interactions(dataset: Dataset, half_life_s: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    """
    One entry a (user, item) pair: users (m,), keys (m,), summed decayed strengths (m,) float32, sorted by user.

    Of the shoppers that were here last, as many as have MOST_PAIRS together.
    """
    strength = strengths(dataset.types, dataset.ages_s, half_life_s)
    # An old event keeps a trace, or a shopper who left a year ago would have no factors to learn from.
    usable = strength > 0
    pairs, inverse = np.unique(
        dataset.users[usable].astype(np.int64) * dataset.n_items + dataset.keys[usable], return_inverse=True
    )
    weights = np.maximum(np.bincount(inverse, strength[usable], len(pairs)), 1e-4).astype(np.float32)
    users, keys = pairs // dataset.n_items, pairs % dataset.n_items
    kept = _latest(dataset, users)
    return users[kept], keys[kept], weights[kept]


def _latest(dataset: Dataset, users: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(m,) which pairs of *users* (m,) are learnt from."""
    if len(users) <= MOST_PAIRS:
        return np.ones(len(users), np.bool_)
    # Events are in time order: what is written last stays.
    last = np.full(len(dataset.user_ids), -1, np.int64)
    last[dataset.users] = np.arange(len(dataset))
    latest = np.argsort(-last, kind="stable")
    pairs_of = np.bincount(users, minlength=len(last))
    chosen = np.zeros(len(last), np.bool_)
    chosen[latest[np.cumsum(pairs_of[latest]) <= MOST_PAIRS]] = True
    return chosen[users]


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

    Without one pair, zeros: nobody wanted anything yet, and no item has factors.
    """
    if not len(keys):
        return np.zeros((shape[1], parameters.dimensions), np.float32), 0.0
    generator = torch.Generator().manual_seed(seed)
    dimensions = parameters.dimensions
    # Drawn on the processor, so that every device begins alike.
    items = (torch.randn(shape[1], dimensions, generator=generator) * (0.1 / dimensions**0.5)).to(device.current())
    by_user = _Side(users, keys, weights, shape[0])
    by_item = _Side(keys, users, weights, shape[1])
    people = torch.zeros(shape[0], dimensions, device=items.device)
    for sweep in range(parameters.sweeps):
        people = by_user.solve(items, parameters)
        items = by_item.solve(people, parameters)
        headway.told(sweep + 1, parameters.sweeps + 0.5)
    people = by_user.solve(items, parameters)
    people, items = people.cpu(), items.cpu()
    predicted = (people[torch.from_numpy(users)] * items[torch.from_numpy(keys)]).sum(1)
    weight = torch.from_numpy(weights)
    error = float((weight * (1 - predicted) ** 2).sum() / weight.sum())
    factors: Float32 = items.numpy()
    return factors, error


class _Side:
    """The sparse matrix from one side: rows with their columns and weights, in batches of similar length."""

    def __init__(self, rows: NDArray[np.int64], columns: NDArray[np.int64], weights: Float32, n_rows: int) -> None:
        order = np.argsort(rows, kind="stable")
        self._columns = torch.from_numpy(columns[order]).to(device.current())
        self._weights = torch.from_numpy(weights[order]).to(device.current())
        self._lengths = np.bincount(rows, minlength=n_rows)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        self._n_rows = n_rows

    def solve(self, fixed: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Factors (n_rows, d) of every row given the *fixed* side; zero for an empty row."""
        d = fixed.shape[1]
        gram = parameters.unobserved_weight * (fixed.T @ fixed)
        place = fixed.device
        eye = torch.eye(d, device=place)
        solved = torch.zeros(self._n_rows, d, device=place)
        by_length = np.argsort(self._lengths, kind="stable")
        by_length = by_length[self._lengths[by_length] > 0]
        start = 0
        while start < len(by_length):
            stop = self._batch_end(by_length, start, d)
            rows = by_length[start:stop]
            lengths = torch.from_numpy(self._lengths[rows]).to(place)
            places = torch.arange(int(lengths.max()), device=place)[None, :]
            filled = places < lengths[:, None]
            at = (torch.from_numpy(self._starts[rows]).to(place)[:, None] + places).clamp(max=len(self._columns) - 1)
            weight = torch.where(filled, self._weights[at], torch.zeros((), device=place))
            own = fixed[self._columns[at]]
            weighted = own * weight[:, :, None]
            scaled = (lengths + parameters.unobserved_weight * len(fixed)) ** parameters.frequency_exponent
            ridge = parameters.regularisation * scaled
            left = gram + weighted.transpose(1, 2) @ own + ridge.float()[:, None, None] * eye
            solved[torch.from_numpy(rows).to(place)] = torch.cholesky_solve(
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

"""
Trains the re-ranker: networks (listwise softmax) and trees (LambdaMART) on what retrieval proposed in earlier windows,
blended and calibrated on shoppers that neither has seen, exported as ONNX.

A shop too young for any lesson gets the same network with weights that repeat the fused order, so that serving never
has two cases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protos import needs
from protos.arrays import Float32, Rows
from protos.feast_layout import ReadPlan
from services.chassis.model import Fitted, RerankQueries
from services.reranking import lists, quantising, sessions, trees
from services.reranking.blend import Blends
from services.reranking.encoding import Encoder
from services.reranking.items import ItemTable, Layout
from services.reranking.judging import LEAST_JUDGED, Opinions, chosen, equal_say, ndcg
from services.reranking.lists import Lists
from services.reranking.model import KNOWN_SHARE, Features
from services.reranking.network import CrossNetwork, write_onnx
from services.reranking.serve import (
    AFFINITIES_FILE,
    BLEND_FILE,
    ITEMS_FILE,
    LAYOUT_FILE,
    NETWORK_FILE,
    PLAN_FILE,
    QUANTISED_FILE,
    TREES_FILE,
)
from services.training import affinity, device, headway
from services.training.dataset import Dataset
from services.training.lessons import Lesson

LEAST_LISTS = 60
"""
Below this the fused order stands. Judged: half a list a column of numbers; a shop of ten events whose re-ranker had
learnt from all it had put what its shoppers bought again last (re-buy ndcg@10 .000, fused .235).
"""


_SCORED_AT_ONCE = 32_768
"""Rows a network scores at once. Derived: it holds a dozen of a row's 230 columns' width, 0.4 GB; of all rows 20 GB."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """
    What decides a fit, besides lessons and seed. The network's are usual sizes, not searched.

    networks    whose mean is the network's say, where it has one
    negatives   candidates that were not wanted kept a query, drawn by chance
    judged_share  share of shoppers not learnt from: they choose the blend, calibrate it, and are what figures are of
    quantise    the network in weights of eight bits: "auto" where it wins on judged lists, "int8" always, "never"
    affinity    overrides of `services/training/affinity.Parameters`: the generator's own, or closeness were two things
    """

    embedding: int = 8
    crosses: int = 2
    rank: int = 24
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.1
    epochs: int = 5
    batch_queries: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    networks: int = 2
    negatives: int = 80
    judged_share: float = 0.1
    quantise: str = "auto"
    trees: trees.Parameters = field(default_factory=trees.Parameters)
    affinity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Serving:
    """What the artefact holds for the day it serves: the plan, and all items' features as of now."""

    plan: ReadPlan
    dataset: Dataset
    item_numeric: Float32
    item_categorical: NDArray[np.object_]


def fit(
    lessons: Sequence[Lesson],
    serving: Serving,
    sources: Sequence[str],
    parameters: Mapping[str, Any],
    seed: int,
    out: Path,
) -> Fitted:
    """
    Learn from *lessons* and write the artefact's files into *out*.

    Args:
        sources: names of the generators, which become the model's columns in this order.
        parameters: overrides of the defaults in `Parameters`.
    """
    used = Parameters(**{**parameters, "trees": trees.Parameters(**parameters.get("trees", {}))})
    if used.quantise not in quantising.QUANTISE:
        raise ValueError(f"quantise is {used.quantise!r}; expected one of {', '.join(quantising.QUANTISE)}")
    closeness = affinity.Parameters(**used.affinity)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    layout = _layout(lessons, serving, sources)
    with headway.span(0.0, 0.4):
        rows, held_out = _shelved(lessons, layout, closeness, used, rng)
    features = Features(layout, affinity.learn(serving.dataset, closeness))
    blends, metrics = Blends(), {"queries": 0.0}
    said = needs.figures("lists_to_learn_from", LEAST_LISTS, 0 if rows is None else len(rows))
    if rows is not None and len(rows) < LEAST_LISTS:
        rows = None
    if rows is None:
        networks = [_untaught(features, serving, used)]
    else:
        networks, blends, metrics = _committee(rows, held_out, layout, used, seed, rng, out / TREES_FILE)
    _write(out, networks, features, serving, blends)
    if rows is not None and (blends.known.network or blends.new.network):
        metrics |= _quantised(out, held_out, blends, used.quantise)
    plan = {"service": serving.plan.service, "digest": serving.plan.digest, "plan": PLAN_FILE}
    return Fitted({**asdict(used), "hidden": list(used.hidden), "sources": list(sources)}, {**metrics, **said}, plan)


def _shelved(
    lessons: Sequence[Lesson],
    layout: Layout,
    closeness: affinity.Parameters,
    used: Parameters,
    rng: np.random.Generator,
) -> tuple[Lists | None, Lists | None]:
    """The lists that are learnt from, and those that are judged."""
    is_judged = [lists.judged(lesson.users, used.judged_share) for lesson in lessons]
    taught = [
        lists.Taken(lesson, np.flatnonzero(~held), used.negatives)
        for lesson, held in zip(lessons, is_judged, strict=True)
    ]
    # What was shown is judged by what was clicked of it, which is another scale: where there is nothing else.
    are_alike = all(lesson.seen is not None for lesson in lessons)
    judged = [
        lists.Taken(lesson, np.flatnonzero(held & (are_alike or lesson.seen is None)), None)
        for lesson, held in zip(lessons, is_judged, strict=True)
    ]
    shelves = [lists.Shelf(sum(one.most_rows() for one in taken)) for taken in (taught, judged)]
    for number, lesson in enumerate(lessons):
        with headway.span(number / len(lessons), (number + 1) / len(lessons)):
            features = Features(layout, lesson.affinities or affinity.learn(lesson.past, closeness))
            items = ItemTable.of(layout, lesson.item_numeric, lesson.item_categorical)
            for shelf, taken in zip(shelves, (taught, judged), strict=True):
                shelf.put(taken[number], features, items, rng)
    rows, held_out = (shelf.lists() for shelf in shelves)
    return rows, held_out


def _layout(lessons: Sequence[Lesson], serving: Serving, sources: Sequence[str]) -> Layout:
    """Encoders learnt from the lessons' shoppers and items; from today's items when there is no lesson."""
    plan = serving.plan
    numeric = [lesson.queries.user_numeric for lesson in lessons] or [np.empty((0, len(plan.user.numeric)), np.float32)]
    words = [lesson.queries.user_categorical for lesson in lessons]
    words = words or [np.empty((0, len(plan.user.categorical)), object)]
    user = Encoder.learn(
        plan.user.numeric, plan.user.categorical, np.vstack(numeric).astype(np.float32), np.vstack(words)
    )
    item_numeric = np.vstack([*(lesson.item_numeric for lesson in lessons), serving.item_numeric])
    item_words = np.vstack([*(lesson.item_categorical for lesson in lessons), serving.item_categorical])
    item = Encoder.learn(plan.item.numeric, plan.item.categorical, item_numeric, item_words)
    return Layout.of(sources, user, item)


def _network(dense: Float32, layout: Layout, used: Parameters) -> CrossNetwork:
    spread = dense.std(0)
    scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)
    cardinalities = (*layout.user.cardinalities, *layout.item.cardinalities)
    return CrossNetwork(
        dense.mean(0).astype(np.float32),
        scale,
        cardinalities,
        used.embedding,
        used.crosses,
        used.rank,
        used.hidden,
        used.dropout,
    )


def _committee(
    rows: Lists,
    held_out: Lists | None,
    layout: Layout,
    used: Parameters,
    seed: int,
    rng: np.random.Generator,
    out: Path,
) -> tuple[list[CrossNetwork], Blends, dict[str, float]]:
    """
    As many networks as are asked for where the first gets a say beside the trees; the blends; the figures.

    The trees, written to *out*, grow beside the first network: neither reads the other, and each is of one thread.
    """
    with ThreadPoolExecutor(1) as beside, headway.span(0.4, 0.8):
        growing = beside.submit(trees.learn, rows.dense, rows.gains, rows.lengths, used.trees, seed, rows.weights)
        network, metrics = _learn(rows, layout, used, rng)
        booster = growing.result()
    trees.write_onnx(booster, out)
    by_trees = {id(of): np.asarray(booster.predict(of.dense), np.float32) for of in (rows, held_out) if of is not None}
    said: list[dict[int, Float32]] = []

    def opinions(of: Lists) -> Opinions:
        for one in networks[len(said) :]:
            said.append({id(which): _scores(one, which) for which in (rows, held_out) if which is not None})
        scores = [one[id(of)] for one in said]
        return Opinions.of(of, np.mean(scores, axis=0, dtype=np.float32), by_trees[id(of)])

    networks = [network]
    if held_out is None:
        return networks, equal_say(opinions(rows)), metrics
    blends, figures = chosen(opinions(rows), opinions(held_out), held_out, _fused_column(layout))
    if used.networks > 1 and (blends.known.network or blends.new.network):
        with headway.span(0.8, 1.0):
            networks += [_learn(rows, layout, used, rng)[0] for _ in range(used.networks - 1)]
        blends, figures = chosen(opinions(rows), opinions(held_out), held_out, _fused_column(layout))
    return networks, blends, {**metrics, **figures, "networks": float(len(networks))}


def _quantised(out: Path, held_out: Lists | None, blends: Blends, quantise: str) -> dict[str, float]:
    """
    Beside the network in *out* the same in int8 where it is to serve; the figures that say why.

    Too few judged lists say nothing, and then it serves only if that was asked for.
    """
    network, small = out / NETWORK_FILE, out / QUANTISED_FILE
    quantising.write(network, small)
    figures: dict[str, float] = {}
    is_used = quantise == "int8"
    if held_out is not None and len(held_out) >= LEAST_JUDGED:
        by_trees = np.zeros(len(held_out.gains), np.float32)
        if (out / TREES_FILE).exists():
            (by_trees,) = sessions.opened((out / TREES_FILE).read_bytes()).run(None, {"dense": held_out.dense})
        whole = sessions.opened(network.read_bytes())
        scores = {"": sessions.by_network(whole, held_out.dense, held_out.codes, None)}
        scores["int8"], time_share = quantising.compared(network, small, held_out)
        known = held_out.dense[:, KNOWN_SHARE]
        by_float, by_int8 = (ndcg(blends.of(one, by_trees, known), held_out) for one in scores.values())
        is_used = quantising.serves(quantise, by_float, by_int8, time_share)
        figures = {"ndcg_at_10_float32": by_float, "ndcg_at_10_int8": by_int8, "time_share_of_int8": time_share}
    if not is_used:
        small.unlink()
    return {**figures, "serves_int8": float(is_used)}


def _learn(
    rows: Lists, layout: Layout, used: Parameters, rng: np.random.Generator
) -> tuple[CrossNetwork, dict[str, float]]:
    """Minimise the cross-entropy between a query's gains and its softmaxed scores; AdamW, one learning-rate cycle."""
    network = _network(rows.dense, layout, used).to(device.current())
    network.train()
    steps = used.epochs * -(-len(rows) // used.batch_queries)
    optimiser = torch.optim.AdamW(network.parameters(), lr=used.learning_rate, weight_decay=used.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, used.learning_rate, total_steps=max(steps, 2))
    loss_of_epoch = 0.0
    for epoch in range(used.epochs):
        losses = []
        order = rng.permutation(len(rows))
        for start in range(0, len(order), used.batch_queries):
            loss = _loss(network, rows, order[start : start + used.batch_queries])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            headway.told(epoch + start / len(order), used.epochs)
        loss_of_epoch = float(np.mean(losses))
    network.cpu().eval()
    return network, {"queries": float(len(rows)), "rows": float(len(rows.gains)), "loss": loss_of_epoch}


def _loss(network: CrossNetwork, rows: Lists, queries: NDArray[np.int64]) -> torch.Tensor:
    lengths = (rows.offsets[queries + 1] - rows.offsets[queries]).astype(np.int64)
    owner = np.repeat(np.arange(len(queries)), lengths)
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    at = rows.offsets[queries][owner] + place
    there = device.current()
    scores = network(torch.from_numpy(rows.dense[at]).to(there), torch.from_numpy(rows.codes[at]).to(there))
    lists = torch.full((len(queries), int(lengths.max())), -1e9, device=there)
    cells = torch.from_numpy(owner).to(there), torch.from_numpy(place).to(there)
    lists[cells] = scores
    gains = torch.zeros_like(lists)
    gains[cells] = torch.from_numpy(rows.gains[at]).to(there)
    shares = gains / gains.sum(1, keepdim=True)
    losses = -(shares * torch.log_softmax(lists, 1)).sum(1)
    return (
        losses.mean() if rows.weights is None else (losses * torch.from_numpy(rows.weights[queries]).to(there)).mean()
    )


def _scores(network: CrossNetwork, rows: Lists) -> Float32:
    scores = np.empty(len(rows.gains), np.float32)
    with torch.no_grad():
        for start in range(0, len(scores), _SCORED_AT_ONCE):
            own = slice(start, start + _SCORED_AT_ONCE)
            scores[own] = network(torch.from_numpy(rows.dense[own]), torch.from_numpy(rows.codes[own])).numpy()
    return scores


def _fused_column(layout: Layout) -> int:
    """Column of the summed reciprocal ranks in `Features.rows`: the last but one of the sources' block."""
    return 4 * len(layout.sources) + 1


def _untaught(features: Features, serving: Serving, used: Parameters) -> CrossNetwork:
    """A network that repeats the fused order: every weight zero but the one of the summed reciprocal ranks."""
    plan = serving.plan
    nothing = RerankQueries(
        serving.dataset.shoppers(np.empty(0, np.int64), np.empty(0, np.int64)),
        Rows.empty(0),
        features.layout.sources,
        np.empty((0, len(features.layout.sources)), np.float32),
        np.empty((0, len(features.layout.sources)), np.uint16),
        np.empty((0, len(plan.user.numeric)), np.float32),
        np.empty((0, len(plan.user.categorical)), object),
        plan.digest,
    )
    items = ItemTable.of(features.layout, serving.item_numeric, serving.item_categorical)
    width = features.rows(nothing, items).dense.shape[1]
    network = _network(np.zeros((1, width), np.float32), features.layout, used)
    network.scale[_fused_column(features.layout)] = 1.0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.last.weight[0, _fused_column(features.layout)] = 1.0
    network.eval()
    return network


def _write(out: Path, networks: Sequence[CrossNetwork], features: Features, serving: Serving, blends: Blends) -> None:
    write_onnx(networks, out / NETWORK_FILE)
    serving.plan.save(out / PLAN_FILE)
    for name, value in ((LAYOUT_FILE, features.layout.to_json()), (BLEND_FILE, blends.to_json())):
        (out / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    features.affinities.save(out / AFFINITIES_FILE)
    # Text as fixed-width unicode: object arrays would need pickle.
    words = np.asarray(serving.item_categorical, dtype=np.str_)
    np.savez_compressed(out / ITEMS_FILE, numeric=serving.item_numeric, categorical=words)

"""
Trains the transformer to guess, after every event of every shopper, which item they want next.

The rule: how long it trains follows from the data's size and never from a clock, so that the same data and seed give
the same network. Every position of a sequence is a guess; the loss is the softmax over all items where that is
affordable, otherwise over many sampled ones (what either does for SASRec: Klenitskiy and Vasilev, RecSys 2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from protos.arrays import Float32
from services.collaborative_filtering.sequence import KIND_OF, LONGEST, Windows, collapsed, gap_codes
from services.collaborative_filtering.sequence_network import Transformer, onnx_graph
from services.training import device, headway
from services.training.dataset import US, Dataset


@dataclass(frozen=True, slots=True)
class Training:
    """
    What decides a training, besides data and seed. Width is that of the factors the embeddings start from.

    passes          times every guess is made
    most_guesses    made at most in all, so that a large shop has an end; the latest sequences first
    batch_guesses   guesses a step, near enough
    full_up_to      items up to which the loss is over all of them
    negatives       sampled a step above that, shared by all its guesses: one product instead of a gather each
    start           spread of the embeddings before the first step
    """

    blocks: int = 2
    heads: int = 2
    dropout: float = 0.2
    passes: int = 4
    most_guesses: int = 2_000_000
    batch_guesses: int = 1_024
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    full_up_to: int = 2_000
    negatives: int = 1_024
    start: float = 0.05


@dataclass(frozen=True, slots=True)
class Learnt:
    """
    A trained network.

    vectors  (n_known, d) float32 embeddings, keys (n_known,) int32 whose they are
    loss     mean of the last pass
    """

    graph: bytes
    network: Transformer
    vectors: Float32
    keys: NDArray[np.int32]
    guesses: int
    loss: float


@dataclass(frozen=True, slots=True)
class Guesses:
    """
    Every (what was done, what came next) of m guesses, in c chunks of LONGEST at most.

    rows, kinds, gaps  (m,) int64 as in `Windows`; targets (m,) int64 row of the item that came next
    ends, lengths      (c,) int64 of the chunks; newest (c,) int64 when each ends
    """

    rows: NDArray[np.int64]
    kinds: NDArray[np.int64]
    gaps: NDArray[np.int64]
    targets: NDArray[np.int64]
    ends: NDArray[np.int64]
    lengths: NDArray[np.int64]
    newest: NDArray[np.int64]

    def windows(self, chunks: NDArray[np.int64]) -> tuple[Windows, NDArray[np.int64]]:
        """These chunks side by side, and what came next (len(chunks), l), -1 where nothing is."""
        ends, lengths = self.ends[chunks], self.lengths[chunks]
        windows = Windows.of(ends, lengths, self.rows, self.kinds, self.gaps)
        return windows, Windows.of(ends, lengths, self.targets, self.kinds, self.gaps).rows


def steps_of(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Whose (n,), which key, what kind and when (µs): everybody's wishes, runs of one item collapsed, by shopper."""
    kinds = KIND_OF[dataset.types]
    order = np.argsort(dataset.users, kind="stable")
    order = order[kinds[order] > 0]
    users, keys = dataset.users[order].astype(np.int64), dataset.keys[order].astype(np.int64)
    ends, strongest = collapsed(users, keys, kinds[order])
    return users[ends], keys[ends], strongest, dataset.at_us[order][ends]


def guesses(dataset: Dataset) -> tuple[Guesses, NDArray[np.int32]]:
    """Everything there is to guess in *dataset*, and the keys (n_known,) that rows stand for."""
    users, keys, kinds, at_us = steps_of(dataset)
    known, rows = np.unique(keys, return_inverse=True)
    here = np.flatnonzero(users[1:] == users[:-1]) if len(users) > 1 else np.empty(0, np.int64)
    # Chunks are cut from each shopper's end, so that the newest guesses see the longest past.
    last = np.searchsorted(users[here], users[here], "right") - 1
    chunk = (last - np.arange(len(here))) // LONGEST
    ends = np.flatnonzero((np.diff(users[here], append=-1) != 0) | (np.diff(chunk, append=-1) != 0)) + 1
    return Guesses(
        rows=rows[here].astype(np.int64),
        kinds=kinds[here],
        gaps=gap_codes((at_us[here + 1] - at_us[here]) / US),
        targets=rows[here + 1].astype(np.int64),
        ends=ends,
        lengths=np.diff(ends, prepend=0),
        newest=at_us[here + 1][ends - 1],
    ), known.astype(np.int32)


def learn(dataset: Dataset, factors: Float32, seed: int, how: Training) -> Learnt:
    """
    Train on all events of *dataset*.

    Args:
        factors: (n_items, d) of implicit ALS: embeddings that start where company already put them need a
            fraction of the steps of random ones.

    Raises:
        ValueError: nobody wanted two things, so there is nothing to guess.
    """
    asked, keys = guesses(dataset)
    if not len(asked.ends):
        raise ValueError("no shopper wanted two different items: no sequence to learn from")
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = Transformer(factors.shape[1], how.blocks, how.heads, how.dropout).to(device.current())
    start = torch.from_numpy(factors[keys]).clone()
    start = start * (how.start / max(float(start.square().mean().sqrt()), 1e-9))
    # A little noise tells items apart that had the very same company.
    start = start + torch.randn(start.shape, generator=generator) * (how.start / 10)
    vectors = torch.nn.Parameter(start.to(device.current()))
    batches = list(_batches(asked, how, rng))
    optimiser = torch.optim.AdamW([*network.parameters(), vectors], lr=how.learning_rate, weight_decay=how.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, how.learning_rate, total_steps=max(len(batches), 2))
    losses = []
    network.train()
    for number, chunks in enumerate(batches):
        headway.told(number, len(batches))
        loss = _loss(network, vectors, *asked.windows(chunks), how, rng)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
        torch.nn.utils.clip_grad_norm_([*network.parameters(), vectors], 5.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    network.cpu().eval()
    recent = losses[-max(len(losses) // how.passes, 1) :]
    made = int(sum(asked.lengths[chunks].sum() for chunks in batches))
    found = np.ascontiguousarray(vectors.detach().cpu().numpy())
    return Learnt(onnx_graph(network), network, found, keys, made, float(np.mean(recent)))


def _batches(asked: Guesses, how: Training, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Chunks of each step: of similar length, since a short one is filled up to the longest of its step."""
    latest = np.argsort(-asked.newest, kind="stable")
    most = max(how.most_guesses // how.passes, 1)
    taught = latest[np.cumsum(asked.lengths[latest]) - asked.lengths[latest] < most]
    for _ in range(how.passes):
        shuffled = rng.permutation(taught)
        by_length = shuffled[np.argsort(asked.lengths[shuffled], kind="stable")]
        lengths = asked.lengths[by_length]
        # A step ends where the next chunk would not fit.
        cuts, filled = [], 0
        for i, length in enumerate(lengths.tolist()):
            if filled and filled + length > how.batch_guesses:
                cuts.append(i)
                filled = 0
            filled += length
        steps = np.split(by_length, cuts)
        for i in rng.permutation(len(steps)):
            yield steps[i]


def _loss(
    network: Transformer,
    vectors: torch.Tensor,
    windows: Windows,
    targets: NDArray[np.int64],
    how: Training,
    rng: np.random.Generator,
) -> torch.Tensor:
    place = vectors.device
    filled = torch.from_numpy(windows.rows >= 0).to(place)
    rows = torch.from_numpy(np.maximum(windows.rows, 0)).to(place)
    embedded = functional.embedding(rows, vectors) * filled[:, :, None]
    states = network(embedded, *(torch.from_numpy(part).to(place) for part in windows.codes()))[filled]
    wanted = torch.from_numpy(targets).to(place)[filled]
    if len(vectors) <= how.full_up_to:
        return functional.cross_entropy(states @ vectors.T, wanted)
    negatives = torch.from_numpy(rng.choice(len(vectors), how.negatives)).to(place)
    return sampled(states, vectors, wanted, negatives)


def sampled(states: torch.Tensor, vectors: torch.Tensor, wanted: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """
    Softmax cross-entropy over the item that was *wanted* and sampled ones that stand for all the others.

    Each of k negatives counts for (n − 1) / k items, so that the sum under the fraction is, on average, that of the
    full softmax.

    Args:
        states: (m, d), wanted: (m,) rows of *vectors* (n, d), negatives: (k,) rows drawn evenly, shared by all m.
    """
    positive = (states * functional.embedding(wanted, vectors)).sum(1, keepdim=True)
    others = states @ functional.embedding(negatives, vectors).T + math.log((len(vectors) - 1) / len(negatives))
    others = others.masked_fill(wanted[:, None] == negatives[None, :], -1e9)
    return -torch.log_softmax(torch.cat([positive, others], 1), 1)[:, 0].mean()

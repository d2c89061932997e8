"""
What a shopper did as a sequence, and the transformer that guesses what comes next: numpy in, onnxruntime, numpy out.

The rule: a sequence is made here and nowhere else, from events in training (`collapsed`, `gap_codes`, `Windows`) and
from a request in serving (`of_shoppers`), so that the network never meets a sequence of another make than it learnt
from. It is inductive: it reads items, what was done with them and how long ago, not who did it.

An item is a row of the embeddings, one a *known* item; an item nobody wanted in training has no row, is left out of
every sequence and is never proposed. The network: `sequence_network.py`; when it is used at all: `train.choose`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.artefacts import Artefact
from protos.tutti.v1 import common_pb2
from services.chassis.model import GenerateQueries, Shoppers
from services.chassis.retrieval import VectorIndex, write_index
from services.chassis.signals import DAY_S, STRENGTH, owners

LONGEST = 50
"""Items of a sequence, the latest. Borrowed: SASRec's length for sparse data sets (Kang and McAuley, ICDM 2018)."""

GAPS_S = (60.0, 1_800.0, 6 * 3_600.0, DAY_S, 7 * DAY_S, 30 * DAY_S)
"""Where one length of time becomes another: at once, in the visit, that day, the next, the week, the month, later."""

NETWORK_FILE = "sequence.onnx"
INDEX_PREFIX = "sequence_"
EMBEDDED, KINDS, GAPS, MASK, DISTANCES, STATES = "embedded", "kinds", "gaps", "mask", "distances", "states"

_HIDDEN = np.float32(-1e9)

KIND_OF: NDArray[np.int64] = np.unique(STRENGTH, return_inverse=True)[1].reshape(-1)
"""Event type → how strong a wish it is, 0 for none; (256,) int64."""

N_KINDS = int(KIND_OF.max()) + 1


@dataclass(frozen=True, slots=True)
class Windows:
    """
    Sequences of q shoppers, oldest first, filled up on the left to one length l ≤ LONGEST.

    rows   (q, l) int64 row of the embeddings, -1 where nothing is
    kinds  (q, l) int64 of KIND_OF; gaps (q, l) int64 of `gap_codes`: from this event to the next one, or to now
    """

    rows: NDArray[np.int64]
    kinds: NDArray[np.int64]
    gaps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(
        cls,
        ends: NDArray[np.int64],
        lengths: NDArray[np.int64],
        rows: NDArray[np.int64],
        kinds: NDArray[np.int64],
        gaps: NDArray[np.int64],
    ) -> Windows:
        """
        The last LONGEST of each of q sequences.

        Args:
            ends: (q,) where in *rows*, *kinds* and *gaps* (n,) each ends, exclusive; it has *lengths* (q,) entries.
        """
        kept = np.minimum(lengths, LONGEST)
        width = max(int(kept.max(initial=0)), 1)
        filled = np.arange(width) >= width - kept[:, None]
        if not len(rows):
            nothing = np.zeros_like(filled, np.int64)
            return cls(nothing - 1, nothing, nothing)
        at = np.where(filled, ends[:, None] - width + np.arange(width), 0)
        return cls(np.where(filled, rows[at], -1), np.where(filled, kinds[at], 0), np.where(filled, gaps[at], 0))

    def codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32, NDArray[np.int64]]:
        """Kinds, gaps, mask (q, 1, l, l) float32 to be added to attention, and distances (l, l) back to each event."""
        filled = self.rows >= 0
        places = np.arange(self.rows.shape[1])
        is_past = places[None, :] <= places[:, None]
        mask = np.where(is_past[None] & filled[:, None, :], np.float32(0), _HIDDEN)[:, None]
        return self.kinds, self.gaps, mask, np.maximum(places[:, None] - places[None, :], 0)

    def inputs(self, vectors: Float32) -> dict[str, NDArray[np.generic]]:
        """What the graph reads, by name, with *vectors* (n_known, d) float32 as embeddings."""
        embedded = np.where((self.rows >= 0)[:, :, None], vectors[self.rows], np.float32(0))
        return dict(zip((EMBEDDED, KINDS, GAPS, MASK, DISTANCES), (embedded, *self.codes()), strict=True))


def collapsed(
    owner: NDArray[np.int64], keys: NDArray[np.int64], kinds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    One event for every run of the same item: seen, looked at again and bought is one step, not three.

    Args:
        owner: (n,) whose event, sorted; keys and kinds (n,) of one owner oldest first.

    Returns:
        places (m,) of each run's last event, and its strongest kind (m,).
    """
    if not len(keys):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    begins = np.flatnonzero((np.diff(keys, prepend=-1) != 0) | (np.diff(owner, prepend=-1) != 0))
    ends = np.append(begins[1:], len(keys)) - 1
    return ends, np.maximum.reduceat(kinds, begins)


def gap_codes(seconds: NDArray[np.floating]) -> NDArray[np.int64]:
    """Code of each length of time, 0 to len(GAPS_S)."""
    return np.searchsorted(GAPS_S, seconds, "right").astype(np.int64)


def of_shoppers(shoppers: Shoppers, index: VectorIndex) -> Windows:
    """What each wanted of the items in *index*, and after it what is looked at now."""
    history, context = shoppers.history, shoppers.context
    owner = np.concatenate([owners(history), owners(context)])
    rows = index.rows_of(np.concatenate([history.values, context.values]))
    looked_at = np.full(len(context.values), KIND_OF[common_pb2.EVENT_TYPE_VIEW])
    kinds = np.concatenate([KIND_OF[shoppers.history_types], looked_at])
    ages = np.concatenate([shoppers.history_ages_s, np.zeros(len(looked_at), np.float32)])
    # Stable: the context stays behind the history, each in its order.
    order = np.argsort(owner, kind="stable")
    order = order[(rows[order] >= 0) & (kinds[order] > 0)]
    ends, strongest = collapsed(owner[order], rows[order], kinds[order])
    kept = order[ends]
    following = np.append(ages[kept][1:], np.float32(0))
    is_last = np.diff(owner[kept], append=-1) != 0
    gaps = gap_codes(np.maximum(ages[kept] - np.where(is_last, np.float32(0), following), 0))
    lengths = np.bincount(owner[kept], minlength=len(shoppers))
    return Windows.of(np.cumsum(lengths), lengths, rows[kept], strongest, gaps)


class SequenceModel:
    """The network and the index over its embeddings."""

    def __init__(self, graph: bytes, index: VectorIndex) -> None:
        options = onnxruntime.SessionOptions()
        # One thread: calls come one at a time, and the machine's other cores belong to the other services.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.index = index

    @classmethod
    def load(cls, artefact: Artefact) -> SequenceModel:
        """Read what `write` wrote."""
        return cls(artefact.file(NETWORK_FILE).read_bytes(), VectorIndex.load(artefact, INDEX_PREFIX))

    def states(self, shoppers: Shoppers) -> tuple[Float32, NDArray[np.bool_]]:
        """States (q, d) float32 of q shoppers in one run, and (q,) whether there was anything to read."""
        windows = of_shoppers(shoppers, self.index)
        speaks = np.asarray((windows.rows >= 0).any(axis=1), np.bool_)
        states = np.zeros((len(shoppers), self.index.vectors.shape[1]), np.float32)
        if speaks.any():
            read = Windows(windows.rows[speaks], windows.kinds[speaks], windows.gaps[speaks])
            (states[speaks],) = self._session.run([STATES], read.inputs(self.index.vectors))
        return states, speaks

    def following(self, queries: GenerateQueries, asked: NDArray[np.bool_]) -> Following:
        """What comes next, in one run of the network, for those of q queries it is *asked* (q,) about."""
        states = np.zeros((len(asked), self.index.vectors.shape[1]), np.float32)
        speaks = asked.copy()
        states[asked], speaks[asked] = self.states(queries.shoppers.take(np.flatnonzero(asked)))
        return Following(self.index, states, speaks, self.index.candidates(queries, states, speaks).rows)


@dataclass(frozen=True, slots=True)
class Following:
    """What the network says: states (q, d), whether each says anything (q,), and the likeliest keys, q rows."""

    index: VectorIndex
    states: Float32
    speaks: NDArray[np.bool_]
    likeliest: Rows

    def keys(self, i: int) -> NDArray[np.int32]:
        """The likeliest of query *i*."""
        return self.likeliest.row(i)

    def closeness(self, i: int, keys: NDArray[np.int32]) -> Float32:
        """How likely each of *keys* (n,) comes next: logits above the least likely one's, 0 for what is unknown."""
        rows = self.index.rows_of(keys)
        known = rows >= 0
        scores = np.zeros(len(keys), np.float32)
        if self.speaks[i] and known.any():
            logits = self.index.vectors[rows[known]] @ self.states[i]
            scores[known] = logits - logits.min()
        return scores


def write(
    out: Path,
    graph: bytes,
    vectors: Float32,
    keys: NDArray[np.int32],
    shoppers: Shoppers | None = None,
    seed: int = 7,
) -> dict[str, float]:
    """
    Write the network and its embeddings into *out*.

    Args:
        shoppers: whose states the index is measured with.

    Returns:
        As `retrieval.write_index`.
    """
    (out / NETWORK_FILE).write_bytes(graph)
    states = None
    if shoppers is not None:
        states, speaks = SequenceModel(graph, VectorIndex(vectors, keys)).states(shoppers)
        states = states[speaks]
    return write_index(out, vectors, keys, INDEX_PREFIX, states, seed)

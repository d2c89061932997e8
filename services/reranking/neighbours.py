"""
Which items go together: for each item the K items most often wanted by the same shoppers, lately.

Cosine between item columns of the decayed shopper × item matrix (item-kNN). The re-ranker reads it as a cross of
history and candidate. Built by training from events before a moment; three arrays, read-only in serving.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protos.arrays import Float32

# Neighbours kept an item. Borrowed: item-kNN is usually flat in K from 50 on.
K = 50
# Items touched by a shopper that are compared with each other, the strongest first: without a bound one wholesaler
# with 2,000 items costs as much as all households together.
_MAX_ITEMS_A_SHOPPER = 300


@dataclass(frozen=True, slots=True)
class Neighbours:
    """
    keys          (n_items, K) int32, -1 where an item has fewer
    similarities  (n_items, K) float32 in [0, 1], falling along a row, 0 where there is none
    """

    keys: NDArray[np.int32]
    similarities: Float32

    def closeness(
        self,
        rows: NDArray[np.int64],
        keys: NDArray[np.int64],
        weights: Float32,
        candidate_rows: NDArray[np.int64],
        candidates: NDArray[np.integer],
    ) -> Float32:
        """
        How close each candidate is to what its shopper touched: Σ over touched items of weight · similarity.

        Args:
            rows, keys, weights: touched items (m,), one entry a (query, item) pair; keys within the table.
            candidate_rows, candidates: (n,) query and item key of each candidate.

        Returns:
            (n,) float32.
        """
        if not len(keys) or not len(candidates):
            return np.zeros(len(candidates), np.float32)
        near = self.keys[keys]
        wanted = (candidate_rows << 32) + candidates.astype(np.int64)
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        pairs = ((rows[:, None] << 32) + near).ravel()
        at = np.minimum(np.searchsorted(ordered, pairs), len(ordered) - 1)
        hit = (ordered[at] == pairs) & (near.ravel() >= 0)
        gains = (weights[:, None] * self.similarities[keys]).ravel()
        summed = np.bincount(at[hit], gains[hit], len(ordered))
        # A key that stands twice in a query's candidates is met at its first place; give it to all.
        first = np.searchsorted(ordered, ordered)
        out = np.empty(len(candidates), np.float32)
        out[order] = summed[first]
        return out


def learn(users: NDArray[np.int64], keys: NDArray[np.int64], weights: Float32, shape: tuple[int, int]) -> Neighbours:
    """
    Learn from (user, item) pairs (m,) with positive weights; shape is (n_users, n_items).

    Weights are square-rooted, so that ten purchases of one thing do not make it everybody's neighbour.
    """
    users, keys, weights = _bounded(users, keys, weights)
    matrix = sparse.csr_matrix((np.sqrt(weights), (users, keys)), shape=shape, dtype=np.float32)
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(0)).ravel())
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    unit = (matrix @ sparse.diags(scale)).tocsc().astype(np.float32)
    out_keys = np.full((shape[1], K), -1, np.int32)
    out_similarities = np.zeros((shape[1], K), np.float32)
    step = 1024
    for start in range(0, shape[1], step):
        block = np.asarray((unit[:, start : start + step].T @ unit).todense())
        block[np.arange(len(block)), start + np.arange(len(block))] = 0
        kept = min(K, block.shape[1])
        top = np.argsort(-block, axis=1, kind="stable")[:, :kept]
        value = np.take_along_axis(block, top, 1)
        out_keys[start : start + step, :kept] = np.where(value > 0, top, -1)
        out_similarities[start : start + step, :kept] = value
    return Neighbours(out_keys, out_similarities)


def _bounded(
    users: NDArray[np.int64], keys: NDArray[np.int64], weights: Float32
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    """Each shopper's strongest items only."""
    order = np.lexsort((keys, -weights, users))
    users, keys, weights = users[order], keys[order], weights[order]
    place = np.arange(len(users)) - np.searchsorted(users, users)
    kept = place < _MAX_ITEMS_A_SHOPPER
    return users[kept], keys[kept], weights[kept]

"""
Items nobody has touched yet, mapped into what behaviour says by the words of those that somebody has.

A new item has no row in any table of behaviour and no factors. It is given the mean of its look-alikes', weighted by
how alike their words are: k nearest neighbours from attributes to factors, Gantner et al., ICDM 2010. The rule: what
behaviour knows is never changed, and an item leaves this page with its first event.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protos.arrays import Float32
from services.chassis.affinity import Table
from services.chassis.signals import STRENGTH
from services.training.dataset import Dataset

LOOKALIKES = 5
"""Touched items that stand for a new one, the most alike first. A first guess, not compared."""

_DOUBT = 1.0
"""
Added to the sum of likenesses it is divided by, so that a new item with one faint look-alike stays far behind it. A
first guess: five perfect look-alikes are believed to five sixths.
"""


def is_cold(dataset: Dataset) -> NDArray[np.bool_]:
    """(n_items,) whether nobody ever showed to want the item."""
    touched = np.zeros(dataset.n_items, np.bool_)
    touched[dataset.keys[STRENGTH[dataset.types] > 0]] = True
    return ~touched


def lookalikes(text: Table, cold: NDArray[np.bool_]) -> Any:
    """
    CSR (n_items, n_items): what a touched item (row) lends to a cold one (column); columns sum to less than 1.

    text  what each item speaks for by its words, as `affinity.Table`
    """
    n_items = len(cold)
    speaks = np.repeat(np.arange(n_items), np.diff(text.offsets))
    lends = ~cold[speaks] & cold[text.keys]
    speaks, heard, alike = speaks[lends], text.keys[lends], text.strengths[lends]
    order = np.lexsort((speaks, -alike, heard))
    speaks, heard, alike = speaks[order], heard[order], alike[order]
    first = np.searchsorted(heard, heard, side="left")
    near = np.arange(len(heard)) - first < LOOKALIKES
    speaks, heard, alike = speaks[near], heard[near], alike[near]
    doubt = np.bincount(heard, alike, n_items) + _DOUBT
    return sparse.csr_matrix((alike / doubt[heard], (speaks, heard)), (n_items, n_items), dtype=np.float32)


def extended(table: Table, alike: Any) -> Table:
    """*table* with what speaks for the look-alikes speaking for the cold items too, by as much as *alike* says."""
    if not alike.nnz:
        return table
    known = sparse.csr_matrix((table.strengths, table.keys, table.offsets), alike.shape)
    both = (known + known @ alike).tocsr()
    both.sort_indices()
    return Table(both.indptr.astype(np.int64), both.indices.astype(np.int32), both.data.astype(np.float32))


def mapped(factors: Float32, alike: Any) -> Float32:
    """*factors* (n_items, d) with those of cold items filled in; their rows of *factors* are not looked at."""
    lent = np.asarray(alike.T @ factors, np.float32)
    borrows = np.diff(alike.T.tocsr().indptr) > 0
    return np.where(borrows[:, None], lent, factors).astype(np.float32)

"""
Closeness by the plain formulas, one shopper at a time, a number for every item: what serving must come to by less work.

Here every method is a line or two of numpy over the whole catalogue in float64. Ties go by the smaller key.
"""

from __future__ import annotations

import numpy as np

from services.chassis.affinity import NAMES, TABLES
from services.chassis.signals import DAY_S, focused, touched
from services.collaborative_filtering.model import METHODS, user_vectors


def closeness(affinities, shoppers, context_strength, i, unasked=()):
    """(len(NAMES), n_items) float64 of shopper *i* of *shoppers*."""
    alone = shoppers.take(np.array([i]))
    known = touched(alone, affinities.n_items, context_strength)
    rows = np.zeros((len(NAMES), affinities.n_items))
    for row, name in zip(rows, NAMES, strict=True):
        half_life_s = affinities.half_lives_d[name] * DAY_S
        sums, strongest = known.weights(half_life_s)
        weights = focused(alone, known.rows, strongest, context_strength).astype(np.float64)
        if name in unasked:
            continue
        if name == "own":
            row[known.keys] = sums
        elif name in TABLES:
            row[:] = spread(affinities.tables[name], known.keys, weights)
        elif name == "peers":
            row[:] = of_peers(affinities.peers, known.keys, weights)
        elif name == "trending":
            row[:] = affinities.demand.wanted
        else:
            row[:] = of_category(affinities.demand, known.keys, weights)
    return rows


def spread(table, keys, weights):
    """Σ weight · strength of every item (n_items,)."""
    out = np.zeros(len(table.offsets) - 1)
    for key, weight in zip(keys, weights, strict=True):
        own = slice(table.offsets[key], table.offsets[key + 1])
        np.add.at(out, table.keys[own], weight * table.strengths[own].astype(np.float64))
    return out


def of_peers(peers, keys, weights):
    """How much the `most` shoppers most like this one want every item (n_items,)."""
    n_shoppers = len(peers.shopper_offsets) - 1
    alike, out = np.zeros(n_shoppers), np.zeros(len(peers.rarity))
    worth = weights * peers.rarity[keys]
    for key, one in zip(keys, worth, strict=True):
        own = slice(peers.item_offsets[key], peers.item_offsets[key + 1])
        np.add.at(alike, peers.users[own], one * peers.likeness[own].astype(np.float64))
    for who in np.argsort(-alike, kind="stable")[: peers.most]:
        own = slice(peers.shopper_offsets[who], peers.shopper_offsets[who + 1])
        likeness = alike[who] / max(np.sqrt((worth**2).sum()), 1e-9)
        np.add.at(out, peers.keys[own], likeness * peers.wants[own].astype(np.float64))
    return out


def of_category(demand, keys, weights):
    """Say of each item's category among what was touched, times its share in there (n_items,)."""
    taste = {}
    for code, weight in zip(demand.category[keys].tolist(), weights.tolist(), strict=True):
        taste[code] = taste.get(code, 0.0) + weight
    taste[-1] = 0.0
    return np.array([taste.get(code, 0.0) for code in demand.category.tolist()]) * demand.share


def proposed(rows, each, allowed):
    """Keys of the *each* items above 0 closest by any method, ascending; *allowed* (n_items,) bool."""
    keys = set()
    for row in np.where(allowed, rows, 0):
        top = np.argsort(-row, kind="stable")[:each]
        keys |= set(top[row[top] > 0].tolist())
    return np.array(sorted(keys), np.int64)


def candidates(model, queries, i):
    """Keys and scores of query *i*, best first, of a `CollaborativeFiltering` without a transformer."""
    affinities, parameters = model._affinities, model._parameters
    n_items, shoppers = affinities.n_items, queries.shoppers.take(np.array([i]))
    weights = parameters.weights_on(int(shoppers.placements[0])).astype(np.float64)
    unasked = {name for name, weight in zip(METHODS, weights, strict=True) if weight <= 0}
    rows = closeness(affinities, shoppers, parameters.context_strength, 0, unasked)
    (vector,), (speaks,) = user_vectors(model._solver, model._factors, shoppers, parameters)
    company = [NAMES.index(name) for name in ("cosine", "linear", "basket", "peers", "category")]
    if not speaks and not rows[company].any():
        return np.empty(0, np.int64), np.empty(0)
    exclude, within = set(queries.exclude.row(i).tolist()), set(queries.within.row(i).tolist())
    allowed = np.array([(not within or key in within) and key not in exclude for key in range(n_items)])
    keys = set(proposed(rows, int(queries.counts[i]), allowed).tolist())
    if speaks:
        nearness = np.full(n_items, -np.inf)
        nearness[model._index.keys] = model._index.vectors @ vector
        found = np.argsort(-np.where(allowed, nearness, -np.inf), kind="stable")[: queries.counts[i]]
        keys |= {int(key) for key in found if allowed[key] and np.isfinite(nearness[key])}
    keys = np.array(sorted(keys), np.int64)
    if not len(keys):
        return keys, np.empty(0)
    factors = np.maximum(model._factors[keys] @ vector, 0)
    close = np.vstack([rows[:, keys], factors[None], np.zeros((1, len(keys)))])
    spread_of = close.std(1, keepdims=True)
    units = np.divide(close - close.mean(1, keepdims=True), spread_of, out=np.zeros_like(close), where=spread_of > 1e-9)
    scores = weights @ np.clip(units, -5, 5)
    order = np.lexsort((keys, -scores))[: queries.counts[i]]
    return keys[order], scores[order]

"""
When a remembered slate may be served, and under which name it is kept.

Decides, never reads a store: `decide(entry, now)` answers Serve, ServeAndRefresh or Compute, the pipeline
does it. The field's name is a digest of everything that made the slate, so a promoted model or a changed
setting makes old entries unreachable instead of wrong.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from orchestrator.core.model import Level, Query, Slate

JITTER_SHARE = 0.1
"""Entries made together must not expire together; ±10 % is the resilience specification's §1.7."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A remembered slate; moments are wall-clock seconds, since several processes share them."""

    slate: Slate
    fresh_until: float
    stale_until: float


@dataclass(frozen=True, slots=True)
class Serve:
    """Fresh: answer with it."""

    slate: Slate


@dataclass(frozen=True, slots=True)
class ServeAndRefresh:
    """Stale but usable: answer with it and compute a new one behind the answer."""

    slate: Slate


@dataclass(frozen=True, slots=True)
class Compute:
    """Nothing usable is remembered."""


def decide(entry: Entry | None, now: float) -> Serve | ServeAndRefresh | Compute:
    """What to do with what the cache holds at wall-clock *now*."""
    if entry is None or now > entry.stale_until:
        return Compute()
    if now <= entry.fresh_until:
        return Serve(entry.slate)
    return ServeAndRefresh(entry.slate)


def may_remember(slate: Slate) -> bool:
    """Only a slate that lost nothing: a degraded one, kept as fresh, would outlive the fault that made it."""
    return slate.level is Level.FULL and not slate.losses and bool(slate.items) and not slate.from_cache


def remember(slate: Slate, now: float, fresh_s: float, stale_s: float, rng: random.Random) -> Entry:
    """Wrap *slate* with its jittered moments: fresh for *fresh_s*, usable when stale for *stale_s* more."""
    fresh = fresh_s * rng.uniform(1 - JITTER_SHARE, 1 + JITTER_SHARE)
    return Entry(slate, now + fresh, now + fresh + stale_s)


def field_name(query: Query, made_by: str) -> str:
    """
    Name of the slate inside its subject's hash: 16 hex digits of a digest.

    Args:
        query: all of it counts but its ids and its subject (which names the hash).
        made_by: digest of what else makes a slate: settings, vocabulary, arms.
    """
    parts = (
        made_by,
        query.placement.value,
        query.count,
        query.context_keys,
        query.cart_keys,
        query.category,
        query.device,
        query.filter,
        query.exclude_keys,
        query.only_keys,
        query.exclude_seen,
        query.diversity.value,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()

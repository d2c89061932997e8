"""
When a remembered slate may be served, and under which name it is kept.

Decides, never reads a store: `decide(entry, now, rng)` answers Serve, ServeAndRefresh or Compute, the pipeline
does it. The field's name is a digest of everything that made the slate, so a promoted model or a changed
setting makes old entries unreachable instead of wrong.

    made ──── fresh_until ──────────── stale_until ─────────────────────── kept_until
      Serve        ServeAndRefresh          Compute, and serve it if that fails      gone
         (a little before: refresh early)
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, replace
from functools import lru_cache

from orchestrator.core.model import Level, Query, Rung, Slate, SourceReport
from orchestrator.core.values import value

JITTER_SHARE = 0.1
"""Entries made together must not expire together; ±10 % is the resilience specification's §1.7."""

POPULAR_JITTER_SHARE = 0.2
"""The same for what is remembered for seconds only; ±20 %, ibid."""

LEASE_S = 2.0
"""How long one process may take to make a slate anew before another may try. Borrowed: resilience specification §1.7.
Derived bound: twenty budgets of a request, so only a process that died or froze ever loses it."""

BETA = 1.0
"""Eagerness of early refreshes; 1 is optimal in theory (Vattani, Chierichetti and Lowenstein, VLDB 2015)."""


@value
class Entry:
    """
    A remembered slate; moments are wall-clock seconds, since several processes share them.

    fresh_until   served as it is
    stale_until   served, and made anew behind the answer
    kept_until    served only when a new one cannot be made
    delta_s       how long it took to make, measured
    """

    slate: Slate
    fresh_until: float
    stale_until: float
    kept_until: float
    delta_s: float = 0.0


@value
class Found:
    """What a look-up brings: the entry, if there is one, and the shopper's watermark at that moment."""

    entry: Entry | None
    watermark: int


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """
    Seconds: `fresh_s` from the making, `stale_s` and `kept_s` from the end of that.

    popular_s  how long "we know nothing of this shopper" is remembered; 0: not at all
    """

    fresh_s: float
    stale_s: float
    kept_s: float
    popular_s: float


@value
class Serve:
    """Fresh: answer with it."""

    slate: Slate


@value
class ServeAndRefresh:
    """Answer with it and compute a new one behind the answer: it is stale, or will be before long."""

    slate: Slate
    is_stale: bool


@value
class Compute:
    """Nothing that may be served as it is; *fallback* is better than an answer that lost the shopper."""

    fallback: Slate | None = None


def decide(entry: Entry | None, now: float, rng: random.Random) -> Serve | ServeAndRefresh | Compute:
    """
    What to do with what the cache holds at wall-clock *now*.

    A fresh entry is refreshed early when now − delta·β·ln(u) ≥ fresh_until, u uniform in (0, 1]: the nearer the end
    and the longer it takes to make, the likelier. Only good with single flight: without it the same rule made 2.2 to
    2.9 computations a cycle (resilience specification, E13).

    Source: Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.
    """
    if entry is None or now > entry.kept_until:
        return Compute()
    if now > entry.stale_until:
        return Compute(entry.slate)
    if now > entry.fresh_until:
        return ServeAndRefresh(entry.slate, is_stale=True)
    if now - entry.delta_s * BETA * math.log(1.0 - rng.random()) >= entry.fresh_until:
        return ServeAndRefresh(entry.slate, is_stale=False)
    return Serve(entry.slate)


def remember(slate: Slate, now: float, delta_s: float, lifetimes: Lifetimes, rng: random.Random) -> Entry | None:
    """
    *slate* with its jittered moments, or None when it must not be remembered.

    Three cases. Full: for long. Popular with nothing lost: the sources had nothing to say of this shopper, who will
    be back for the next page or is a robot; for seconds, and never stale, so that the first event (which forgets all
    of a shopper's slates) or a new model shows at once. Anything that lost something: never, not even for the two
    seconds the resilience specification allows. It would outlive its fault, single flight already joins those who ask
    at the same time, and an open breaker makes the next attempt cheap.
    """
    if slate.losses or slate.from_cache or not slate.items:
        return None
    if slate.level is Level.POPULAR and lifetimes.popular_s:
        until = now + lifetimes.popular_s * _around_one(POPULAR_JITTER_SHARE, rng)
        return Entry(_as_told_later(slate), until, until, until, delta_s)
    if slate.level is Level.FULL:
        fresh_until = now + lifetimes.fresh_s * _around_one(JITTER_SHARE, rng)
        stale_until, kept_until = fresh_until + lifetimes.stale_s, fresh_until + lifetimes.kept_s
        return Entry(_as_told_later(slate), fresh_until, stale_until, kept_until, delta_s)
    return None


def _as_told_later(slate: Slate) -> Slate:
    """*slate* as an answer from memory will tell of it: sources were not asked, and nothing took time."""
    sources = tuple([SourceReport(one.name, "cached", 0.0, one.candidates, one.kept) for one in slate.sources])
    return replace(slate, sources=sources, stages_ms=())


def or_fallback(computed: Slate, fallback: Slate | None) -> Slate:
    """
    Stale if error: *fallback* instead of a slate that lost what makes it personal; it names what was lost.

    Partial slates stand: what one source found for the shopper as of now is better than what all found a day ago.
    """
    if fallback is None or not lost_the_shopper(computed):
        return computed
    return replace(
        fallback,
        level=Level.STALE,
        sources=computed.sources,
        degraded=computed.degraded,
        losses=computed.losses,
        stages_ms=computed.stages_ms,
        from_cache=True,
        rung=Rung.STALE,
    )


def lost_the_shopper(slate: Slate) -> bool:
    """Whether losses, and not ignorance, left nothing personal in *slate*: it is popular, or no source answered."""
    if not any(name != "cache" for name, _ in slate.losses):
        return False
    return slate.level is Level.POPULAR or not any(source.status == "ok" for source in slate.sources)


def _around_one(share: float, rng: random.Random) -> float:
    return rng.uniform(1 - share, 1 + share)


def field_name(query: Query, made_by: str) -> str:
    """
    Name of the slate inside its subject's hash: 16 hex digits of a digest.

    Args:
        query: all of it counts but its ids and its subject (which names the hash).
        made_by: digest of what else makes a slate: settings, vocabulary, arms, the rules in force.
    """
    parts = (
        made_by,
        query.placement._value_,
        query.count,
        query.context_keys,
        query.cart_keys,
        query.category,
        query.device,
        query.filter,
        query.exclude_keys,
        query.only_keys,
        query.exclude_seen,
        query.diversity._value_,
    )
    return _digest(parts)


@lru_cache(maxsize=4096)
def _digest(parts: tuple[object, ...]) -> str:
    """Most questions are the same but for who asks. Compared by value, as `repr` does for all that a query holds."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()

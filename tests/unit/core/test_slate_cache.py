"""When a remembered slate is served, and what its name depends on."""

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Diversity, ItemFilter, Level, Loss, Placement, Query, Rung, SourceReport
from orchestrator.core.slate_cache import (
    Compute,
    Lifetimes,
    Serve,
    ServeAndRefresh,
    decide,
    field_name,
    lost_the_shopper,
    or_fallback,
    remember,
)
from tests.support.builders import a_query, a_slate, an_entry, changed

LIFETIMES = Lifetimes(fresh_s=30, stale_s=1800, kept_s=86400, popular_s=8)


@pytest.mark.parametrize(
    ("now", "decision"),
    [
        (29.9, Serve(a_slate(1))),
        (30.1, ServeAndRefresh(a_slate(1), is_stale=True)),
        (100.0, ServeAndRefresh(a_slate(1), is_stale=True)),
        (100.1, Compute(fallback=a_slate(1))),
        (500.0, Compute(fallback=a_slate(1))),
        (500.1, Compute()),
    ],
)
def test_fresh_is_served_stale_is_refreshed_old_is_a_fallback_and_what_is_too_old_is_nothing(now, decision):
    entry = an_entry(a_slate(1), fresh_until=30.0, stale_until=100.0, kept_until=500.0)

    assert decide(entry, now, random.Random(1)) == decision


def test_nothing_remembered_is_computed():
    assert decide(None, 0.0, random.Random(1)) == Compute()


def early(entry, now, n=4000):
    """Share of *n* look-ups at *now* that refresh early."""
    rng = random.Random(1)
    return sum(type(decide(entry, now, rng)) is ServeAndRefresh for _ in range(n)) / n


@pytest.mark.parametrize("before_s", [0.02, 0.05, 0.1])
def test_a_fresh_entry_is_refreshed_early_with_the_probability_of_the_paper(before_s):
    """P(−δ·ln u ≥ t) = exp(−t/δ), t before the end: VLDB 2015, with β = 1."""
    entry = an_entry(fresh_until=30.0, delta_s=0.05)

    assert early(entry, 30.0 - before_s) == pytest.approx(math.exp(-before_s / 0.05), abs=0.02)


def test_long_before_its_end_an_entry_is_not_refreshed():
    assert early(an_entry(fresh_until=30.0, delta_s=0.05), 28.0) == 0


def test_an_early_refresh_serves_a_slate_that_is_still_fresh():
    entry = an_entry(fresh_until=30.0, delta_s=1e6)

    assert decide(entry, 29.0, random.Random(1)) == ServeAndRefresh(entry.slate, is_stale=False)


@given(now=st.floats(0, 200), delta_s=st.floats(0, 1e6), seed=st.integers(0, 50))
def test_whatever_the_chance_nothing_is_served_too_long(now, delta_s, seed):
    decision = decide(an_entry(fresh_until=30.0, delta_s=delta_s), now, random.Random(seed))

    if isinstance(decision, Serve):
        assert now <= 30.0
    if isinstance(decision, ServeAndRefresh):
        assert now <= 100.0
        assert decision.is_stale == (now > 30.0)


def kept(slate, now=0.0, lifetimes=LIFETIMES, seed=1):
    return remember(slate, now, 0.02, lifetimes, random.Random(seed))


def test_a_full_slate_is_remembered_with_what_it_took_to_make():
    entry = kept(a_slate(1, 2))

    assert (entry.slate, entry.delta_s) == (a_slate(1, 2), 0.02)


# case 66: degraded_not_cached_as_fresh
@pytest.mark.parametrize("level", [Level.PARTIAL, Level.STALE, Level.POPULAR])
def test_a_degraded_slate_would_outlive_its_fault_and_is_not_remembered(level):
    assert kept(a_slate(1, level=level, losses=(("a", Loss.DEADLINE),))) is None


def test_neither_an_empty_slate_nor_one_from_the_cache_is_remembered():
    assert kept(a_slate()) is None
    assert kept(a_slate(1, from_cache=True)) is None


# Once: a slate computed while the cache was down was remembered, and said `degraded: cache` whenever it was served.
def test_a_slate_that_lost_the_cache_is_not_remembered_since_it_would_say_so_for_ever():
    assert kept(a_slate(1, degraded=("cache",), losses=(("cache", Loss.DEADLINE),))) is None


@given(
    now=st.floats(0, 1e10), fresh_s=st.floats(0.1, 1e5), stale_s=st.floats(0, 1e6), kept_s=st.floats(0, 1e6),
    seed=st.integers(0, 50),
)  # fmt: skip
def test_entries_expire_within_a_tenth_of_the_wanted_moment(now, fresh_s, stale_s, kept_s, seed):
    entry = kept(a_slate(1), now, Lifetimes(fresh_s, stale_s, kept_s, 0), seed)

    room = 1e-6 * max(1, now)
    assert 0.9 * fresh_s - room <= entry.fresh_until - now <= 1.1 * fresh_s + room
    assert entry.stale_until - entry.fresh_until == pytest.approx(stale_s, abs=room)
    assert entry.kept_until - entry.fresh_until == pytest.approx(kept_s, abs=room)


def test_entries_made_together_do_not_expire_together():
    assert len({kept(a_slate(1), seed=seed).fresh_until for seed in range(100)}) == 100


# case 65: negative_cached
@given(now=st.floats(0, 1e10), seed=st.integers(0, 50))
def test_that_nothing_is_known_of_a_shopper_is_remembered_for_seconds_and_never_served_stale(now, seed):
    entry = kept(a_slate(1, level=Level.POPULAR), now, seed=seed)

    assert 0.8 * 8 - 1e-4 <= entry.fresh_until - now <= 1.2 * 8 + 1e-4
    assert entry.fresh_until == entry.stale_until == entry.kept_until


def test_at_zero_seconds_it_is_not_remembered_that_nothing_is_known():
    assert kept(a_slate(1, level=Level.POPULAR), lifetimes=Lifetimes(30, 60, 60, popular_s=0)) is None


LOST = {"losses": (("a", Loss.DEADLINE), ("cache", Loss.DEADLINE)), "degraded": ("a", "cache")}
GONE = {"sources": (SourceReport("a", "timeout", 40.0),)}
THERE = {"sources": (SourceReport("a", "timeout", 40.0), SourceReport("b", "ok", 8.0))}


@pytest.mark.parametrize(
    ("about", "is_lost"),
    [
        ({"level": Level.POPULAR} | LOST | GONE, True),
        ({"level": Level.POPULAR} | LOST | THERE, True),
        # A ranking shows all it was handed, so it never looks popular.
        ({"level": Level.PARTIAL} | LOST | GONE, True),
        ({"level": Level.PARTIAL} | LOST | THERE, False),
        ({"level": Level.POPULAR} | THERE, False),
        ({"level": Level.POPULAR, "losses": (("cache", Loss.DEADLINE),)} | THERE, False),
        ({"level": Level.FULL} | THERE, False),
    ],
)
def test_a_slate_lost_its_shopper_by_a_loss_and_not_by_having_nothing_to_say(about, is_lost):
    assert lost_the_shopper(a_slate(1, **about)) == is_lost


def test_an_old_slate_is_better_than_one_that_lost_its_shopper_and_names_what_was_lost():
    computed = a_slate(9, level=Level.POPULAR, stages_ms=(("user", 1.0),), created_at=99.0, **LOST, **GONE)
    old = a_slate(1, 2, level=Level.STALE, watermark=3, from_cache=True)

    got = or_fallback(computed, old)

    assert got == changed(old, stages_ms=(("user", 1.0),), rung=Rung.STALE, **LOST, **GONE)


@pytest.mark.parametrize("fallback", [None, a_slate(1, 2)])
def test_what_still_knows_its_shopper_stands(fallback):
    computed = a_slate(9, level=Level.PARTIAL, **LOST, **THERE)

    assert or_fallback(computed, fallback) is computed


def test_without_an_old_one_a_slate_that_lost_its_shopper_is_the_answer():
    computed = a_slate(9, level=Level.POPULAR, **LOST, **GONE)

    assert or_fallback(computed, None) is computed


OTHER = {
    "placement": Placement.CART,
    "count": 11,
    "context_keys": (1,),
    "cart_keys": (1,),
    "category": "Toys",
    "device": "phone",
    "filter": ItemFilter(brands=("Alba",)),
    "exclude_keys": (1,),
    "only_keys": (1,),
    "exclude_seen": True,
    "diversity": Diversity.HIGH,
}
SAME = {"recommendation_id": "r2", "user_id": "u2", "visitor_id": "v", "session_id": "s", "explain": True}


def test_every_field_of_a_query_is_known_to_matter_or_not():
    assert {field.name for field in dataclasses.fields(Query)} == OTHER.keys() | SAME.keys()


@pytest.mark.parametrize("name", OTHER)
def test_whatever_changes_the_slate_changes_its_name(name):
    assert field_name(changed(a_query(), **{name: OTHER[name]}), "m") != field_name(a_query(), "m")


@pytest.mark.parametrize("name", SAME)
def test_whatever_does_not_change_the_slate_leaves_its_name(name):
    assert field_name(changed(a_query(), **{name: SAME[name]}), "m") == field_name(a_query(), "m")


def test_a_promoted_model_makes_old_names_unreachable():
    assert field_name(a_query(), "model 1") != field_name(a_query(), "model 2")


def test_the_order_in_which_things_were_looked_at_counts():
    assert field_name(a_query(context_keys=(1, 2)), "m") != field_name(a_query(context_keys=(2, 1)), "m")


def test_a_name_is_the_same_in_every_process():
    # Recorded once: a name that depended on hash randomisation would be a cache that never hits.
    assert field_name(a_query(), "m") == RECORDED


RECORDED = "3e7211d5224f6e75"

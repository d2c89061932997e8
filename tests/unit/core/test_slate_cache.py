"""When a remembered slate is served, and what its name depends on."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Diversity, ItemFilter, Level, Loss, Placement, Query
from orchestrator.core.slate_cache import (
    Compute,
    Serve,
    ServeAndRefresh,
    decide,
    field_name,
    may_remember,
    remember,
)
from tests.support.builders import a_query, a_slate, an_entry, changed


@pytest.mark.parametrize(
    ("now", "decision"),
    [(29.9, Serve), (30.0, Serve), (30.1, ServeAndRefresh), (100.0, ServeAndRefresh), (100.1, Compute)],
)
def test_fresh_is_served_stale_is_served_once_more_and_old_is_not(now, decision):
    entry = an_entry(fresh_until=30.0, stale_until=100.0)

    decided = decide(entry, now)

    assert type(decided) is decision
    if decision is not Compute:
        assert decided.slate == entry.slate


def test_nothing_remembered_is_computed():
    assert decide(None, 0.0) == Compute()


def test_a_full_slate_may_be_remembered():
    assert may_remember(a_slate(1, 2))


@pytest.mark.parametrize("level", [Level.PARTIAL, Level.STALE, Level.POPULAR])
def test_a_degraded_slate_would_outlive_its_fault_and_is_not_remembered(level):
    assert not may_remember(a_slate(1, level=level))


def test_neither_an_empty_slate_nor_one_from_the_cache_is_remembered():
    assert not may_remember(a_slate())
    assert not may_remember(a_slate(1, from_cache=True))


# Once: a slate computed while the cache was down was remembered, and said `degraded: cache` whenever it was served.
def test_a_slate_that_lost_the_cache_is_not_remembered_since_it_would_say_so_for_ever():
    slate = a_slate(1, degraded=("cache",), losses=(("cache", Loss.DEADLINE),))

    assert not may_remember(slate)


@given(now=st.floats(0, 1e10), fresh_s=st.floats(0.1, 1e5), stale_s=st.floats(0, 1e6), seed=st.integers(0, 50))
def test_entries_expire_within_a_tenth_of_the_wanted_moment(now, fresh_s, stale_s, seed):
    entry = remember(a_slate(1), now, fresh_s, stale_s, random.Random(seed))

    room = 1e-6 * max(1, now)
    assert 0.9 * fresh_s - room <= entry.fresh_until - now <= 1.1 * fresh_s + room
    assert entry.stale_until - entry.fresh_until == pytest.approx(stale_s, abs=room)


def test_entries_made_together_do_not_expire_together():
    rng = random.Random(1)

    assert len({remember(a_slate(1), 0.0, 30, 60, rng).fresh_until for _ in range(100)}) == 100


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

"""The contract of a SlateCache."""

import asyncio

import pytest

from orchestrator.core.model import Level, Loss, SlateItem, SourceReport
from orchestrator.core.slate_cache import Found
from orchestrator.ports import DependencyError
from tests.contract.candidate_source import TIMEOUT_S
from tests.support.builders import a_slate, an_entry, an_event

A_RICH_SLATE = a_slate(
    items=(SlateItem(7, 0.123456, ("a", "b"), 1.0), SlateItem(2, -3.5, ("popular",), 0.25), SlateItem(1, 0.0, ())),
    level=Level.PARTIAL,
    sources=(SourceReport("a", "ok", 12.5, 100, 3), SourceReport("b", "timeout", 40.0)),
    degraded=("b", "rerank"),
    losses=(("b", Loss.DEADLINE), ("rerank", Loss.SKEW)),
    model_versions=(("a", "0123456789ab"),),
    created_at=1_700_000_000.25,
    removed=(("sold_out", 2),),
    stages_ms=(("user", 1.5), ("retrieve", 40.0)),
    pinned=(1, 3),
    pool=(SlateItem(9, 0.5, ("b",)), SlateItem(0, 0.0, ("popular",))),
)
"""Every field set but `touched`, which nobody stores: what is forgotten in storage is forgotten for good."""

FAR = 4_000_000_000.0
"""Stale long after any wall clock of today: real stores expire entries by theirs."""


def entry_of(*keys, watermark=0):
    return an_entry(a_slate(*keys, watermark=watermark), FAR - 10, FAR)


async def entry_in(slates, subject="u:u1", field="f"):
    return (await slates.get(subject, field, TIMEOUT_S)).entry


class SlateCacheContract:
    """
    A subclass gives `slates`, `events`, an EventLog on the same store, `fail()`, `erase(subject)`, which deletes the
    subject's hash, and `end_of_leases()`, which lets as much time pass as a lease lives.
    """

    async def test_what_was_never_put_is_none(self, slates):
        assert await slates.get("u:u1", "f", TIMEOUT_S) == Found(None, 0)

    async def test_what_was_put_comes_back_whole(self, slates):
        entry = an_entry(A_RICH_SLATE, FAR - 10.5, FAR - 0.25, FAR, 0.0375)

        assert await slates.put("u:u1", "f", entry)

        assert await entry_in(slates) == entry

    async def test_putting_again_replaces(self, slates):
        await slates.put("u:u1", "f", entry_of(1))
        await slates.put("u:u1", "f", entry_of(2))

        assert await entry_in(slates) == entry_of(2)

    async def test_fields_and_subjects_are_kept_apart(self, slates):
        await slates.put("u:u1", "f", entry_of(1))
        await slates.put("u:u1", "g", entry_of(2))
        await slates.put("v:u1", "f", entry_of(3))

        found = [await entry_in(slates, *at) for at in (("u:u1", "f"), ("u:u1", "g"), ("v:u1", "f"))]

        assert found == [entry_of(1), entry_of(2), entry_of(3)]
        assert await entry_in(slates, "v:u1", "g") is None

    async def test_an_event_forgets_all_slates_of_its_shopper_and_of_no_other(self, slates, events):
        await slates.put("u:u1", "f", entry_of(1))
        await slates.put("u:u1", "g", entry_of(2))
        await slates.put("u:u2", "f", entry_of(3))

        await events.append([an_event("e1", subject="u:u1")])

        assert await entry_in(slates) is None
        assert await entry_in(slates, field="g") is None
        assert await entry_in(slates, "u:u2") == entry_of(3)

    async def test_a_slate_that_was_being_made_when_an_event_came_is_a_miss(self, slates, events):
        await events.append([an_event("e1"), an_event("e2")])

        await slates.put("u:u1", "f", entry_of(1, watermark=1))
        assert await slates.get("u:u1", "f", TIMEOUT_S) == Found(None, 2)

        await slates.put("u:u1", "f", entry_of(1, watermark=2))
        assert await slates.get("u:u1", "f", TIMEOUT_S) == Found(entry_of(1, watermark=2), 2)

    async def test_a_duplicate_event_forgets_nothing(self, slates, events):
        await events.append([an_event("e1")])
        await slates.put("u:u1", "f", entry_of(1, watermark=1))

        await events.append([an_event("e1")])

        assert await entry_in(slates) == entry_of(1, watermark=1)

    async def test_names_may_hold_any_character(self, slates):
        await slates.put("u:é:%s \n*", "f", entry_of(1))

        assert await entry_in(slates, "u:é:%s \n*") == entry_of(1)

    async def test_of_many_who_want_a_lease_one_gets_it(self, slates):
        tokens = await asyncio.gather(*(slates.lease("u:u1", "f") for _ in range(20)))

        assert sum(token is not None for token in tokens) == 1

    async def test_leases_of_other_fields_and_subjects_are_free(self, slates):
        places = [("u:u1", "f"), ("u:u1", "g"), ("u:u2", "f")]

        tokens = [await slates.lease(*place) for place in places]

        assert None not in tokens
        assert len(set(tokens)) == 3

    async def test_storing_under_a_lease_ends_it(self, slates):
        token = await slates.lease("u:u1", "f")

        assert await slates.put("u:u1", "f", entry_of(1), token)

        assert await entry_in(slates) == entry_of(1)
        assert not await slates.put("u:u1", "f", entry_of(2), token)
        assert await slates.lease("u:u1", "f") is not None

    async def test_a_lease_given_back_is_free_at_once(self, slates):
        await slates.release("u:u1", "f", await slates.lease("u:u1", "f"))

        assert await slates.lease("u:u1", "f") is not None

    async def test_storing_without_a_lease_leaves_the_lease_of_another(self, slates):
        token = await slates.lease("u:u1", "f")
        await slates.put("u:u1", "f", entry_of(1))

        assert await slates.lease("u:u1", "f") is None
        assert await slates.put("u:u1", "f", entry_of(2), token)

    # case 63: lease_holder_dies
    async def test_the_lease_of_a_holder_that_died_ends_by_itself(self, slates, end_of_leases):
        await slates.put("u:u1", "f", entry_of(1))
        assert await slates.lease("u:u1", "f") is not None
        assert await slates.lease("u:u1", "f") is None

        await end_of_leases()

        assert await slates.lease("u:u1", "f") is not None
        assert await entry_in(slates) == entry_of(1)

    # case 64: stale_set_blocked
    async def test_who_lost_the_lease_can_neither_store_nor_end_the_lease_of_the_next(self, slates, end_of_leases):
        slow = await slates.lease("u:u1", "f")
        await end_of_leases()
        next_one = await slates.lease("u:u1", "f")

        assert not await slates.put("u:u1", "f", entry_of(1), slow)
        await slates.release("u:u1", "f", slow)

        assert await entry_in(slates) is None
        assert await slates.lease("u:u1", "f") is None
        assert await slates.put("u:u1", "f", entry_of(2), next_one)
        assert await entry_in(slates) == entry_of(2)

    # case 64: stale_set_blocked, when nobody took the lease over
    async def test_a_lease_that_ran_out_is_lost_even_if_nobody_else_wanted_it(self, slates, end_of_leases):
        slow = await slates.lease("u:u1", "f")
        await end_of_leases()

        assert not await slates.put("u:u1", "f", entry_of(1), slow)

    async def test_an_event_ends_the_leases_of_its_shopper(self, slates, events):
        await slates.put("u:u1", "f", entry_of(1))
        token = await slates.lease("u:u1", "f")

        await events.append([an_event("e1")])

        assert not await slates.put("u:u1", "f", entry_of(2), token)
        assert await slates.lease("u:u1", "f") is not None

    async def test_nothing_is_stored_for_a_shopper_who_was_erased_meanwhile(self, slates, erase):
        await slates.put("u:u1", "f", entry_of(1))
        token = await slates.lease("u:u1", "f")

        await erase("u:u1")

        assert not await slates.put("u:u1", "f", entry_of(2), token)
        assert await entry_in(slates) is None

    async def test_a_failure_has_a_name(self, slates, fail):
        await fail()

        for call in (
            lambda: slates.get("u:u1", "f", TIMEOUT_S),
            lambda: slates.put("u:u1", "f", entry_of(1)),
            lambda: slates.lease("u:u1", "f"),
            lambda: slates.release("u:u1", "f", "token"),
        ):
            with pytest.raises(DependencyError) as failed:
                await call()
            assert failed.value.loss is Loss.UNAVAILABLE

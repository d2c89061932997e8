"""The contract of a SlateCache."""

import pytest

from orchestrator.core.model import Level, Loss, SlateItem, SourceReport
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
)
"""Every field set: what is forgotten in storage is forgotten for good."""

FAR = 4_000_000_000.0
"""Stale long after any wall clock of today: real stores expire entries by theirs."""


def entry_of(*keys, watermark=0):
    return an_entry(a_slate(*keys, watermark=watermark), FAR - 10, FAR)


class SlateCacheContract:
    """A subclass gives `slates`, `events`, an EventLog on the same store, and `fail()`."""

    async def test_what_was_never_put_is_none(self, slates):
        assert await slates.get("u:u1", "f", TIMEOUT_S) is None

    async def test_what_was_put_comes_back_whole(self, slates):
        entry = an_entry(A_RICH_SLATE, FAR - 10.5, FAR - 0.25)

        await slates.put("u:u1", "f", entry)

        assert await slates.get("u:u1", "f", TIMEOUT_S) == entry

    async def test_putting_again_replaces(self, slates):
        await slates.put("u:u1", "f", entry_of(1))
        await slates.put("u:u1", "f", entry_of(2))

        assert await slates.get("u:u1", "f", TIMEOUT_S) == entry_of(2)

    async def test_fields_and_subjects_are_kept_apart(self, slates):
        await slates.put("u:u1", "f", entry_of(1))
        await slates.put("u:u1", "g", entry_of(2))
        await slates.put("v:u1", "f", entry_of(3))

        found = [await slates.get(*at, TIMEOUT_S) for at in (("u:u1", "f"), ("u:u1", "g"), ("v:u1", "f"))]

        assert found == [entry_of(1), entry_of(2), entry_of(3)]
        assert await slates.get("v:u1", "g", TIMEOUT_S) is None

    async def test_an_event_forgets_all_slates_of_its_shopper_and_of_no_other(self, slates, events):
        await slates.put("u:u1", "f", entry_of(1))
        await slates.put("u:u1", "g", entry_of(2))
        await slates.put("u:u2", "f", entry_of(3))

        await events.append([an_event("e1", subject="u:u1")])

        assert await slates.get("u:u1", "f", TIMEOUT_S) is None
        assert await slates.get("u:u1", "g", TIMEOUT_S) is None
        assert await slates.get("u:u2", "f", TIMEOUT_S) == entry_of(3)

    async def test_a_slate_that_was_being_made_when_an_event_came_is_a_miss(self, slates, events):
        await events.append([an_event("e1"), an_event("e2")])

        await slates.put("u:u1", "f", entry_of(1, watermark=1))
        assert await slates.get("u:u1", "f", TIMEOUT_S) is None

        await slates.put("u:u1", "f", entry_of(1, watermark=2))
        assert await slates.get("u:u1", "f", TIMEOUT_S) == entry_of(1, watermark=2)

    async def test_a_duplicate_event_forgets_nothing(self, slates, events):
        await events.append([an_event("e1")])
        await slates.put("u:u1", "f", entry_of(1, watermark=1))

        await events.append([an_event("e1")])

        assert await slates.get("u:u1", "f", TIMEOUT_S) == entry_of(1, watermark=1)

    async def test_names_may_hold_any_character(self, slates):
        await slates.put("u:é:%s \n*", "f", entry_of(1))

        assert await slates.get("u:é:%s \n*", "f", TIMEOUT_S) == entry_of(1)

    async def test_a_failure_has_a_name(self, slates, fail):
        await fail()

        with pytest.raises(DependencyError) as failed:
            await slates.get("u:u1", "f", TIMEOUT_S)
        assert failed.value.loss is Loss.UNAVAILABLE
        with pytest.raises(DependencyError) as failed:
            await slates.put("u:u1", "f", entry_of(1))
        assert failed.value.loss is Loss.UNAVAILABLE

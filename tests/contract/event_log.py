"""The contract of an EventLog."""

import pytest

from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from protos.history import MAX_ENTRIES
from tests.support.builders import IMPRESSION, PURCHASE, VIEW, an_event


class EventLogContract:
    """
    A subclass gives `events`, `fail()`, and what is needed to look behind it: `history(subject)` and
    `impressions(subject)`, newest first as (key, type, at_us), and `logged()`, the bodies in the order they were taken.
    """

    async def test_a_new_event_is_taken_and_counts(self, events, history, logged):
        taken = await events.append([an_event("e1", key=3, type_code=PURCHASE, at_us=5, body=b'{"a":1}')])

        assert list(taken) == [True]
        assert await history("u:u1") == [(3, PURCHASE, 5)]
        assert await events.watermark("u:u1") == 1
        assert await logged() == [b'{"a":1}']

    async def test_an_event_seen_before_changes_nothing(self, events, history, logged):
        await events.append([an_event("e1", key=3)])

        taken = await events.append([an_event("e1", key=4, subject="u:u2")])

        assert list(taken) == [False]
        assert len(await history("u:u1")) == 1
        assert await history("u:u2") == []
        assert await events.watermark("u:u1") == 1
        assert await events.watermark("u:u2") == 0
        assert len(await logged()) == 1

    async def test_a_batch_is_taken_in_order_and_duplicates_inside_it_once(self, events, history, logged):
        batch = [an_event(f"e{n}", key=n, at_us=n, body=f"{n}".encode()) for n in (1, 2, 1, 3)]

        taken = await events.append(batch)

        assert list(taken) == [True, True, False, True]
        assert await history("u:u1") == [(3, VIEW, 3), (2, VIEW, 2), (1, VIEW, 1)]
        assert await events.watermark("u:u1") == 3
        assert await logged() == [b"1", b"2", b"3"]

    async def test_an_empty_batch_is_no_event(self, events, logged):
        assert list(await events.append([])) == []
        assert await logged() == []

    async def test_an_event_of_nobody_is_logged_only(self, events, logged):
        assert list(await events.append([an_event("e1", subject=None)])) == [True]

        assert len(await logged()) == 1
        assert await events.watermark("") == 0

    async def test_an_event_without_an_item_counts_and_stays_out_of_the_history(self, events, history, logged):
        await events.append([an_event("e1", key=None)])

        assert await history("u:u1") == []
        assert await events.watermark("u:u1") == 1
        assert len(await logged()) == 1

    async def test_item_key_zero_is_an_item(self, events, history):
        await events.append([an_event("e1", key=0)])

        assert [key for key, _, _ in await history("u:u1")] == [0]

    async def test_a_late_event_goes_to_its_place_and_not_to_the_front(self, events, history):
        for n, at_us in enumerate((10, 30, 20, 5)):
            await events.append([an_event(f"e{n}", key=n, at_us=at_us)])

        assert [at for _, _, at in await history("u:u1")] == [30, 20, 10, 5]
        assert await events.watermark("u:u1") == 4

    async def test_an_event_older_than_a_full_history_counts_and_changes_nothing_in_it(self, events, history):
        await events.append([an_event(f"e{n}", key=n, at_us=1_000 + n) for n in range(MAX_ENTRIES)])

        assert list(await events.append([an_event("late", key=7, at_us=1)])) == [True]

        assert [at for _, _, at in await history("u:u1")] == list(range(1_000 + MAX_ENTRIES - 1, 999, -1))
        assert await events.watermark("u:u1") == MAX_ENTRIES + 1

    async def test_moments_of_any_year_keep_their_order(self, events, history):
        moments = [0, 255, 256, 65_536, 2**32, 1_800_000_000_000_000, 1_800_000_000_000_001, 9_000_000_000_000_000]
        shuffled = [moments[i] for i in (3, 6, 0, 7, 5, 1, 4, 2)]

        await events.append([an_event(f"e{at}", at_us=at) for at in shuffled])

        assert [at for _, _, at in await history("u:u1")] == moments[::-1]

    async def test_it_says_in_words_how_durable_it_is(self, events):
        assert await events.durability()

    async def test_shoppers_are_kept_apart(self, events, history):
        await events.append([an_event("e1", subject="u:1", key=1), an_event("e2", subject="v:1", key=2)])

        assert [key for key, _, _ in await history("u:1")] == [1]
        assert [key for key, _, _ in await history("v:1")] == [2]

    async def test_the_history_keeps_the_newest_entries_and_the_watermark_counts_all(self, events, history):
        n = MAX_ENTRIES + 5
        taken = await events.append([an_event(f"e{i}", key=i) for i in range(n)])

        assert list(taken) == [True] * n
        assert [key for key, _, _ in await history("u:u1")] == list(range(n - 1, n - 1 - MAX_ENTRIES, -1))
        assert await events.watermark("u:u1") == n

    async def test_impressions_are_kept_apart_so_that_they_push_nothing_out(self, events, history, impressions):
        await events.append([an_event("e0", key=7, type_code=PURCHASE, at_us=1)])
        n = MAX_ENTRIES + 5
        shown = [an_event(f"i{i}", key=i, type_code=IMPRESSION, at_us=i) for i in range(n)]

        assert list(await events.append(shown)) == [True] * n

        assert await history("u:u1") == [(7, PURCHASE, 1)]
        assert await impressions("u:u1") == [(i, IMPRESSION, i) for i in range(n - 1, n - 1 - MAX_ENTRIES, -1)]
        assert await events.watermark("u:u1") == n + 1, "an impression is an event like any other"

    async def test_the_largest_batch_of_the_api_is_taken_whole(self, events, logged):
        taken = await events.append([an_event(f"e{i}", subject=f"u:{i}") for i in range(500)])

        assert list(taken) == [True] * 500
        assert len(await logged()) == 500

    async def test_ids_and_bodies_may_hold_any_bytes(self, events, logged):
        assert list(await events.append([an_event("é \n'\"]]--", body=b"\x00\xff]]'")])) == [True]

        assert await logged() == [b"\x00\xff]]'"]

    async def test_of_an_unknown_shopper_nothing_was_accepted(self, events):
        assert await events.watermark("u:never") == 0

    async def test_a_failure_has_a_name(self, events, fail):
        await fail()

        with pytest.raises(DependencyError) as failed:
            await events.append([an_event("e1")])
        assert failed.value.loss is Loss.UNAVAILABLE
        with pytest.raises(DependencyError) as failed:
            await events.watermark("u:u1")
        assert failed.value.loss is Loss.UNAVAILABLE

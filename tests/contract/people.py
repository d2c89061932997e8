"""The contract of People."""

import pytest

from orchestrator.core.model import Loss
from orchestrator.core.people import Deed
from orchestrator.ports import DependencyError
from protos.history import MAX_ENTRIES
from tests.contract.candidate_source import TIMEOUT_S
from tests.contract.slate_cache import entry_of
from tests.support.builders import IMPRESSION, PURCHASE, VIEW, an_event

FEATURES = {"taste__a": 1.5, "taste__b": None, "taste__c": "gold"}
NOTHING = (0, 0, 0, 0, 0, 0)


def numbers(erased):
    return erased.features, erased.history, erased.shown, erased.slates, erased.watermark, erased.identities


class PeopleContract:
    """
    A subclass gives `people`, `events` and `slates` on one store, `know(user_id, features)`, `fail()`, `redactions()`:
    what is left for ingestion, as (user id or "", visitor ids), and `everywhere()`: every key and value, as one text.
    """

    async def keys(self, people, subject):
        return [entry.key for entry in (await people.held(subject)).history]

    # Merging.

    async def test_what_a_guest_did_is_the_users_after_log_in(self, people, events):
        await events.append([an_event("e1", subject="v:v1", key=1, at_us=10), an_event("e2", key=2, at_us=20)])
        await events.append([an_event("e3", subject="v:v1", key=3, at_us=30, type_code=IMPRESSION)])

        merged = await people.merge("v1", "u1")

        held = await people.held("u:u1")
        assert (merged.is_new, merged.moved) == (True, 2)
        assert held.history == (Deed(2, VIEW, 20), Deed(1, VIEW, 10))
        assert held.shown == (Deed(3, IMPRESSION, 30),)
        assert held.visitor_ids == ("v1",)
        assert merged.watermark == held.watermark > 2

    async def test_a_merged_visitor_has_no_history_and_says_whose_it_is(self, people, events):
        await events.append([an_event("e1", subject="v:v1")])

        await people.merge("v1", "u1")

        held = await people.held("v:v1")
        assert (held.history, held.shown, held.slates, held.user_id) == ((), (), (), "u1")

    async def test_the_same_merge_again_changes_nothing(self, people, events):
        await events.append([an_event("e1", subject="v:v1")])
        first = await people.merge("v1", "u1")
        before = await people.held("u:u1")

        again = await people.merge("v1", "u1")

        assert (again.is_new, again.moved, again.watermark) == (False, 0, first.watermark)
        assert await people.held("u:u1") == before

    async def test_what_arrives_of_a_merged_visitor_is_the_users(self, people, events):
        merged = await people.merge("v1", "u1")

        await events.append([an_event("e1", subject="v:v1", key=8, type_code=PURCHASE, at_us=5)])

        assert await self.keys(people, "u:u1") == [8]
        assert await self.keys(people, "v:v1") == []
        assert await events.watermark("u:u1") == merged.watermark + 1

    async def test_merging_somebody_of_whom_nothing_is_known_is_no_error(self, people):
        merged = await people.merge("nobody", "u9")

        assert (merged.is_new, merged.moved) == (True, 0)
        assert (await people.held("u:u9")).history == ()

    async def test_neither_number_goes_back_when_two_become_one(self, people, events):
        await events.append([an_event(f"v{n}", subject="v:v1") for n in range(5)])
        await events.append([an_event(f"u{n}") for n in range(2)])

        await people.merge("v1", "u1")

        visitor, user = await events.watermark("v:v1"), await events.watermark("u:u1")
        assert visitor > 5
        assert user >= 7
        await events.append([an_event("later", subject="v:v1")])
        assert await events.watermark("v:v1") == visitor + 1
        assert await events.watermark("u:u1") == user + 1
        assert user >= visitor, "who sends events as a visitor and asks as a user sees them counted"

    async def test_slates_of_both_are_forgotten_also_those_under_way(self, people, slates):
        for subject in ("u:u1", "v:v1"):
            await slates.put(subject, "f", entry_of(1))

        await people.merge("v1", "u1")
        for subject in ("u:u1", "v:v1"):
            await slates.put(subject, "f", entry_of(1))

        for subject in ("u:u1", "v:v1"):
            assert (await slates.get(subject, "f", TIMEOUT_S)).entry is None

    async def test_a_full_history_keeps_the_newest_of_both(self, people, events):
        await events.append([an_event(f"v{n}", subject="v:v1", key=1, at_us=2 * n) for n in range(MAX_ENTRIES)])
        await events.append([an_event(f"u{n}", key=2, at_us=2 * n + 1) for n in range(MAX_ENTRIES)])

        merged = await people.merge("v1", "u1")

        held = await people.held("u:u1")
        assert merged.moved == MAX_ENTRIES
        assert [deed.at_us for deed in held.history] == list(range(2 * MAX_ENTRIES - 1, MAX_ENTRIES - 1, -1))

    async def test_a_browser_that_becomes_anothers_takes_nothing_along(self, people, events):
        await events.append([an_event("e1", subject="v:v1", key=1)])
        await people.merge("v1", "u1")

        merged = await people.merge("v1", "u2")
        await events.append([an_event("e2", subject="v:v1", key=2)])

        assert (merged.is_new, merged.moved) == (True, 0)
        assert await self.keys(people, "u:u1") == [1]
        assert await self.keys(people, "u:u2") == [2]
        assert await events.watermark("u:u2") >= await events.watermark("v:v1")

    # Showing.

    async def test_everything_that_is_held_is_shown(self, people, events, slates, know):
        await know("u1", FEATURES)
        await events.append([an_event("e1", key=3, type_code=PURCHASE, at_us=5)])
        await slates.put("u:u1", "f", entry_of(1, 2))

        held = await people.held("u:u1")

        assert dict(held.features) == FEATURES
        assert held.history == (Deed(3, PURCHASE, 5),)
        assert held.watermark == 1
        assert [slate.keys for slate in held.slates] == [(1, 2)]

    async def test_of_somebody_unknown_nothing_is_held(self, people):
        for subject in ("u:never", "v:never"):
            held = await people.held(subject)
            assert (dict(held.features), held.history, held.shown, held.watermark) == ({}, (), (), 0)
            assert (held.visitor_ids, held.user_id, held.slates) == ((), None, ())

    async def test_a_user_and_a_visitor_of_one_id_are_two(self, people, events, know):
        await know("x", FEATURES)
        await events.append([an_event("e1", subject="u:x", key=1), an_event("e2", subject="v:x", key=2)])

        await people.erase("v:x")

        assert await self.keys(people, "u:x") == [1]
        assert dict((await people.held("u:x")).features) == FEATURES

    # Erasing.

    async def test_an_erased_user_leaves_nothing_but_the_order_to_redact(
        self, people, events, slates, know, redactions, everywhere
    ):
        await know("erika", FEATURES)
        about = {"subject": "v:browser", "body": b"{}"}
        await events.append([an_event("e1", **about), an_event("e2", type_code=IMPRESSION, **about)])
        await people.merge("browser", "erika")
        await events.append([an_event("e3", subject="u:erika", body=b"{}")])
        await slates.put("u:erika", "f", entry_of(1))

        erased = await people.erase("u:erika")

        assert numbers(erased)[:4] == (1, 2, 1, 1)
        assert erased.watermark > 0
        assert erased.identities == 1
        assert await redactions() == [("erika", ("browser",))]
        text = await everywhere()
        assert "erika" not in text
        assert "browser" not in text

    async def test_erasing_again_is_harmless(self, people, events, redactions):
        await events.append([an_event("e1")])
        await people.erase("u:u1")

        again = await people.erase("u:u1")

        assert numbers(again) == NOTHING
        assert again.redaction
        assert len(await redactions()) == 2, "the log may hold what Redis has forgotten"

    async def test_who_comes_back_is_somebody_new(self, people, events, know):
        await know("u1", FEATURES)
        await events.append([an_event("e1", key=1)])
        await people.merge("v1", "u1")
        await people.erase("u:u1")

        await events.append([an_event("e2", key=2), an_event("e3", key=3, subject="v:v1")])

        held = await people.held("u:u1")
        assert [deed.key for deed in held.history] == [2]
        assert (dict(held.features), held.watermark, held.visitor_ids) == ({}, 1, ())
        assert await self.keys(people, "v:v1") == [3]

    async def test_an_erased_visitor_is_forgotten_and_no_longer_the_users(self, people, events, redactions):
        await events.append([an_event("e1", subject="v:v1")])
        await people.merge("v1", "u1")

        erased = await people.erase("v:v1")

        assert erased.identities == 1
        assert (await people.held("u:u1")).visitor_ids == ()
        assert len((await people.held("u:u1")).history) == 1, "what was merged is the user's"
        assert await redactions() == [("", ("v1",))]
        await events.append([an_event("e2", subject="v:v1", key=9)])
        assert await self.keys(people, "v:v1") == [9]

    async def test_a_browser_that_is_anothers_by_now_stays_theirs(self, people, events):
        await people.merge("v1", "u1")
        await people.merge("v1", "u2")

        await people.erase("u:u1")
        await events.append([an_event("e1", subject="v:v1", key=4)])

        assert await self.keys(people, "u:u2") == [4]

    async def test_ids_may_hold_whatever_ids_may_hold(self, people, events, redactions):
        odd = "é %s]]--'\"\\n:*"
        await events.append([an_event("e1", subject=f"v:{odd}", key=1)])

        await people.merge(odd, odd)

        assert await self.keys(people, f"u:{odd}") == [1]
        assert (await people.held(f"u:{odd}")).visitor_ids == (odd,)
        await people.erase(f"u:{odd}")
        assert await redactions() == [(odd, (odd,))]

    async def test_a_failure_has_a_name(self, people, fail):
        await fail()

        for call in (people.merge("v1", "u1"), people.erase("u:u1"), people.held("u:u1")):
            with pytest.raises(DependencyError) as failed:
                await call
            assert failed.value.loss is Loss.UNAVAILABLE

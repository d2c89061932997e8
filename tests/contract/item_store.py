"""The contract of an ItemStore."""

import asyncio

import pytest

from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from protos.catalogue import NO_KEY, Verdict, Wish

MUG = {"title": "Mug", "price": 5.0}
POT = {"title": "Pot", "attributes": {"colour": "räd", "size": 3}}


class ItemStoreContract:
    """A subclass gives `items`, `fail()` and `told()`: the (item id, version, document) of every entry, in order."""

    async def change(self, items, *wishes):
        return [(outcome.verdict, outcome.state) for outcome in await items.change(wishes)]

    async def test_a_change_is_taken_numbered_read_back_and_told(self, items, told):
        ((verdict, state),) = await self.change(items, Wish("mug", MUG, key=3))

        assert verdict is Verdict.TAKEN
        assert (state.item_id, state.version, state.key, state.document) == ("mug", 1, 3, MUG)
        assert await items.read("mug") == state
        assert await told() == [("mug", 1, MUG)]

    async def test_what_nobody_changed_is_not_there(self, items):
        assert await items.read("mug") is None

    async def test_versions_number_all_changes_without_gaps(self, items, told):
        outcomes = await self.change(items, Wish("a", MUG), Wish("b", POT), Wish("a", POT), Wish("a", None))

        assert [state.version for _, state in outcomes] == [1, 2, 3, 4]
        assert [entry[:2] for entry in await told()] == [("a", 1), ("b", 2), ("a", 3), ("a", 4)]

    async def test_a_deleted_item_is_a_tombstone(self, items, told):
        outcomes = await self.change(items, Wish("mug", MUG), Wish("mug", None))

        assert [verdict for verdict, _ in outcomes] == [Verdict.TAKEN, Verdict.TAKEN]
        assert (await items.read("mug")).document is None
        assert (await told())[-1] == ("mug", 2, None)

    async def test_deleting_again_changes_nothing(self, items, told):
        outcomes = await self.change(items, Wish("mug", None, key=1), Wish("mug", None, key=1))

        assert [verdict for verdict, _ in outcomes] == [Verdict.TAKEN, Verdict.SAME]
        assert len(await told()) == 1

    async def test_deleting_what_nobody_knows_leaves_no_trace(self, items, told):
        assert await self.change(items, Wish("junk", None)) == [(Verdict.SAME, None)]
        assert await items.read("junk") is None
        assert await told() == []

    async def test_a_key_that_somebody_knew_stays_with_the_item(self, items):
        await self.change(items, Wish("mug", MUG, key=7), Wish("mug", POT), Wish("pot", POT), Wish("pot", MUG, key=8))

        assert (await items.read("mug")).key == 7
        assert (await items.read("pot")).key == 8
        assert [one.key for one in [(await self.change(items, Wish("new", MUG)))[0][1]]] == [NO_KEY]

    async def test_a_change_that_expects_another_version_is_refused_and_told_the_present_one(self, items, told):
        await self.change(items, Wish("mug", MUG))

        ((verdict, state),) = await self.change(items, Wish("mug", POT, expected=0))

        assert verdict is Verdict.STALE
        assert (state.version, state.document) == (1, MUG)
        assert len(await told()) == 1

    async def test_what_was_never_changed_has_version_0(self, items):
        assert (await self.change(items, Wish("mug", MUG, expected=1))) == [(Verdict.STALE, None)]

        ((verdict, _),) = await self.change(items, Wish("mug", MUG, expected=0))

        assert verdict is Verdict.TAKEN

    async def test_of_many_who_expect_the_same_version_one_wins(self, items):
        outcomes = await asyncio.gather(*(items.change([Wish("mug", {"title": f"{n}"}, expected=0)]) for n in range(8)))

        verdicts = [outcome.verdict for (outcome,) in outcomes]
        assert verdicts.count(Verdict.TAKEN) == 1
        assert verdicts.count(Verdict.STALE) == 7

    async def test_nothing_wished_is_nothing_done(self, items, told):
        assert list(await items.change([])) == []
        assert await told() == []

    async def test_many_wishes_are_answered_in_their_order(self, items):
        wishes = [Wish(f"i{n}", {"title": f"{n}"}) for n in range(250)]

        outcomes = await items.change(wishes)

        assert [outcome.state.item_id for outcome in outcomes] == [wish.item_id for wish in wishes]
        assert [outcome.state.version for outcome in outcomes] == list(range(1, 251))

    async def test_a_store_that_is_away_is_a_loss_with_a_name(self, items, fail):
        await fail()

        for call in (items.change([Wish("mug", MUG)]), items.read("mug")):
            with pytest.raises(DependencyError) as lost:
                await call
            assert lost.value.loss is Loss.UNAVAILABLE

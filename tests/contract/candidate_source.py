"""The contract of a CandidateSource."""

import asyncio

import numpy as np
import pytest

from orchestrator.core.model import Ask, Loss, Placement
from orchestrator.ports import DependencyError
from tests.support.builders import a_query, a_user

TIMEOUT_S = 5.0
"""Far more than a call takes: no test here is about time."""


def an_ask(count=10, exclude=(), within=None):
    return Ask(count, np.asarray(exclude, np.int32), None if within is None else np.asarray(within, np.int32))


class CandidateSourceContract:
    """
    A subclass gives `source`, which proposes 9, 8 … 0 to whoever has a history or a context, `fail(loss)`, which makes
    it fail, and `hang()`, after which it never answers.
    """

    @staticmethod
    async def asked(source, *, history=(1,), ask=None, **about):
        return await source.retrieve(a_query(**about), a_user(history), ask or an_ask(), TIMEOUT_S)

    async def test_it_has_a_name(self, source):
        assert source.name == "toy"

    async def test_it_proposes_best_first_with_aligned_falling_scores(self, source):
        found = await self.asked(source)

        assert found.keys.tolist() == list(range(9, -1, -1))
        assert found.keys.dtype == np.int32
        assert found.scores.dtype == np.float32
        assert len(found.scores) == len(found.keys)
        assert np.isfinite(found.scores).all()
        assert (np.diff(found.scores) <= 0).all()
        assert found.model_version

    async def test_it_proposes_no_more_than_it_was_asked_for(self, source):
        assert (await self.asked(source, ask=an_ask(3))).keys.tolist() == [9, 8, 7]

    async def test_it_leaves_out_what_is_excluded(self, source):
        assert (await self.asked(source, ask=an_ask(3, exclude=[9, 7, 55]))).keys.tolist() == [8, 6, 5]

    async def test_it_proposes_only_what_is_within(self, source):
        assert (await self.asked(source, ask=an_ask(within=[2, 4, 77]))).keys.tolist() == [4, 2]

    async def test_excluded_wins_over_within(self, source):
        assert (await self.asked(source, ask=an_ask(exclude=[4], within=[2, 4]))).keys.tolist() == [2]

    async def test_within_a_key_that_nobody_has_there_is_nothing(self, source):
        assert (await self.asked(source, ask=an_ask(within=[-1]))).keys.tolist() == []

    async def test_for_a_shopper_it_knows_nothing_of_it_proposes_nothing_and_does_not_fail(self, source):
        found = await self.asked(source, history=())

        assert found.keys.tolist() == []
        assert len(found.scores) == 0

    async def test_a_context_is_enough(self, source):
        found = await self.asked(source, history=(), placement=Placement.ITEM, context_keys=(5,))

        assert len(found.keys) == 10

    @pytest.mark.parametrize("loss", [Loss.UNAVAILABLE, Loss.DEADLINE, Loss.OVERLOADED, Loss.ERROR, Loss.SKEW])
    async def test_a_failure_has_a_name(self, source, fail, loss):
        fail(loss)

        with pytest.raises(DependencyError) as failed:
            await self.asked(source)

        assert failed.value.loss is loss

    async def test_it_can_be_given_up_and_asked_again(self, source, hang):
        let_go = hang()
        task = asyncio.create_task(self.asked(source))
        await asyncio.sleep(0)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        let_go()
        assert len((await self.asked(source)).keys) == 10

    async def test_callers_do_not_get_each_others_answers(self, source):
        asks = [an_ask(count, exclude=[count]) for count in range(1, 10)]

        answers = await asyncio.gather(*(self.asked(source, ask=ask) for ask in asks))

        for count, found in zip(range(1, 10), answers, strict=True):
            assert found.keys.tolist() == [key for key in range(9, -1, -1) if key != count][:count]

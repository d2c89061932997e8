"""The contract of a Reranker."""

import asyncio

import numpy as np
import pytest

from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from tests.contract.candidate_source import TIMEOUT_S
from tests.support.builders import a_query, a_user, candidates_of, keys_of


class RerankerContract:
    """A subclass gives `reranker`, which scores an item by its key, and `fail(loss)`."""

    @staticmethod
    async def asked(reranker, candidates):
        user = a_user((1, 2), numeric=(0.5, np.nan), categorical=("a",))
        return await reranker.rerank(a_query(), user, candidates, TIMEOUT_S)

    async def test_it_gives_one_finite_score_a_candidate_in_the_candidates_order(self, reranker):
        candidates = candidates_of({"a": [5, 30, 7], "b": [7, 2]})

        reranked = await self.asked(reranker, candidates)

        assert reranked.scores.tolist() == [float(key) for key in keys_of(candidates)]
        assert reranked.scores.dtype == np.float32
        assert reranked.model_version

    async def test_it_leaves_the_candidates_as_they_are(self, reranker):
        candidates = candidates_of({"a": [5, 30, 7], "b": [7, 2]})
        before = (candidates.keys.copy(), candidates.scores.copy(), candidates.source_ranks.copy())

        await self.asked(reranker, candidates)

        after = (candidates.keys, candidates.scores, candidates.source_ranks)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("loss", [Loss.UNAVAILABLE, Loss.DEADLINE, Loss.OVERLOADED, Loss.ERROR, Loss.SKEW])
    async def test_a_failure_has_a_name(self, reranker, fail, loss):
        fail(loss)

        with pytest.raises(DependencyError) as failed:
            await self.asked(reranker, candidates_of({"a": [1]}))

        assert failed.value.loss is loss

    async def test_callers_do_not_get_each_others_scores(self, reranker):
        questions = [candidates_of({"a": range(n, n + 3)}) for n in range(10)]

        answers = await asyncio.gather(*(self.asked(reranker, candidates) for candidates in questions))

        for candidates, reranked in zip(questions, answers, strict=True):
            assert reranked.scores.tolist() == [float(key) for key in keys_of(candidates)]

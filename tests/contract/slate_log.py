"""The contract of a SlateLog."""

import numpy as np

from orchestrator.core.model import Asked, Reranked, SlateItem
from protos.slate_log import MADE, SERVED, made_row, served_row
from tests.support.builders import a_query, a_slate, a_user, candidates_of, changed


def asked_about(*keys, user=None):
    """What the re-ranker was asked about *keys* of two sources, and said: the key is the score."""
    candidates = candidates_of({"cf": list(keys), "cb": list(keys[::-1])})
    user = user or a_user((1, 2), numeric=(0.5, np.nan), categorical=("a",))
    return Asked(user, candidates, Reranked(candidates.keys.astype(np.float32), "reranker-1"))


class SlateLogContract:
    """A subclass gives `slate_log(share)`, `messages()` (kind, bytes) in order, `lose()` and `lost()`."""

    async def rows(self, messages, kind):
        read = {SERVED: served_row, MADE: made_row}[kind]
        return [read(raw) for of, raw in await messages() if of == kind]

    async def test_an_answer_is_written_slot_by_slot_with_its_propensities(self, slate_log, messages):
        query = a_query(recommendation_id="r7", visitor_id="v1", session_id="s1")
        items = (SlateItem(3, 0.75, ("cf", "cb"), 0.9), SlateItem(5, 0.5, ("popular",), 0.1))
        slate = changed(a_slate(), items=items, made_as="r6", from_cache=True, pinned=(2,))

        slate_log(1.0).served(query, slate)

        (row,) = await self.rows(messages, SERVED)
        assert (row["recommendation_id"], row["made_as"], row["from_cache"]) == ("r7", "r6", True)
        assert (row["user_id"], row["visitor_id"], row["session_id"]) == ("u1", "v1", "s1")
        assert row["keys"].tolist() == [3, 5]
        assert row["scores"].tolist() == [0.75, 0.5]
        assert row["propensities"].tolist() == [0.9, 0.1]
        assert row["sources"] == ["cf+cb", "popular"]
        assert row["pinned"].tolist() == [2]
        assert row["model_versions"] == [("s", "v1")]

    async def test_what_was_asked_is_written_as_it_was_asked_with_what_was_said(self, slate_log, messages):
        asked = asked_about(5, 9, 2)
        slate = changed(a_slate(9, 5), made_as="r1")

        slate_log(1.0).made(a_query(), asked, slate)

        (row,) = await self.rows(messages, MADE)
        assert (row["made_as"], row["user_id"], row["model_version"]) == ("r1", "u1", "reranker-1")
        np.testing.assert_array_equal(row["scores"], asked.answer.scores)
        assert row["item_keys"].tolist() == [9, 5]
        assert len(row["asked"]) > 0

    async def test_an_answer_to_nobody_is_written_too(self, slate_log, messages):
        slate_log(1.0).served(a_query(user_id=None), a_slate(1))

        (row,) = await self.rows(messages, SERVED)
        assert (row["user_id"], row["visitor_id"], row["made_as"]) == (None, None, None)

    async def test_a_share_is_of_computations_with_all_answers_made_of_them(self, slate_log, messages):
        log = slate_log(0.3)
        for number in range(200):
            slate = changed(a_slate(1, 2), made_as=f"made-{number}")
            log.made(a_query(recommendation_id=f"made-{number}"), asked_about(1, 2), slate)
            for again in range(2):
                log.served(a_query(recommendation_id=f"again-{number}-{again}"), slate)

        made = [row["made_as"] for row in await self.rows(messages, MADE)]
        served = [row["made_as"] for row in await self.rows(messages, SERVED)]

        assert 30 <= len(made) <= 90
        assert served == [one for one in made for _ in range(2)]

    async def test_what_is_lost_is_counted_and_raises_nothing(self, slate_log, messages, lose, lost):
        log = slate_log(1.0)
        await lose()

        log.served(a_query(), a_slate(1))
        log.made(a_query(), asked_about(1), changed(a_slate(1), made_as="r1"))

        assert await lost() == 2

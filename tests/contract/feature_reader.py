"""The contract of a FeatureReader."""

import numpy as np
import pytest

from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from tests.contract.candidate_source import TIMEOUT_S
from tests.support.builders import ADD_TO_CART, IMPRESSION, PURCHASE, VIEW, a_query, an_event


class FeatureReaderContract:
    """
    A subclass gives `reader` with the columns (numeric a, numeric b, categorical c), `events`, an EventLog on the same
    store, `know(user_id, a, b, c)`, which stores features (None: missing), and `fail()`, after which it is unavailable.
    """

    @staticmethod
    async def of(reader, **about):
        return await reader.read(a_query(**about), TIMEOUT_S)

    @staticmethod
    def assert_cold(user):
        assert np.isnan(user.numeric).tolist() == [True, True]
        assert user.categorical == ("",)
        assert len(user.history_keys) == len(user.history_types) == len(user.history_at_us) == 0
        assert user.watermark == 0

    def test_it_knows_its_columns(self, reader):
        assert (reader.n_numeric, reader.n_categorical) == (2, 1)

    async def test_of_nobody_nothing_is_known(self, reader):
        self.assert_cold(await self.of(reader, user_id=None))

    async def test_an_unknown_shopper_is_cold_and_no_error(self, reader):
        self.assert_cold(await self.of(reader, user_id="never seen"))

    async def test_history_is_oldest_first_with_types_and_moments(self, reader, events):
        for n, type_code in enumerate([VIEW, ADD_TO_CART, PURCHASE]):
            await events.append([an_event(f"e{n}", key=10 + n, type_code=type_code, at_us=1_000_000 * n)])

        user = await self.of(reader)

        assert user.history_keys.tolist() == [10, 11, 12]
        assert user.history_types.tolist() == [VIEW, ADD_TO_CART, PURCHASE]
        assert user.history_at_us.tolist() == [0, 1_000_000, 2_000_000]
        assert user.history_keys.dtype == np.int32
        assert user.history_types.dtype == np.uint8
        assert user.history_at_us.dtype == np.int64
        assert user.watermark == 3

    async def test_what_was_shown_and_what_was_done_are_one_history_in_the_order_of_time(self, reader, events):
        done = [an_event("d1", key=1, at_us=10), an_event("d2", key=2, type_code=PURCHASE, at_us=30)]
        shown = [an_event(f"s{at}", key=at, type_code=IMPRESSION, at_us=at) for at in (5, 10, 40)]
        await events.append([*shown, *done])

        user = await self.of(reader)

        assert user.history_keys.tolist() == [5, 10, 1, 2, 40], "of one moment, first it is shown and then touched"
        assert user.history_types.tolist() == [IMPRESSION, IMPRESSION, VIEW, PURCHASE, IMPRESSION]
        assert user.history_at_us.tolist() == [5, 10, 10, 30, 40]
        assert user.history_at_us.flags.c_contiguous

    async def test_a_shopper_is_read_as_of_a_moment_not_before_their_newest_event(self, reader, events):
        await events.append([an_event("e1", at_us=1_700_000_000_000_000)])

        assert (await self.of(reader)).as_of_us >= 1_700_000_000_000_000

    async def test_features_are_read_in_the_plans_order(self, reader, know):
        await know("u1", 1.5, -2.0, "gold")

        user = await self.of(reader)

        assert user.numeric.tolist() == [1.5, -2.0]
        assert user.numeric.dtype == np.float32
        assert user.categorical == ("gold",)

    async def test_features_without_history_and_history_without_features_are_both_possible(self, reader, know, events):
        await know("u2", 1.0, 2.0, "x")
        await events.append([an_event("e1", subject="u:u1", key=3)])

        with_features, with_history = await self.of(reader, user_id="u2"), await self.of(reader, user_id="u1")

        assert with_features.numeric.tolist() == [1.0, 2.0]
        assert with_features.watermark == len(with_features.history_keys) == 0
        assert np.isnan(with_history.numeric).all()
        assert with_history.history_keys.tolist() == [3]

    async def test_a_visitor_has_a_history_and_shares_nothing_with_the_user_of_that_name(self, reader, know, events):
        await know("x", 1.0, 2.0, "gold")
        await events.append([an_event("e1", subject="v:x", key=4), an_event("e2", subject="u:x", key=5)])

        visitor = await self.of(reader, user_id=None, visitor_id="x")

        assert visitor.history_keys.tolist() == [4]
        assert visitor.watermark == 1
        assert np.isnan(visitor.numeric).all()
        assert visitor.categorical == ("",)

    async def test_an_event_counts_for_the_very_next_read(self, reader, events):
        await events.append([an_event("e1", key=1)])
        before = await self.of(reader)

        await events.append([an_event("e2", key=2)])
        after = await self.of(reader)

        assert (before.history_keys.tolist(), before.watermark) == ([1], 1)
        assert (after.history_keys.tolist(), after.watermark) == ([1, 2], 2)

    async def test_a_failure_has_a_name(self, reader, fail):
        await fail()

        with pytest.raises(DependencyError) as failed:
            await self.of(reader)

        assert failed.value.loss is Loss.UNAVAILABLE

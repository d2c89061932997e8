"""Fatigue: impressions since the last touch are counted, and sink an item by as much as its promise has shrunk."""

import numpy as np
import pytest

from orchestrator.core import model
from orchestrator.core.fatigue import has_impressions, unanswered, weariness
from protos import history
from protos.tutti.v1 import common_pb2
from tests.support.builders import ADD_TO_CART, CLICK, IMPRESSION, PURCHASE, REMOVE_FROM_CART, VIEW, a_user, changed

DAY_S = 86_400
WEEK_S = 7 * DAY_S


def a_shopper(*events, now=100):
    """Events are (item, type, second), oldest first; read at second *now*."""
    keys, types, at_s = ([event[i] for event in events] for i in range(3))
    return changed(
        a_user(keys),
        history_types=np.asarray(types, np.uint8),
        history_at_us=np.asarray(at_s, np.int64) * 1_000_000,
        as_of_us=now * 1_000_000,
    )


def counted(user, *keys, window_s=WEEK_S):
    return unanswered(user, np.asarray(keys, np.int32), window_s).tolist()


def test_a_shopper_without_impressions_is_not_counted_at_all():
    user = a_shopper((1, VIEW, 1), (2, PURCHASE, 2))

    assert not has_impressions(user)
    assert unanswered(user, np.asarray([1, 2], np.int32), WEEK_S) is None


def test_impressions_are_counted_by_item():
    user = a_shopper((1, IMPRESSION, 1), (2, IMPRESSION, 1), (1, IMPRESSION, 2))

    assert has_impressions(user)
    assert counted(user, 2, 1, 7, 0) == [1, 2, 0, 0]


@pytest.mark.parametrize("touch", [VIEW, CLICK, ADD_TO_CART, PURCHASE])
def test_a_touch_answers_the_impressions_before_it_and_not_those_after(touch):
    user = a_shopper((1, IMPRESSION, 1), (1, IMPRESSION, 2), (1, touch, 3), (1, IMPRESSION, 4))

    assert counted(user, 1) == [1]


def test_taking_an_item_out_of_the_basket_is_no_touch():
    assert counted(a_shopper((1, IMPRESSION, 1), (1, REMOVE_FROM_CART, 2)), 1) == [1]


def test_a_touch_of_another_item_answers_nothing():
    assert counted(a_shopper((1, IMPRESSION, 1), (2, CLICK, 2)), 1, 2) == [1, 0]


def test_impressions_older_than_the_window_are_forgotten():
    user = a_shopper((1, IMPRESSION, 0), (1, IMPRESSION, DAY_S), now=DAY_S + 10)

    assert counted(user, 1, window_s=DAY_S) == [1]
    assert unanswered(user, np.asarray([1], np.int32), 5) is None


def test_an_item_wants_twice_its_place_after_as_many_impressions_as_patience_lasts():
    assert weariness(np.asarray([0, 5, 10]), 5).tolist() == [1.0, 2.0, 3.0]


def test_weariness_is_what_a_beta_prior_expects_of_the_rate_of_clicks():
    """Beta(a, b): a / (a + b) before, a / (a + b + n) after n impressions without a click; patience is a + b."""
    a, b, n = 0.2, 4.8, 7

    before, after = a / (a + b), a / (a + b + n)

    assert weariness(np.asarray([n]), a + b)[0] == pytest.approx(before / after)


def test_the_codes_are_those_of_the_wire():
    assert model.IMPRESSION == history.IMPRESSION == common_pb2.EVENT_TYPE_IMPRESSION
    assert model.REMOVED == common_pb2.EVENT_TYPE_REMOVE_FROM_CART

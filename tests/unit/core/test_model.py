"""The nouns: what they say of themselves."""

import dataclasses

import numpy as np
import pytest

from orchestrator.core.model import ItemFilter, Loss, Placement, UserContext
from tests.support.builders import a_query, candidates_of, keys_of, some_candidates


def test_the_user_is_the_subject_before_the_visitor_and_nobody_has_none():
    assert a_query(user_id="7", visitor_id="x").subject == "u:7"
    assert a_query(user_id=None, visitor_id="x").subject == "v:x"
    assert a_query(user_id=None).subject is None


def test_an_empty_user_id_is_still_an_id():
    assert a_query(user_id="", visitor_id="x").subject == "u:"


def test_the_basket_is_the_focus_of_the_cart_and_the_item_of_every_other_shelf():
    query = a_query(context_keys=(1,), cart_keys=(2, 3))

    assert dataclasses.replace(query, placement=Placement.CART).focus_keys == (2, 3)
    for placement in (Placement.HOME, Placement.ITEM, Placement.CATEGORY):
        assert dataclasses.replace(query, placement=placement).focus_keys == (1,)


def test_a_filter_without_wishes_is_empty_and_one_with_any_wish_is_not():
    assert ItemFilter().is_empty
    for wish in (
        {"categories": ("Toys",)},
        {"brands": ("Alba",)},
        {"price_min": 0.0},
        {"price_max": 0.0},
        {"in_stock": False},
        {"attributes": (("colour", ("red",)),)},
    ):
        assert not ItemFilter(**wish).is_empty, wish


def test_of_a_cold_shopper_nothing_is_known_and_the_columns_are_all_there():
    cold = UserContext.cold(3, 2)

    assert cold.numeric.dtype == np.float32
    assert np.isnan(cold.numeric).tolist() == [True] * 3
    assert cold.categorical == ("", "")
    assert len(cold.history_keys) == len(cold.history_types) == len(cold.history_at_us) == 0
    assert cold.watermark == 0


@pytest.mark.parametrize(
    ("loss", "status"),
    [
        (Loss.DEADLINE, "timeout"),
        (Loss.BREAKER_OPEN, "open"),
        (Loss.SHED, "shed"),
        (Loss.OVERLOADED, "shed"),
        (Loss.ERROR, "error"),
        (Loss.NO_BUDGET, "skipped"),
        (Loss.UNAVAILABLE, "error"),
        (Loss.INVALID_REPLY, "error"),
        (Loss.SKEW, "error"),
        (Loss.REFUSED, "error"),
        (Loss.UNCLASSIFIED, "error"),
    ],
)
def test_every_loss_has_a_word_in_the_api(loss, status):
    assert loss.status == status


def test_taking_candidates_moves_every_column_of_a_row_together():
    candidates = candidates_of({"a": [5, 7], "b": [7, 9]})

    taken = candidates.take(np.asarray([2, 0]))

    assert keys_of(taken) == [candidates.keys[2], candidates.keys[0]]
    for name in ("source_ranks", "source_scores", "scores"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(candidates, name)[[2, 0]])
    assert taken.sources == candidates.sources


def test_scoring_changes_the_scores_and_nothing_else():
    candidates = some_candidates(4, 2)

    scored = candidates.scored(np.asarray([0.1, 0.9]))

    assert keys_of(scored) == [4, 2]
    assert scored.scores.tolist() == [0.1, 0.9]
    assert scored.source_ranks is candidates.source_ranks


def test_who_found_an_item_is_told_best_rank_first_and_leaves_out_who_did_not():
    candidates = candidates_of({"a": [1, 2, 3], "b": [3, 1], "c": []})
    found = {key: candidates.found_by(row) for row, key in enumerate(keys_of(candidates))}

    assert found == {1: ("a", "b"), 2: ("a",), 3: ("b", "a")}

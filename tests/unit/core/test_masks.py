"""A request may meet an item that is younger than the mask it holds."""

import numpy as np

from orchestrator.core.masks import both, of, says

MASK = np.asarray([True, False, True])


def keys(*values):
    return np.asarray(values, np.int32)


def test_a_mask_says_what_it_knows_and_allows_nothing_beyond():
    assert says(MASK, keys(2, 1, 0)).tolist() == [True, False, True]
    assert says(MASK, keys(2, 1, 3, 99)).tolist() == [True, False, False, False]
    assert says(MASK, keys()).tolist() == []


def test_two_masks_agree_as_far_as_both_reach():
    assert both(MASK, np.asarray([True, True, False])).tolist() == [True, False, False]
    assert both(MASK, np.ones(5, np.bool_)).tolist() == both(np.ones(5, np.bool_), MASK).tolist() == MASK.tolist()


def test_a_value_beyond_the_values_is_the_one_given():
    values = np.asarray([2.0, 3.0], np.float32)

    assert of(values, keys(1, 0), 1.0).tolist() == [3.0, 2.0]
    assert of(values, keys(1, 7), 1.0).tolist() == [3.0, 1.0]
    assert of(values, keys(), 1.0).tolist() == []

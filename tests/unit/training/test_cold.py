"""Items nobody touched: they borrow from their look-alikes, faintly, and what is known stays as it is."""

import numpy as np
import pytest

from services.chassis.affinity import Table
from services.training import cold
from tests.support.dense_closeness import spread
from tests.support.small_dataset import UNTOUCHED, a_dataset

# Words: 0 and 1 speak for 3, 0 stronger; 3 is the cold one. 2 is like nobody.
WORDS = Table(np.array([0, 1, 2, 2, 4]), np.array([3, 3, 0, 1], np.int32), np.array([0.8, 0.4, 0.8, 0.4], np.float32))
COLD = np.array([False, False, False, True])
ALIKE = cold.lookalikes(WORDS, COLD)


def test_an_item_is_cold_until_somebody_wants_it():
    dataset = a_dataset()

    assert cold.is_cold(dataset)[UNTOUCHED]
    assert not cold.is_cold(dataset)[dataset.keys].any()


def test_only_touched_items_lend_and_only_cold_ones_borrow():
    lends, borrows = ALIKE.nonzero()

    assert sorted(lends.tolist()) == [0, 1]
    assert set(borrows.tolist()) == {3}
    assert ALIKE[:, 3].toarray().ravel() == pytest.approx(np.array([0.8, 0.4, 0, 0]) / 2.2)


def test_factors_of_a_cold_item_are_the_mean_of_its_look_alikes_and_shorter():
    factors = np.array([[1, 0], [0, 1], [5, 5], [9, 9]], np.float32)

    filled = cold.mapped(factors, ALIKE)

    np.testing.assert_array_equal(filled[:3], factors[:3])
    assert filled[3] == pytest.approx([0.8 / 2.2, 0.4 / 2.2])


def test_a_cold_item_without_look_alikes_has_no_factors():
    nobody = cold.lookalikes(Table(np.zeros(5, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)), COLD)

    assert cold.mapped(np.array([[1], [2], [3], [0]], np.float32), nobody).ravel().tolist() == [1, 2, 3, 0]


def test_what_speaks_for_the_look_alikes_speaks_for_the_cold_item():
    behaviour = Table(np.array([0, 0, 0, 2, 2]), np.array([0, 1], np.int32), np.array([1.0, 0.5], np.float32))

    table = cold.extended(behaviour, ALIKE)
    heard = spread(table, [2], [1.0])

    assert heard == pytest.approx([1.0, 0.5, 0, (0.8 + 0.5 * 0.4) / 2.2])
    assert np.diff(table.offsets).tolist() == [0, 0, 3, 0]


def test_only_the_nearest_are_asked(monkeypatch):
    monkeypatch.setattr(cold, "LOOKALIKES", 1)

    lends, _ = cold.lookalikes(WORDS, COLD).nonzero()

    assert lends.tolist() == [0]

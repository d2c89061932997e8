"""Likeness: 1 with itself, 0 with what shares nothing, more for what is rare."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.likeness import MARKS, SHARES, marks_of

words = st.sampled_from(["red", "blue", "mug", "hoe", "tin", "toy"])
titles = st.one_of(st.none(), st.lists(words, max_size=6).map(" ".join))
paths = st.sampled_from([None, "Home", "Home > Kitchen", "Home > Garden", "Toys"])


def marks(titles=None, categories=None, brands=None, prices=None):
    n = len(next(given for given in (titles, categories, brands, prices) if given is not None))
    price = np.full(n, np.nan, np.float32) if prices is None else np.asarray(prices, np.float32)
    return marks_of(titles or [None] * n, categories or [None] * n, brands or [None] * n, price)


@given(st.lists(st.tuples(titles, paths, st.sampled_from([None, "Alba"]), st.sampled_from([np.nan, 0, 5, 9, 80]))))
def test_likeness_is_symmetric_between_nothing_and_the_same(rows):
    found = marks(*([row[i] for row in rows] for i in range(4))) if rows else marks([])

    table = np.array([found.likeness(row) for row in range(len(rows))]).reshape(len(rows), len(rows))

    np.testing.assert_allclose(table, table.T, atol=1e-5)
    assert ((table > -1e-6) & (table < 1 + 1e-5)).all()
    described = np.abs(found.weights).sum(1) > 0
    np.testing.assert_allclose(np.diag(table), described.astype(float), atol=1e-5)


def test_of_nothing_in_common_comes_nothing():
    assert marks(["red mug", "blue hoe"]).likeness(0).tolist() == pytest.approx([1, 0])


def test_what_is_rare_makes_more_alike_than_what_everything_has():
    found = marks(["set red", "set blue", "set tartan", "rug tartan", *["set"] * 20])

    to_tartan_set = found.likeness(2)

    assert to_tartan_set[3] > to_tartan_set[0]


def test_neighbouring_shelves_are_more_alike_than_distant_ones():
    to_mugs = marks(categories=["Home > Kitchen > Mugs", "Home > Kitchen > Pots", "Home > Garden", "Toys"]).likeness(0)

    assert to_mugs[0] > to_mugs[1] > to_mugs[2] > to_mugs[3] == 0


def test_prices_of_a_factor_of_two_are_neighbours_and_of_four_strangers():
    to_ten = marks(prices=[10, 20, 40, np.nan, 0]).likeness(0)

    assert to_ten[1] > 0
    assert to_ten[2:].tolist() == [0, 0, 0]


def test_each_block_has_its_share_of_an_items_length():
    found = marks(["mug", "hoe"], ["Home", "Toys"], ["Alba", "Alba"], [5, 500])

    alike = found.likeness(0)[1]

    assert alike == pytest.approx(SHARES["brand"], abs=1e-5)


def test_an_item_keeps_its_rarest_marks():
    common = " ".join(f"w{n}" for n in range(MARKS + 4))
    found = marks([common + " tartan", common, common, "tartan"])

    assert found.likeness(3)[0] > 0


def test_words_count_once_and_in_any_case():
    assert marks(["Red red RED mug", "red mug"]).likeness(0)[1] == pytest.approx(1)


def test_a_part_of_the_catalogue_is_alike_as_in_the_whole():
    whole = marks(["red mug", "blue mug", "tin toy"])

    part = whole.take(np.asarray([2, 0], np.int32))

    assert part.likeness(1).tolist() == pytest.approx(whole.likeness(0)[[2, 0]].tolist())


def test_an_empty_shop_has_no_marks():
    assert marks([]).take(np.empty(0, np.int32)).tokens.shape == (0, MARKS)

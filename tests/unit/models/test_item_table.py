"""The re-ranker's table of items after a few changed is the one it would be made anew, and the old one is untouched."""

import numpy as np

from services.reranking.encoding import Encoder
from services.reranking.model import ItemTable, Layout


def test_a_table_with_some_items_changed_is_the_table_of_what_they_became():
    rng = np.random.default_rng(2)
    numeric = rng.normal(size=(20, 3)).astype(np.float32)
    numeric[4, 1] = np.nan
    words = np.array([["red" if n % 2 else "blue"] for n in range(20)], object)
    item = Encoder.learn(("a", "b", "c"), ("colour",), numeric, words)
    user = Encoder.learn((), (), np.empty((0, 0), np.float32), np.empty((0, 0), object))
    layout = Layout.of(["source"], user, item)
    before = ItemTable.of(layout, numeric, words)
    kept = before.encoded.dense.copy()
    now, now_words, keys = numeric.copy(), words.copy(), np.array([3, 4, 19])
    now[keys], now_words[keys] = [[1, 2, np.nan], [5, 6, 7], [0, 0, 0]], [["blue"], [""], ["green"]]

    after = before.updated(layout, keys, now, now_words)

    whole = ItemTable.of(layout, now, now_words)
    np.testing.assert_array_equal(after.numeric, whole.numeric)
    np.testing.assert_array_equal(after.categorical, whole.categorical)
    np.testing.assert_array_equal(after.encoded.dense, whole.encoded.dense)
    np.testing.assert_array_equal(after.encoded.codes, whole.encoded.codes)
    np.testing.assert_array_equal(before.encoded.dense, kept)

"""The re-ranker's table of items after a few changed is the one it would be made anew, and the old one is untouched."""

import numpy as np

from services.reranking.encoding import Encoder
from services.reranking.items import ItemTable, Layout

N_ITEMS = 20


def a_world():
    """Items with numbers, one of them missing, and two colours; a shopper's favourite colour is compared with them."""
    rng = np.random.default_rng(2)
    numeric = rng.normal(size=(N_ITEMS, 3)).astype(np.float32)
    numeric[4, 1] = np.nan
    words = np.array([["red" if n % 2 else "blue"] for n in range(N_ITEMS)], object)
    item = Encoder.learn(("a__a", "a__b", "a__c"), ("a__colour",), numeric, words)
    user = Encoder.learn(
        ("u__mean_a",), ("u__favourite_colour",), np.empty((0, 1), np.float32), np.empty((0, 1), object)
    )
    return Layout.of(["source"], user, item), numeric, words


def everything(table, n_items=N_ITEMS):
    """What a table says of every key, and of one it cannot know."""
    at = table.rows_of(np.append(np.arange(n_items), n_items + 7))
    shoppers = np.array([["red"], ["blue"], ["green"], [""]], object)
    same = [(0, 0)]
    meets = table.words[at][:, None] == table.word_codes(shoppers, same)[None]
    return table.numbers[at].copy(), table.codes[at].copy(), meets


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_table_with_some_items_changed_is_the_table_of_what_they_became():
    layout, numeric, words = a_world()
    before = ItemTable.of(layout, numeric, words)
    kept = everything(before)
    now, now_words, keys = numeric.copy(), words.copy(), np.array([3, 4, 19])
    now[keys], now_words[keys] = [[1, 2, np.nan], [5, 6, 7], [0, 0, 0]], [["blue"], [""], ["green"]]

    after = before.updated(keys, now[keys], now_words[keys])

    assert_same(everything(after), everything(ItemTable.of(layout, now, now_words)))
    assert_same(everything(before), kept)


def test_an_item_that_came_later_has_a_row_and_keys_between_have_none():
    layout, numeric, words = a_world()
    before = ItemTable.of(layout, numeric, words)
    kept = everything(before, N_ITEMS + 5)
    missing = np.full((4, 3), np.nan, np.float32), np.full((4, 1), "", object)
    came = np.float32([[1, 2, 3]]), np.array([["red"]], object)

    after = before.updated(np.array([N_ITEMS + 4]), *came)

    whole = (np.vstack([a, b, c]) for a, b, c in zip((numeric, words), missing, came, strict=True))
    assert after.n_items == N_ITEMS + 5
    assert_same(everything(after, N_ITEMS + 5), everything(ItemTable.of(layout, *whole), N_ITEMS + 5))
    assert_same(everything(before, N_ITEMS + 5), kept)


def test_a_thousand_changes_keep_no_more_than_the_items_and_some_room():
    layout, numeric, words = a_world()
    table = first = ItemTable.of(layout, numeric, words)
    kept = everything(first)

    for n in range(1000):
        numeric[n % N_ITEMS] = n
        words[n % N_ITEMS] = "blue" if n % 3 else "red"
        own = np.array([n % N_ITEMS])
        table = table.updated(own, numeric[own], words[own])
        table = table.updated(np.arange(N_ITEMS), numeric, words)

    assert_same(everything(table), everything(ItemTable.of(layout, numeric, words)))
    assert_same(everything(first), kept)
    assert len(table.numbers) < 2000


def test_one_table_may_become_two():
    layout, numeric, words = a_world()
    before = ItemTable.of(layout, numeric, words).updated(np.array([0]), numeric[:1], words[:1])

    one = before.updated(np.array([1]), np.float32([[1, 1, 1]]), words[:1])
    other = before.updated(np.array([1]), np.float32([[2, 2, 2]]), words[:1])

    row = one.numbers[one.rows_of(np.array([1]))], other.numbers[other.rows_of(np.array([1]))]
    assert not np.array_equal(*row)

"""Nothing of the judged window reaches a method: two futures, one past, the same bytes and the same lists."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from services.training import dataset as datasets
from services.training import vocabulary
from services.training.evaluation import past
from services.training.evaluation.baseline_lists import baseline_lists, seen_from
from services.training.evaluation.methods import PERSONAL
from services.training.evaluation.tasks import tasks
from services.training.split import Window
from tests.support.small_shop import DAY_US, START_US, tastes, write_shop

SPLIT_US = START_US + 92 * DAY_US
FILES = ("events.parquet", "items.parquet", "vocabulary.parquet")


def a_past(folder, rows, **columns):
    data = write_shop(folder / "data", rows, **columns)
    past.write(data, folder / "past", SPLIT_US)
    vocabulary.maintain(folder / "past")
    return folder / "past"


def another_future(rows, wanted="i7"):
    """The same until the split; from there on everybody wants one thing, and it sells out."""
    return [row if row[3] < 92 else (row[0], wanted, "purchase", row[3]) for row in rows]


def test_what_happens_after_the_split_changes_no_byte_of_the_past(tmp_path):
    rows = tastes(kind="shop")
    future = another_future(rows)
    planted = {
        # A catalogue written after the window knows how it went.
        "in_stock": {"i7": False},
        "price": {"i7": 99.0},
        "attributes": {"i7": '{"sold_next_month": 1000}'},
        "sales": {"i7": 1000},
    }

    one, other = a_past(tmp_path / "a", rows), a_past(tmp_path / "b", future, **planted)

    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_the_order_in_which_a_catalogue_comes_says_nothing(tmp_path):
    data = write_shop(tmp_path / "data", tastes())
    backwards = pq.read_table(data / "items.parquet").sort_by([("item_id", "descending")])

    past.write(data, tmp_path / "one", SPLIT_US)
    pq.write_table(backwards, data / "items.parquet")
    past.write(data, tmp_path / "other", SPLIT_US)

    assert pq.read_table(tmp_path / "one" / "items.parquet").equals(pq.read_table(tmp_path / "other" / "items.parquet"))


def test_the_price_is_what_was_paid_before_and_nothing_where_nobody_paid(tmp_path):
    rows = [("u1", "i1", "purchase", 1.0), ("u1", "i2", "purchase", 100.0)]
    place = a_past(tmp_path, rows, price={"i1": 7.0, "i2": 7.0})

    prices = dict(
        zip(*pq.read_table(place / "items.parquet", columns=["item_id", "price"]).to_pydict().values(), strict=True)
    )

    assert prices == {"i1": 2.0, "i2": None}


def test_without_prices_in_the_events_the_list_price_stands(tmp_path):
    place = a_past(tmp_path, tastes(), prices=False, price={f"i{i}": 7.0 for i in range(30)})

    assert set(pq.read_table(place / "items.parquet")["price"].to_pylist()) == {7.0}


def test_an_earlier_runs_order_of_items_is_forgotten(tmp_path):
    place = a_past(tmp_path, tastes())
    kept = (place / "vocabulary.parquet").read_bytes()
    (place / "vocabulary.parquet").write_bytes(b"of another catalogue")

    past.write(tmp_path / "data", place, SPLIT_US)
    vocabulary.maintain(place)

    assert (place / "vocabulary.parquet").read_bytes() == kept


@pytest.mark.parametrize("planted", ["i7", "i8"])
def test_a_signal_planted_in_the_future_moves_nobodys_list(tmp_path, planted):
    rows = tastes(kind="shop")
    before, after = a_past(tmp_path / "a", rows), a_past(tmp_path / "b", another_future(rows, planted))
    window = Window(SPLIT_US, SPLIT_US + 28 * DAY_US)
    everything = datasets_of(tmp_path / "a" / "data")
    asked = tasks(everything, window, seed=7).judged

    lists = [lists_of(place, everything, asked) for place in (before, after)]

    assert lists[0].keys() == lists[1].keys()
    for task, methods in lists[0].items():
        assert len(methods) >= 3
        for method, rows_ in methods.items():
            assert np.array_equal(rows_, lists[1][task][method]), (task, method)


def datasets_of(data):
    vocabulary.maintain(data)
    return datasets.load(data)


def lists_of(place, everything, asked):
    known = datasets.load(place)
    ours = past.keys_in(everything, known)
    theirs = np.full(everything.n_items, -1, np.int32)
    theirs[ours] = np.arange(len(ours))
    seen = [seen_from(task, past.users_in(everything, known, task.users), theirs) for task in asked]
    return baseline_lists(known, seen, seed=7, methods=PERSONAL).lists


def test_users_and_items_are_found_by_name_and_strangers_are_nobody(tmp_path):
    rows = [*tastes(users=4), ("late", "i1", "view", 110.0)]
    everything = datasets_of(write_shop(tmp_path / "data", rows))
    past.write(tmp_path / "data", tmp_path / "past", SPLIT_US)
    known = datasets_of(tmp_path / "past")

    users = past.users_in(everything, known, np.arange(len(everything.user_ids)))

    assert [known.user_ids[u] if u >= 0 else None for u in users] == [None, "u0", "u1", "u2", "u3"]
    assert [everything.item_ids[k] for k in past.keys_in(everything, known)] == known.item_ids

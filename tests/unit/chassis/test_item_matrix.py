"""
Items' features followed without a stall: read slice by slice, shown whole, and new items among them.

What is counted is what a call could wait for: items handled in one go, and whether there is a pause between two.
"""

import numpy as np
import pytest
import redis

from protos.feast_layout import EntityPlan, ReadPlan, ViewPlan
from protos.live_features import CHANGES, entry
from protos.tutti.v1.feast_value_pb2 import FeastTimestamp, FeastValue
from services.chassis.item_matrix import HEAR_AFTER, SLICE, ItemMatrix

ITEM = EntityPlan("shop", "item_id", "STRING", (ViewPlan("catalogue", 0, (("price", "FLOAT"), ("brand", "STRING"))),))
PLAN = ReadPlan("s", EntityPlan("shop", "user_id", "STRING", ()), ITEM)


class StoreTwin:
    """As much of a Redis client as the matrix uses. *dies_after*: items read until it is gone."""

    def __init__(self):
        self.rows, self.named, self.asked, self.dies_after = {}, [], [], None

    def holds(self, item_id, price, brand):
        stamp = FeastTimestamp(seconds=1_700_000_000).SerializeToString()
        values = FeastValue(float_val=price).SerializeToString(), FeastValue(string_val=brand).SerializeToString()
        self.rows[ITEM.redis_key(item_id)] = [*values, stamp]

    def names(self, *item_ids):
        self.named.append((b"%d-0" % (len(self.named) + 1), entry(item_ids)))

    def xrevrange(self, stream, count):
        assert stream == CHANGES
        return self.named[-1:]

    def xread(self, streams, block):
        last = int(streams[CHANGES].split(b"-")[0])
        return [[CHANGES, self.named[last:]]]

    def pipeline(self, transaction):
        return _PipelineTwin(self)

    def close(self):
        pass


class _PipelineTwin:
    def __init__(self, store):
        self.store, self.keys = store, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def hmget(self, key, fields):
        assert fields == list(ITEM.fields)
        self.keys.append(key)

    def execute(self):
        store = self.store
        if store.dies_after is not None and sum(store.asked) >= store.dies_after:
            raise redis.exceptions.ConnectionError("gone")
        store.asked.append(len(self.keys))
        return [store.rows.get(key, [None] * 3) for key in self.keys]


class FollowerTwin:
    """What was taken since the last publishing, and what calls see."""

    def __init__(self):
        self.taken, self.seen, self.published = {}, {}, []

    def take(self, keys, numeric, categorical):
        rows = zip(keys.tolist(), numeric[:, 0].tolist(), categorical[:, 0].tolist(), strict=True)
        self.taken |= {key: (price, brand) for key, price, brand in rows}

    def publish(self):
        self.published.append(set(self.taken))
        self.seen, self.taken = self.seen | self.taken, {}


def a_matrix(store, n_items, pause=lambda _: None, snapshot=None):
    """A matrix of items i0, i1, … and its follower."""
    matrix = ItemMatrix(PLAN, [f"i{n}" for n in range(n_items)], "", snapshot, client=store, pause=pause)
    follower = FollowerTwin()
    matrix._follower = follower
    return matrix, follower


def test_a_refresh_reads_in_slices_pauses_between_them_and_is_seen_whole():
    store, seen_at_pauses = StoreTwin(), []
    n_items = 3 * SLICE + 7
    matrix, follower = a_matrix(store, n_items, pause=lambda _: seen_at_pauses.append(len(follower.seen)))
    for n in range(n_items):
        store.holds(f"i{n}", n, "a")

    assert matrix.refresh() == n_items

    assert store.asked == [SLICE, SLICE, SLICE, 7]
    assert seen_at_pauses == [0, 0, 0]
    assert follower.seen == {n: (float(n), "a") for n in range(n_items)}


# An event waited for all items to be read: 4.5 s of 50,000, every minute.
def test_what_changes_while_everything_is_read_is_seen_before_the_end():
    store, seen_at_pauses = StoreTwin(), []
    n_items = 3 * HEAR_AFTER * SLICE

    def pause(_):
        seen_at_pauses.append(follower.seen.get(0))
        if len(seen_at_pauses) == 1:
            store.holds("i0", 5.0, "b")
            store.names("i0")

    matrix, follower = a_matrix(store, n_items, pause=pause)

    matrix.refresh()

    assert seen_at_pauses.index((5.0, "b")) == HEAR_AFTER
    assert len(seen_at_pauses) == 3 * HEAR_AFTER - 1
    assert store.asked.count(1) == 1, "and not again when everything was read"
    assert matrix._changed(0.1) == []


def test_a_refresh_tells_only_what_became_another():
    store = StoreTwin()
    matrix, follower = a_matrix(store, 2 * SLICE)
    for n in range(SLICE):
        store.holds(f"i{n}", n, "a")
    matrix.refresh()

    store.holds("i3", 3, "b")
    store.holds("i4", 99, "a")
    del store.rows[ITEM.redis_key("i5")]
    matrix.refresh()

    assert follower.published[1] == {3, 4, 5}
    assert (follower.seen[3], follower.seen[4]) == ((3.0, "b"), (99.0, "a"))
    assert np.isnan(follower.seen[5][0])
    assert follower.seen[5][1] == ""


def test_what_was_read_before_redis_left_is_told_and_the_age_says_that_not_all_was():
    store = StoreTwin()
    matrix, follower = a_matrix(store, 2 * SLICE)
    for n in range(2 * SLICE):
        store.holds(f"i{n}", n, "a")
    store.dies_after = SLICE

    with pytest.raises(redis.exceptions.ConnectionError):
        matrix.refresh()
    assert set(follower.seen) == set(range(SLICE))
    assert matrix.age_s is None

    store.dies_after = None
    matrix.refresh()
    assert set(follower.seen) == set(range(2 * SLICE))
    assert matrix.age_s >= 0


# Its features were not read before a restart: a row was only made for the vocabulary of the start.
def test_an_item_that_came_after_the_start_gets_a_row_and_then_its_features():
    store = StoreTwin()
    matrix, follower = a_matrix(store, 3)
    matrix.refresh()

    matrix.know("new", 7)
    matrix.update([])
    assert len(matrix) == 8
    assert np.isnan(matrix.numeric[7]).all()
    assert follower.seen == {}

    store.holds("new", 5.0, "b")
    store.names("new")
    matrix.update(matrix._changed(0.1))

    assert follower.seen == {7: (5.0, "b")}
    assert matrix.refresh() == 1


def test_features_that_were_named_before_the_key_was_known_are_read_with_it():
    store = StoreTwin()
    matrix, follower = a_matrix(store, 3)
    store.holds("new", 5.0, "b")

    assert matrix.update(["new"]) == 0
    matrix.know("new", 3)
    assert matrix.update([]) == 1

    assert follower.seen == {3: (5.0, "b")}


def test_a_key_far_beyond_all_others_makes_no_rows():
    matrix, _ = a_matrix(StoreTwin(), 3)

    for key in (2_000_000_000, -1):
        matrix.know("strange", key)
    matrix.update([])

    assert len(matrix) == 3


def test_a_thousand_new_items_copy_the_columns_a_few_times_only(monkeypatch):
    from services.chassis import item_matrix

    matrix, _ = a_matrix(StoreTwin(), 100)
    copies, wider = [], item_matrix._wider
    monkeypatch.setattr(item_matrix, "_wider", lambda *a: copies.append(1) or wider(*a))

    for n in range(1000):
        matrix.know(f"new{n}", 100 + n)
        matrix.update([])

    assert len(matrix) == 1100
    assert len(copies) < 30

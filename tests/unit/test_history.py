"""The history list and the event codes: bytes both ways."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.settings import load
from protos import history
from protos.tutti.v1 import common_pb2
from tests.support import builders

entries = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 255), st.integers(-(2**62), 2**62)), max_size=20)


@given(entries)
def test_what_is_pushed_oldest_first_is_read_oldest_first(given_entries):
    keys, types, at_us = ([entry[i] for entry in given_entries] for i in range(3))

    pushed = history.encode_entries(keys, types, at_us)
    read = history.decode_entries(pushed[::-1])  # LPUSH turns the list round

    assert read["key"].tolist() == keys
    assert read["type"].tolist() == types
    assert read["at_us"].tolist() == at_us


def test_an_entry_is_13_bytes_little_endian_on_every_machine():
    (entry,) = history.encode_entries([1], [6], [2])

    assert entry == b"\x01\0\0\0" + b"\x06" + b"\x02" + b"\0" * 7


def test_an_entry_of_a_foreign_writer_is_dropped_and_the_others_stay():
    mine = history.encode_entries([1, 2], [1, 1], [10, 20])

    read = history.decode_entries([mine[1], b"rubbish", b"", mine[0]])

    assert read["key"].tolist() == [1, 2]


def test_no_history_is_an_empty_array_with_all_columns():
    read = history.decode_entries([])

    assert len(read) == 0
    assert read.dtype == history.ENTRY


def test_keys_of_different_subjects_and_kinds_never_meet():
    subjects = ["u:1", "v:1", "u:", "u:é"]
    kinds = [history.history_key, history.shown_key, history.watermark_key, history.slates_key]

    names = {kind(subject) for kind in kinds for subject in subjects}

    assert len(names) == len(subjects) * len(kinds)
    assert all(name.startswith(b"tutti:") for name in names)


def test_an_impossible_event_code_is_an_error_rather_than_another_event():
    with pytest.raises(OverflowError):
        history.encode_entries([1], [256], [0])


def test_the_event_codes_of_these_tests_are_those_of_the_wire():
    for name in ("VIEW", "CLICK", "IMPRESSION", "ADD_TO_CART", "REMOVE_FROM_CART", "PURCHASE"):
        assert getattr(builders, name) == common_pb2.EventType.Value(f"EVENT_TYPE_{name}")


def test_reading_gives_columns_that_can_be_made_contiguous_for_the_wire():
    read = history.decode_entries(history.encode_entries([1, 2], [1, 1], [10, 20])[::-1])

    assert np.ascontiguousarray(read["key"]).tobytes() == np.asarray([1, 2], "<i4").tobytes()


def as_redis_returns(own):
    """Entries, oldest first, as LRANGE of their list."""
    return history.encode_entries(*([entry[i] for entry in own] for i in range(3)))[::-1]


def rows_of(columns):
    return list(zip(*(column.tolist() for column in columns), strict=True))


@given(entries, entries)
def test_both_lists_make_one_history_that_loses_nothing_and_is_in_the_order_of_time(done, shown):
    done, shown = (sorted(own, key=lambda entry: entry[2]) for own in (done, shown))

    columns = history.columns(as_redis_returns(done), as_redis_returns(shown))

    assert [column.dtype for column in columns] == [np.int32, np.uint8, np.int64]
    assert all(column.flags.c_contiguous for column in columns)
    # Sorting is stable: of one moment, what was shown comes first.
    assert rows_of(columns) == sorted([*shown, *done], key=lambda entry: entry[2])


@given(entries)
def test_one_list_alone_keeps_the_order_in_which_it_was_written(own):
    assert rows_of(history.columns(as_redis_returns(own), [])) == own
    assert rows_of(history.columns([], as_redis_returns(own))) == own


def test_foreign_entries_are_dropped_from_both_lists_even_where_their_lengths_add_up():
    done, shown = as_redis_returns([(1, 1, 10), (2, 1, 30)]), as_redis_returns([(3, 3, 20)])

    columns = history.columns([done[0], b"x" * 12, b"y" * 14, done[1]], [b"", *shown])

    assert rows_of(columns) == [(1, 1, 10), (3, 3, 20), (2, 1, 30)]


def test_impressions_have_a_list_of_their_own():
    assert history.list_key("u:1", builders.IMPRESSION) == history.shown_key("u:1")
    assert history.list_key("u:1", builders.VIEW) == history.history_key("u:1")


def test_what_is_seeded_lives_as_long_as_what_the_edge_writes():
    assert load(environment={}).retention.user_s == history.SEEDED_FOR_S

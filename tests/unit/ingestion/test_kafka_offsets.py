"""How far a group may commit, and where a reader without a group begins; both pure."""

import random

import pytest

from services.ingestion.kafka_stream import Offsets, place
from services.ingestion.kafka_tail import as_position, offsets_of, where_to_begin


def given(offsets, partition, *numbers):
    for number in numbers:
        offsets.given(partition, number)
    return offsets


def test_nothing_is_committed_past_what_is_in_hand():
    offsets = given(Offsets(), 0, 10, 11, 12)
    offsets.done(0, 11)
    offsets.done(0, 12)
    assert offsets.to_commit() == {0: 10}

    offsets.done(0, 10)

    assert offsets.to_commit() == {0: 13}


def test_partitions_move_apart_and_only_those_that_moved_are_committed():
    offsets = given(given(Offsets(), 0, 5), 1, 7)
    offsets.done(0, 5)
    offsets.committed({0: 6, 1: 7})

    assert offsets.to_commit() == {}

    offsets.done(1, 7)
    assert offsets.to_commit() == {1: 8}


def test_gaps_that_compaction_or_transactions_leave_are_passed():
    offsets = given(Offsets(), 0, 3, 9)
    offsets.done(0, 3)
    assert offsets.to_commit() == {0: 9}
    offsets.done(0, 9)
    assert offsets.to_commit() == {0: 10}


def test_what_was_taken_over_is_never_committed_by_us():
    offsets = given(given(Offsets(), 0, 1), 1, 1)
    offsets.forget([0])

    offsets.done(0, 1)
    offsets.done(1, 1)

    assert offsets.to_commit() == {1: 2}


def test_a_partition_that_comes_back_is_counted_from_what_it_gives_then():
    offsets = given(Offsets(), 0, 1, 2)
    offsets.done(0, 1)
    offsets.done(0, 2)
    offsets.committed(offsets.to_commit())
    offsets.forget([0])

    given(offsets, 0, 1)
    assert offsets.to_commit() == {0: 1}, "in hand again, so nothing behind it may be committed"
    offsets.done(0, 1)
    assert offsets.to_commit() == {0: 2}


@pytest.mark.parametrize("seed", range(20))
def test_in_any_order_of_giving_and_finishing_no_commit_passes_something_unfinished(seed):
    rng, offsets, held, finished = random.Random(seed), Offsets(), [], set()
    following = 0
    for _ in range(200):
        if held and rng.random() < 0.5:
            one = held.pop(rng.randrange(len(held)))
            finished.add(one)
            offsets.done(0, one)
        else:
            offsets.given(0, following)
            held.append(following)
            following += 1
        due = offsets.to_commit()
        offsets.committed(due)
        for commit in due.values():
            assert finished >= set(range(commit))
            assert commit == min(held, default=following)


def test_an_entrys_id_says_where_it_stands():
    assert place(b"3:1234") == (3, 1234)


# A reader without a group.


def test_reading_begins_before_what_is_in_no_file_and_before_what_is_not_settled():
    assert where_to_begin({0: 5, 1: 9}, {0: 8, 1: 4}, {0: (0, 10), 1: (0, 10)}) == ({0: 5, 1: 4}, True)


def test_without_a_position_reading_begins_where_the_files_end():
    assert where_to_begin(None, {0: 8}, {0: (2, 10), 1: (3, 3)}) == ({0: 8, 1: 3}, False)


def test_a_new_partition_is_read_from_its_beginning():
    assert where_to_begin({0: 5}, {0: 5}, {0: (0, 5), 1: (0, 4)}) == ({0: 5, 1: 0}, True)


def test_what_retention_took_before_it_was_settled_makes_everything_anew():
    assert where_to_begin({0: 5}, {0: 5}, {0: (7, 9)}) == ({0: 7}, False)


def test_a_topic_that_was_made_anew_does_not_hold_the_old_position():
    assert where_to_begin({0: 500}, {0: 500}, {0: (0, 3)}) == ({0: 3}, False)


@pytest.mark.parametrize("foreign", [None, b"", b"1700-3", b"[1]", b'{"a":1}', b'{"0":null}', b"7"])
def test_a_position_of_another_broker_is_none(foreign):
    assert offsets_of(foreign) is None


def test_a_position_is_read_as_it_was_kept():
    assert offsets_of(as_position({10: 3, 2: 0})) == {10: 3, 2: 0}
    assert as_position({10: 3, 2: 0}) == as_position({2: 0, 10: 3})

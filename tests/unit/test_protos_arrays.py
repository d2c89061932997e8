"""Arrays and packed bytes, both ways; what contradicts itself is refused by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.arrays import Rows, WireError, pack_lists, pack_rows, unpack, unpack_rows
from protos.tutti.v1 import common_pb2

ragged = st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=8), max_size=8)


@given(ragged)
def test_rows_survive_the_wire(rows):
    sent = pack_rows(Rows.of(rows))

    read = unpack_rows(common_pb2.Rows.FromString(sent.SerializeToString()), len(rows), "x")

    assert len(read) == len(rows)
    assert [read.row(i).tolist() for i in range(len(rows))] == rows
    assert read.values.dtype == np.int32


@given(ragged)
def test_lists_are_packed_as_their_rows_are(rows):
    assert pack_lists(rows) == pack_rows(Rows.of(rows))
    assert pack_lists([np.asarray(row, np.int32) for row in rows]) == pack_rows(Rows.of(rows))


@given(ragged)
def test_rows_hold_every_value_once_and_in_order(rows):
    built = Rows.of(rows)

    assert built.values.tolist() == [value for row in rows for value in row]
    assert built.offsets[0] == 0
    assert built.offsets[-1] == len(built.values)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_an_absent_message_means_that_every_row_is_empty(n):
    read = unpack_rows(common_pb2.Rows(), n, "x")

    assert len(read) == n
    assert [read.row(i).tolist() for i in range(n)] == [[]] * n


def test_empty_rows_still_tell_their_number():
    message = pack_rows(Rows.empty(2))

    assert len(unpack_rows(message, 2, "x")) == 2
    with pytest.raises(WireError, match=r"x\.offsets"):
        unpack_rows(message, 3, "x")


@pytest.mark.parametrize(
    ("offsets", "values", "says"),
    [
        ([0, 1], [7], "x.offsets has 8 bytes; 12 expected"),
        ([0, 1, 2, 3], [7, 8, 9], "x.offsets has 16 bytes; 12 expected"),
        ([1, 1, 2], [7, 8], "must start at 0"),
        ([0, 2, 1], [7], "never fall"),
        ([0, 1, 3], [7, 8], "x.values has 8 bytes; 12 expected"),
        ([0, 1, 1], [7, 8], "x.values has 8 bytes; 4 expected"),
        ([0, 0, 2**32 - 1], [], "x.values has 0 bytes"),
    ],
)
def test_offsets_and_values_that_contradict_each_other_are_refused(offsets, values, says):
    message = common_pb2.Rows(offsets=np.asarray(offsets, "<u4").tobytes(), values=np.asarray(values, "<i4").tobytes())

    with pytest.raises(WireError, match=says):
        unpack_rows(message, 2, "x")


def test_values_without_offsets_are_refused():
    with pytest.raises(WireError, match=r"x\.offsets"):
        unpack_rows(common_pb2.Rows(values=b"\1\0\0\0"), 1, "x")


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 5))
def test_whatever_bytes_arrive_they_are_rows_or_a_wire_error(offsets, values, n):
    try:
        read = unpack_rows(common_pb2.Rows(offsets=offsets, values=values), n, "x")
    except WireError:
        return
    assert len(read) == n
    assert sum(len(read.row(i)) for i in range(n)) == len(read.values)


def test_numbers_are_viewed_not_copied_and_cannot_be_written():
    data = np.arange(6, dtype="<f4").tobytes()

    view = unpack(data, "<f4", (2, 3), "x")

    assert view.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not view.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1


def test_a_length_that_does_not_fit_the_shape_is_refused_with_both():
    with pytest.raises(WireError, match=r"x has 5 bytes; 8 expected for shape \(2,\) of float32"):
        unpack(b"12345", "<f4", (2,), "x")


def test_no_rows_at_all_are_still_int32():
    built = Rows.of([])

    assert len(built) == 0
    assert built.values.dtype == np.int32

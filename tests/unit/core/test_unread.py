"""Rows that are text until somebody looks."""

import numpy as np

from orchestrator.core.model import SlateItem
from orchestrator.core.report import keys_of
from orchestrator.core.unread import Unread, UnreadSlots, said_by
from orchestrator.core.wording import read_slots, say_pairs, say_slots

ITEMS = (SlateItem(7, 0.5, ("a",)), SlateItem(3, 1.0, ()))


def stored():
    return UnreadSlots(say_slots(ITEMS), keys_of(ITEMS), read_slots)


def test_unread_slots_are_the_tuple_they_will_be_read_as():
    slots = stored()

    assert (slots == ITEMS, len(slots), list(slots), slots[1], slots[:1]) == (True, 2, list(ITEMS), ITEMS[1], ITEMS[:1])
    assert hash(slots) == hash(ITEMS)
    assert repr(slots) == repr(ITEMS)


def test_slots_that_differ_in_a_key_alone_are_not_equal():
    other = UnreadSlots(say_slots(ITEMS), np.array([7, 4], np.int32), read_slots)

    assert stored() == stored()
    assert stored() != other
    assert stored() != ITEMS[:1]


def test_what_was_stored_is_said_without_being_read():
    def never(_):
        raise AssertionError("nobody asked")

    assert said_by(Unread(b'{"a":"v1"}', never), say_pairs) == b'{"a":"v1"}'
    assert said_by((("a", "v1"),), say_pairs) == b'{"a":"v1"}'


def test_rows_are_read_once():
    read = []
    rows = Unread(b"[]", lambda said: read.append(said) or ("row",))

    assert (rows[0], len(rows), [*rows]) == ("row", 1, ["row"])
    assert read == [b"[]"]

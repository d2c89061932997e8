"""What answers say of a slate as stored text: read again it is what it was said of."""

import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import SlateItem, SourceReport
from orchestrator.core.report import keys_of
from orchestrator.core.wording import read_pairs, read_slots, read_sources, say_pairs, say_slots, say_sources

NAMES = st.text(min_size=1, max_size=8)
SLOTS = st.builds(
    SlateItem,
    st.integers(0, 2**31 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(NAMES, max_size=3).map(tuple),
    st.floats(0, 1),
)
REPORTS = st.builds(
    SourceReport,
    NAMES,
    st.sampled_from(["ok", "cached", "timeout"]),
    st.integers(0, 10**6).map(lambda us: us / 1000),
    st.integers(0, 500),
    st.integers(0, 100),
)


@given(st.lists(SLOTS, max_size=5).map(tuple))
def test_slots_come_back_whatever_their_sources_are_called(items):
    assert read_slots(say_slots(items), keys_of(items)) == items


@given(st.lists(REPORTS, max_size=3).map(tuple))
def test_reports_of_sources_come_back(sources):
    assert read_sources(say_sources(sources)) == sources


@given(st.dictionaries(NAMES, st.one_of(NAMES, st.integers(0, 2**31))))
def test_pairs_come_back_in_their_order(pairs):
    assert read_pairs(say_pairs(tuple(pairs.items()))) == tuple(pairs.items())


def test_the_gaps_of_a_slot_are_its_beginning_and_its_properties():
    said = say_slots((SlateItem(7, 0.5, ("100%",)), SlateItem(3, 1.0, (), 0.25)))

    filled = said % (b'{"id":"a","rank":', b'{"price":1}', b'{"id":"b","rank":', b"{}")

    assert orjson.loads(filled) == [
        {"id": "a", "rank": 1, "score": 0.5, "sources": ["100%"], "properties": {"price": 1}},
        {"id": "b", "rank": 2, "score": 1.0, "sources": [], "properties": {}, "propensity": 0.25},
    ]


def test_a_score_that_is_no_number_stays_one():
    [item] = read_slots(say_slots((SlateItem(1, math.nan, ()),)), np.array([1], np.int32))

    assert math.isnan(item.score)


@pytest.mark.parametrize("reasons", [None, []])
def test_no_slots_are_an_empty_list(reasons):
    assert say_slots((), reasons) == b"[]"

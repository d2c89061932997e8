"""Toxics as they travel."""

import pytest

from orchestrator.doctor.toxics import Direction, Kind, Toxic, ToxicError, both_ways, find, parse


def test_what_is_written_is_what_is_read():
    toxics = (Toxic(Kind.LATENCY, Direction.UP, ms=50, jitter_ms=5), Toxic(Kind.RESET, share=0.5, now=True))

    assert parse([toxic.document() for toxic in toxics]) == toxics


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("latency", "list of objects|should be a list"),
        ([3], "should be an object"),
        ([{"kind": "gravity"}], "kinds: latency"),
        ([{"kind": "hang", "direction": "sideways"}], "directions: up, down"),
        ([{"kind": "latency", "milliseconds": 4}], "no 'milliseconds'"),
        ([{"kind": "latency", "ms": "4"}], "wrong type"),
        ([{"kind": "latency", "ms": True}], "wrong type"),
        ([{"kind": "corrupt", "share": 1.5}], "no share"),
        ([{"kind": "latency", "ms": -1}], "negative"),
        ([{"kind": "bandwidth"}], "bytes_per_s"),
        ([{"kind": "slicer"}], "at least 1"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could_be(document, says):
    with pytest.raises(ToxicError, match=says):
        parse(document)


def test_both_ways_is_the_same_toxic_up_and_down():
    up, down = both_ways(Toxic(Kind.LATENCY, ms=5, share=0.5))

    assert (up.direction, down.direction) == (Direction.UP, Direction.DOWN)
    assert up.ms == down.ms == 5
    assert up.share == down.share == 0.5


def test_the_last_of_a_kind_counts():
    toxics = [Toxic(Kind.LATENCY, ms=1), Toxic(Kind.LATENCY, ms=2), Toxic(Kind.LATENCY, Direction.UP, ms=3)]

    assert find(toxics, Kind.LATENCY, Direction.DOWN) == toxics[1]
    assert find(toxics, Kind.HANG, Direction.DOWN) is None

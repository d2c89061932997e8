"""Slates and events joined: who is credited with what, told as transcripts of a day in the shop."""

import random
from datetime import datetime

import numpy as np
import pytest

from protos.arrays import Rows
from services.training.attribution import OUTCOMES, Events, Slates, attribute
from services.training.dataset import TYPE_CODES

ITEMS = ["mug", "pot", "lamp", "rug", "vase"]
DAY = datetime.fromisoformat("2026-03-01T00:00:00+00:00").timestamp()


def at_us(moment):
    """`day+hh:mm:ss` or `hh:mm:ss` → microseconds."""
    day, _, clock = moment.rpartition("+")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return int((DAY + int(day or 0) * 86_400 + hours * 3600 + minutes * 60 + seconds) * 1e6)


def told(story):
    """
    A transcript → slates and events.

    moment slate NAME for WHO in SESSION: items…        `-` is nobody, no session
    moment VERB ITEM by WHO in SESSION [of NAME[#POSITION]] [as EVENT_ID]
    """
    slates, events = [], []
    for number, line in enumerate(one for one in story.splitlines() if one.strip()):
        words = ["" if word == "-" else word for word in line.split()]
        if words[1] == "slate":
            slates.append((words[2], words[4], words[6].rstrip(":"), at_us(words[0]), words[7:]))
            continue
        of = words[words.index("of") + 1] if "of" in words else ""
        name, _, position = of.partition("#")
        event_id = words[words.index("as") + 1] if "as" in words else f"e{number}"
        key = ITEMS.index(words[2]) if words[2] in ITEMS else -1
        row = (event_id, TYPE_CODES[words[1]], at_us(words[0]), key, name, int(position or 0), words[4], words[6])
        events.append(row)
    return slates_of(slates), events_of(events)


def slates_of(rows):
    ids, subjects, sessions, moments, items = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    slots = Rows.of([[ITEMS.index(item) for item in of] for of in items])
    return Slates(ids, subjects, sessions, np.array(moments, np.int64), slots, np.ones(len(slots.values)))


def events_of(rows):
    ids, types, moments, keys, slates, positions, subjects, sessions = zip(*rows, strict=True) if rows else ((),) * 8
    return Events(
        ids,
        np.array(types, np.uint8),
        np.array(moments, np.int64),
        np.array(keys, np.int32),
        slates,
        np.array(positions, np.int32),
        subjects,
        sessions,
    )


def became(story):
    """`slate#position` → what was done, of every slot that was shown; and the counts."""
    slates, events = told(story)
    outcomes = attribute(slates, events)
    assert sum(outcomes.counts.values()) == len(events), "in = credited + each reason why not"
    names = {code: name for name, code in TYPE_CODES.items()}
    rows = np.repeat(np.arange(len(slates)), np.diff(slates.slots.offsets))
    what = {
        f"{slates.ids[row]}#{position}": " ".join(names[OUTCOMES[i]] for i in np.flatnonzero(outcomes.done[slot]))
        for slot, (row, position) in enumerate(zip(rows, slates.positions, strict=True))
        if outcomes.shown[slot]
    }
    return what, {reason: n for reason, n in outcomes.counts.items() if n}


def test_what_was_shown_and_done_is_credited_slot_by_slot():
    what, counts = became("""
        10:00:00 slate r1 for u:anna in s1: mug pot lamp
        10:00:01 impression mug by u:anna in s1 of r1#1
        10:00:01 impression pot by u:anna in s1 of r1#2
        10:00:09 click pot by u:anna in s1 of r1#2
        10:05:00 add_to_cart pot by u:anna in s1 of r1#2
    """)

    assert what == {"r1#1": "", "r1#2": "click add_to_cart"}
    assert counts == {"impressions": 2, "by_position": 2}


def test_without_a_position_the_item_tells_the_slot():
    what, counts = became("""
        10:00:00 slate r1 for u:anna in s1: mug pot lamp
        10:00:01 impression lamp by u:anna in s1 of r1
        10:00:09 click lamp by u:anna in s1 of r1
    """)

    assert what == {"r1#3": "click"}
    assert counts == {"impressions": 1, "by_item": 1}


def test_a_position_that_is_another_items_gives_way_to_the_item():
    what, counts = became("""
        10:00:00 slate r1 for u:anna in s1: mug pot lamp
        10:00:09 click pot by u:anna in s1 of r1#1
        10:00:10 click rug by u:anna in s1 of r1#1
    """)

    assert what == {"r1#2": "click"}
    assert counts == {"by_item": 1, "without_impression": 1}


def test_an_event_that_names_no_slate_goes_to_where_its_item_was_last_shown():
    what, counts = became("""
        10:00:00 slate r1 for u:anna in s1: mug pot
        10:00:01 impression mug by u:anna in s1 of r1#1
        10:10:00 slate r2 for u:anna in s1: pot mug
        10:10:01 impression mug by u:anna in s1 of r2#2
        10:12:00 purchase mug by u:anna in s1
        10:20:00 slate r3 for u:anna in s1: mug
        10:20:01 impression mug by u:anna in s1 of r3#1
    """)

    assert what == {"r1#1": "", "r2#2": "purchase", "r3#1": ""}
    assert counts == {"impressions": 3, "by_shopper": 1}


def test_the_session_decides_before_the_shopper_and_a_stranger_is_credited_nothing():
    what, counts = became("""
        10:00:00 slate r1 for u:anna in phone: mug
        10:00:01 impression mug by u:anna in phone of r1#1
        10:01:00 slate r2 for u:anna in desk: mug
        10:01:01 impression mug by u:anna in desk of r2#1
        10:02:00 add_to_cart mug by u:anna in phone
        10:03:00 purchase mug by u:anna in tablet
        10:04:00 purchase mug by u:bert in other
    """)

    assert what == {"r1#1": "add_to_cart", "r2#1": "purchase"}
    assert counts == {"impressions": 2, "by_shopper": 2, "without_impression": 1}


def test_who_logged_in_after_the_impression_is_still_the_same_session():
    what, _ = became("""
        10:00:00 slate r1 for v:browser in s1: mug
        10:00:01 impression mug by v:browser in s1 of r1#1
        10:02:00 purchase mug by u:anna in s1
    """)

    assert what == {"r1#1": "purchase"}


def test_each_kind_of_event_has_its_window():
    what, counts = became("""
        10:00:00 slate r1 for u:anna in s1: mug pot lamp
        10:00:00 impression mug by u:anna in s1 of r1#1
        10:00:00 impression pot by u:anna in s1 of r1#2
        10:00:00 impression lamp by u:anna in s1 of r1#3
        11:00:00 click mug by u:anna in s1 of r1#1
        11:00:01 click pot by u:anna in s1 of r1#2
        1+10:00:01 add_to_cart pot by u:anna in s1 of r1#2
        2+10:00:00 purchase lamp by u:anna in s1 of r1#3
        3+10:00:01 purchase pot by u:anna in s1 of r1#2
    """)

    assert what == {"r1#1": "click", "r1#2": "", "r1#3": "purchase"}
    assert counts == {"impressions": 3, "by_position": 2, "too_late": 3}


def test_a_slot_that_was_acted_upon_was_seen_though_no_impression_came():
    what, _ = became("""
        10:00:00 slate r1 for u:anna in s1: mug pot
        10:00:09 click pot by u:anna in s1 of r1#2
        10:00:10 click mug by u:anna in s1
    """)

    assert what == {"r1#2": "click"}


def test_what_lies_before_its_slate_by_more_than_clocks_may_is_not_believed():
    what, counts = became("""
        10:00:00 slate r1 for u:anna in s1: mug pot
        09:56:00 click mug by u:anna in s1 of r1#1
        09:54:00 click pot by u:anna in s1 of r1#2
    """)

    assert what == {"r1#1": "click"}
    assert counts == {"by_position": 1, "too_early": 1}


def test_nothing_vanishes_without_a_count():
    what, counts = became("""
        10:00:00 slate r1 for u:anna in s1: mug
        10:00:01 impression mug by u:anna in s1 of lost#1
        10:00:01 impression rug by u:anna in s1 of r1
        10:00:01 impression mug by u:anna in s1 of r1#1
        10:00:02 click mug by u:anna in s1 of r1#1 as same
        10:00:02 click mug by u:anna in s1 of r1#1 as same
        10:00:03 remove_from_cart mug by u:anna in s1 of r1#1
        10:00:04 click unheard-of by u:anna in s1
    """)

    assert what == {"r1#1": "click"}
    assert counts == {
        "impressions": 1,
        "impressions_without_slot": 2,
        "by_position": 1,
        "duplicates": 1,
        "no_outcome": 1,
        "without_impression": 1,
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_arrival_changes_nothing(seed):
    story = """
        10:00:00 slate r1 for u:anna in s1: mug pot lamp
        10:05:00 slate r2 for u:anna in s1: lamp mug
        10:00:01 impression mug by u:anna in s1 of r1#1 as a
        10:00:01 impression lamp by u:anna in s1 of r1#3 as b
        10:05:01 impression mug by u:anna in s1 of r2#2 as c
        10:06:00 click mug by u:anna in s1 as d
        10:04:00 click mug by u:anna in s1 as e
        10:07:00 purchase lamp by u:anna in s1 as f
        10:07:00 purchase lamp by u:anna in s1 as f
    """.splitlines()
    shuffled = random.Random(seed).sample(story, len(story))

    assert became("\n".join(shuffled)) == became("\n".join(story))


def test_gains_are_those_of_lessons_the_strongest_deed_counts():
    slates, events = told("""
        10:00:00 slate r1 for u:anna in s1: mug pot lamp
        10:00:01 click mug by u:anna in s1 of r1#1
        10:00:02 purchase mug by u:anna in s1 of r1#1
        10:00:03 view pot by u:anna in s1 of r1#2
    """)

    gains = attribute(slates, events).gains

    np.testing.assert_allclose(gains, [np.sqrt(5), 1, 0])


def test_no_slates_and_no_events_are_nothing_to_be_told():
    assert became("") == ({}, {})

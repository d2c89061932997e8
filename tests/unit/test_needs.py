import pytest

from protos import needs


def test_what_is_written_is_read_in_its_order_with_words_for_names():
    written = {
        "loss": 0.5,
        **needs.figures("lists_to_learn_from", 60, 12),
        **needs.figures("weights", 30, is_met=False),
        **needs.figures("events", 1, 3),
    }

    lists, weights, events = needs.of(written)

    assert (lists.what, lists.needed, lists.has, lists.is_met) == ("lists to learn from", 60, 12, False)
    assert (weights.needed, weights.has, weights.is_met) == (30, None, False)
    assert events.is_met
    assert needs.of({"loss": 0.5}) == []


def test_a_need_is_told_in_events_by_the_pace_so_far_and_not_at_all_without_one():
    (some,) = needs.of(needs.figures("lists", 60, 12))
    (none,) = needs.of(needs.figures("lists", 60, 0))

    assert some.in_events(1_000) == 5_000
    assert some.in_events(0) is None
    assert none.in_events(1_000) is None


def test_a_need_without_a_number_or_an_answer_is_refused():
    with pytest.raises(ValueError, match="lists"):
        needs.figures("lists", 60)

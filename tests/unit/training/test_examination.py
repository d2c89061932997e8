"""Examination by position: the truth of simulated clicks is found again, by either way."""

import random

import numpy as np
import pytest

from services.training.examination import (
    EXCHANGE,
    HARVEST,
    LARGEST_WEIGHT,
    LEAST_CLICKS,
    NONE,
    Examination,
    by_exchange,
    by_harvest,
    estimate,
)

TRUTH = 1 / np.arange(1, 11)
"""Chances of ten positions, as eye tracking has them about."""


def clicks_of(rng, places, attraction):
    return rng.random(len(places)) < TRUTH[places] * attraction


def test_what_is_alike_and_stood_in_several_slots_tells_how_slots_are_looked_at():
    rng = np.random.default_rng(1)
    group = rng.integers(0, 30, 200_000)
    attraction = np.linspace(0.05, 0.5, 30)[group]
    # The better stands higher, as rankers have it: a plain click rate by position would be too steep.
    places = np.clip((10 - group / 3 + rng.normal(0, 3, len(group))).astype(int), 0, 9)
    clicked = clicks_of(rng, places, attraction)

    chances = by_harvest(places, clicked, group, 10)

    naive = np.bincount(places, clicked, 10) / np.bincount(places, minlength=10)
    assert np.abs(np.log(chances / TRUTH)).max() < 0.15
    assert np.abs(np.log(naive / naive[0] / TRUTH)).max() > 0.5


def exchanged(rng, n, slots=10, line=20, share=0.5):
    """Slates whose item at home in place j is the j-th best; a pair of places changes hands now and then."""
    pairs = [(a, b) for a in range(slots) for b in range(a + 1, line)]
    attraction = np.linspace(0.6, 0.1, line)
    places, shown, propensities = [], [], []
    chance = random.Random(int(rng.integers(1 << 30)))
    for _ in range(n):
        order = list(range(line))
        if chance.random() < share:
            a, b = chance.choice(pairs)
            order[a], order[b] = order[b], order[a]
        for place, item in enumerate(order[:slots]):
            places.append(place)
            shown.append(attraction[item])
            stays = 1 - share * (line - 1) / len(pairs)
            propensities.append(stays if item == place else share / len(pairs))
    return np.array(places), np.array(shown), np.array(propensities)


def test_exchanges_of_known_probability_tell_it_whatever_stands_where():
    rng = np.random.default_rng(2)
    places, attraction, propensities = exchanged(rng, 60_000)
    clicked = clicks_of(rng, places, attraction)

    found = by_exchange(places, clicked, propensities, 10)

    assert np.abs(np.log(found / TRUTH)).max() < 0.3


def test_chance_is_believed_where_it_has_said_enough_and_the_log_else():
    rng = np.random.default_rng(3)
    places, attraction, propensities = exchanged(rng, 20_000)
    clicked = clicks_of(rng, places, attraction)
    alike = rng.integers(0, 5, len(places))

    assert estimate(places + 1, clicked, alike, propensities).how == EXCHANGE
    assert estimate(places + 1, clicked, alike, np.ones(len(places))).how == HARVEST


def test_too_few_clicks_correct_nothing():
    places = np.arange(1000) % 10 + 1
    clicked = np.arange(1000) < LEAST_CLICKS - 1

    found = estimate(places, clicked, np.zeros(1000, int), np.ones(1000))

    assert found.how == NONE
    assert found.weights(places).tolist() == [1.0] * 1000


def test_a_slot_nobody_clicked_is_smoothed_and_no_weight_is_above_the_cap():
    places = np.repeat(np.arange(1, 4), 1000)
    clicked = np.zeros(3000, bool)
    clicked[:400] = True

    found = estimate(places, clicked, np.zeros(3000, int), np.ones(3000))

    assert 0 < found.chances[2] < found.chances[0] == 1
    assert found.weights(places).max() == LARGEST_WEIGHT


@pytest.mark.parametrize(("position", "weight"), [(1, 1.0), (2, 2.0), (3, 4.0), (99, 4.0)])
def test_a_position_beyond_the_last_known_counts_like_it(position, weight):
    examination = Examination(np.array([1.0, 0.5, 0.25]), HARVEST, 500)

    assert examination.weights(np.array([position])).tolist() == [weight]


def test_nothing_shown_is_nothing_known():
    none = estimate(np.empty(0, int), np.empty(0, bool), np.empty(0, int), np.empty(0))

    assert none.weights(np.array([1, 5])).tolist() == [1.0, 1.0]

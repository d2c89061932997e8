"""Off-policy estimates from what exploration logged: right where counting clicks is wrong."""

import random

import numpy as np
import pytest

from orchestrator.core.exploration import explored, propensities
from services.training.off_policy import Estimate, estimate

SLOTS, LINE, SHARE, N = 3, 6, 0.4, 30_000

APPEAL = np.array([0.10, 0.30, 0.15, 0.60, 0.50, 0.20])
"""What shoppers think of each item: not what the policy that is logged thinks, which orders them 0, 1, 2, …"""

SEEN = np.array([1.0, 0.5, 0.2])
"""Share of shoppers who look at each slot."""

OTHER = [3, 4, 1]
"""What the policy that is to be judged would show."""


@pytest.fixture(scope="module")
def log():
    """Slates of a shop with exploration on: items, propensities, clicks."""
    dice, chance = random.Random(11), np.random.default_rng(12)
    slates = [explored(range(LINE), SLOTS, SHARE, dice) for _ in range(N)]
    items = np.array([[item for item, _ in slate] for slate in slates])
    logged = np.array([[p for _, p in slate] for slate in slates])
    clicks = (chance.random(items.shape) < APPEAL[items] * SEEN).astype(float)
    return items, logged, clicks


def test_the_estimate_of_another_policy_is_right_where_counting_clicks_is_wrong(log):
    items, logged, clicks = log
    truth = float((APPEAL[OTHER] * SEEN).sum())

    found = estimate(clicks, logged, (items == np.array(OTHER)).astype(float))

    assert found.interval[0] < truth < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.3 * truth, "and narrow enough to say something"
    assert found.snips == pytest.approx(truth, rel=0.1)
    assert found.weight == pytest.approx(1.0, abs=0.1)
    # Clicks an impression of the items it would show, wherever they were shown: items of lower slots are not looked at.
    naive = sum(clicks[items == item].mean() for item in OTHER)
    assert not found.interval[0] < naive < found.interval[1]


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    truth, dice, chance = float((APPEAL[OTHER] * SEEN).sum()), random.Random(1), np.random.default_rng(2)
    table, held = propensities(SLOTS, LINE, SHARE), 0
    for _ in range(100):
        items = np.array([[item for item, _ in explored(range(LINE), SLOTS, SHARE, dice)] for _ in range(1500)])
        clicks = (chance.random(items.shape) < APPEAL[items] * SEEN).astype(float)
        logged = table[np.arange(SLOTS), items]
        low, high = estimate(clicks, logged, (items == np.array(OTHER)).astype(float)).interval
        held += low < truth < high

    assert held >= 88, "95 % promised, 100 tries, and a normal interval of skewed sums"


def test_of_the_logged_policy_itself_the_estimate_is_its_mean(log):
    _items, logged, clicks = log

    found = estimate(clicks, logged, logged)

    assert found.ips == pytest.approx(clicks.sum(1).mean())
    assert found.snips == pytest.approx(clicks.sum(1).mean())
    assert found.weight == 1.0


def test_a_random_policy_is_judged_as_well(log):
    items, logged, clicks = log
    truth = float((APPEAL.mean() * SEEN).sum())

    found = estimate(clicks, logged, np.full(items.shape, 1 / LINE))

    assert found.interval[0] < truth < found.interval[1]


def test_one_slate_has_no_interval():
    one = np.ones((1, 2))

    assert estimate(one, one, one) == Estimate(2.0, (-np.inf, np.inf), 2.0, 1.0)


@pytest.mark.parametrize("logged", [0.0, 1.5, np.nan])
def test_a_propensity_that_cannot_be_is_refused(logged):
    with pytest.raises(ValueError, match="propensity"):
        estimate(np.ones((2, 1)), np.full((2, 1), logged), np.ones((2, 1)))


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="three tables"):
        estimate(np.ones((2, 1)), np.ones((2, 2)), np.ones((2, 1)))

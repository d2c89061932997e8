"""Kept is what is better beyond noise on the confirming window, and on no page worse beyond it."""

import numpy as np
import pytest

from services.training.metrics import Judged
from services.training.tuning.outcome import Outcome, heads, worth
from services.training.tuning.stages import judged
from services.training.tuning.study import Search, Trial
from services.training.tuning.verdict import decide

HOME = ("discovery", "rebuy")


def figures(values):
    values = np.asarray(values, float)
    return Judged(values, values, values, values)


def an_outcome(gain=0.0, noise=0.0, n=400, seed=0, **by_task):
    base = np.random.default_rng(3).random((3, n))
    rng = np.random.default_rng(seed)
    tasks = ("discovery", "rebuy", "item")
    values = {
        task: figures(base[i] + by_task.get(task, gain) + noise * rng.standard_normal(n))
        for i, task in enumerate(tasks)
    }
    return Outcome(values, {task: np.arange(n) for task in tasks})


def test_a_clear_gain_is_kept():
    verdict = decide(an_outcome(), an_outcome(0.02, 0.05, seed=1), HOME, 7)

    assert verdict.is_kept
    assert verdict.gain == pytest.approx(0.02, abs=0.01)
    assert 0 < verdict.low < verdict.gain < verdict.high
    assert verdict.shoppers == 400


def test_the_luck_of_a_hand_of_trials_is_not():
    kept = [decide(an_outcome(), an_outcome(0.0, 0.2, seed=seed), HOME, 7).is_kept for seed in range(40)]

    assert sum(kept) <= 3


def test_a_gain_on_home_does_not_pay_for_a_loss_on_another_page():
    verdict = decide(an_outcome(), an_outcome(0.02, 0.01, seed=1, item=-0.1), HOME, 7)

    assert not verdict.is_kept
    assert verdict.worse == ("item",)
    assert "worse beyond noise in item" in verdict.why


def test_the_gain_is_the_mean_over_tasks_whatever_their_sizes():
    users = {"discovery": np.array([1, 2]), "rebuy": np.array([1, 2, 3, 4])}
    before = Outcome({"discovery": figures([0, 0]), "rebuy": figures([0, 0, 0, 0])}, users)
    after = Outcome({"discovery": figures([1, 0]), "rebuy": figures([0, 0, 0, 1])}, users)

    verdict = decide(before, after, HOME, 7)

    assert verdict.gain == pytest.approx(after.value(HOME) - before.value(HOME)) == pytest.approx((0.5 + 0.25) / 2)


def test_no_difference_is_no_reason():
    assert not decide(an_outcome(), an_outcome(), HOME, 7).is_kept


def test_a_query_is_worth_half_its_order_and_half_what_is_found():
    one = Judged(np.array([1.0]), np.array([0.5]), np.array([0.0]), np.array([0.0]))

    assert worth(one).tolist() == [0.75]


class A_stage:  # noqa: N801 – a builder that reads like one
    name, weight, tasks, space = "toy", 1.0, HOME, ()

    def __init__(self, gain):
        self.confirmed, self.gain = [], gain

    def attempt(self, values, so_far):
        raise AssertionError

    def confirm(self, values):
        self.confirmed.append(values)
        return an_outcome(self.gain if values["x"] else 0.0, 0.01 * values["x"], seed=1)


def searched(*reached):
    return Search(tuple(Trial(i, {"x": i}, value) for i, value in enumerate(reached)), {"x": 0})


def test_only_the_best_meets_the_defaults_and_once():
    stage = A_stage(0.05)

    held = judged(stage, searched(0.1, 0.2, 0.3), 7)

    assert stage.confirmed == [{"x": 0}, {"x": 2}]
    assert held.kept == {"x": 2}
    assert held.to_json()["moved"] == {"x": [0, 2]}


def test_what_does_not_hold_on_the_confirming_window_is_left():
    held = judged(A_stage(-0.01), searched(0.1, 0.9), 7)

    assert held.kept == {}
    assert "not better than the defaults beyond noise" in held.verdict.why
    assert set(held.confirmed) == {"default", "found"}


def test_where_nothing_was_better_nothing_is_fitted_to_confirm_it():
    stage = A_stage(0.05)

    held = judged(stage, searched(0.9, 0.2, None), 7)

    assert stage.confirmed == []
    assert held.verdict.why == "nothing better than the defaults in 3 trials"
    assert held.to_json()["cut_short"] == 1


def test_without_a_trial_there_is_nothing_to_say():
    assert judged(A_stage(1.0), Search((), {"x": 0}), 7).verdict.why.startswith("no time left")


def test_heads_are_the_first_twenty_and_end_in_minus_one():
    from protos.arrays import Rows
    from services.chassis.model import Candidates

    answers = Candidates(Rows.of([list(range(25)), [], [7, 3]]), np.zeros(27, np.float32))

    rows = heads(answers)

    assert rows[0].tolist() == list(range(20))
    assert set(rows[1].tolist()) == {-1}
    assert rows[2].tolist() == [7, 3] + [-1] * 18

"""Trials: the defaults first, nothing twice, the same after a stop as without one, hopeless ones cut short."""

import pytest

from services.training.tuning.space import Axis, defaults
from services.training.tuning.study import Pruned, search

SPACE = (
    Axis("x", 0.5, "", low=0.0, high=1.0),
    Axis("days", 30.0, "", steps=(7.0, 30.0, 90.0)),
    Axis("method", "a", "", steps=("a", "b")),
)


class Objective:
    """Best at x = 0.8, 90 days, method b; counts how often it was asked, and is stopped when told."""

    def __init__(self, stop_at=None):
        self.asked, self.stop_at = [], stop_at

    def __call__(self, values, so_far):
        if self.stop_at is not None and len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(dict(values))
        return 1 - abs(values["x"] - 0.8) + (values["days"] == 90.0) + (values["method"] == "b")


def tried(where):
    return [trial.values for trial in where.trials]


def test_the_defaults_are_tried_first(tmp_path):
    where = search(tmp_path / "s.db", "one", SPACE, Objective(), 7, 4)

    assert where.trials[0].values == where.default.values == defaults(SPACE)
    assert where.default.reached == pytest.approx(0.7)


def test_it_finds_what_is_better(tmp_path):
    where = search(tmp_path / "s.db", "one", SPACE, Objective(), 7, 40)

    assert (where.best.values["days"], where.best.values["method"]) == (90.0, "b")
    assert where.best.reached > 2.9


def test_a_search_that_was_stopped_tries_what_an_unbroken_one_tries(tmp_path):
    unbroken = search(tmp_path / "whole.db", "one", SPACE, Objective(), 7, 16)
    first, second = Objective(stop_at=13), Objective()

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "parts.db", "one", SPACE, first, 7, 16)
    resumed = search(tmp_path / "parts.db", "one", SPACE, second, 7, 16)

    assert tried(resumed) == tried(unbroken)
    assert len(first.asked) + len(second.asked) <= 16
    assert not [values for values in second.asked if values in first.asked]


def test_defaults_that_were_stopped_are_tried_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "s.db", "one", SPACE, Objective(stop_at=0), 7, 3)

    assert tried(search(tmp_path / "s.db", "one", SPACE, Objective(), 7, 3))[0] == defaults(SPACE)


def test_a_finished_search_asks_nothing(tmp_path):
    done = search(tmp_path / "s.db", "one", SPACE, Objective(), 7, 6)
    objective = Objective()

    assert search(tmp_path / "s.db", "one", SPACE, objective, 7, 6) == done
    assert objective.asked == []


def test_nothing_is_asked_twice_however_small_the_space(tmp_path):
    objective = Objective()
    space = (SPACE[2], Axis("x", 0.5, "", steps=(0.5,)), Axis("days", 30.0, "", steps=(30.0,)))

    where = search(tmp_path / "s.db", "one", space, objective, 7, 12)

    assert len(where.trials) == 12
    assert len(objective.asked) == 2


def test_studies_of_other_names_are_not_mixed_in(tmp_path):
    search(tmp_path / "s.db", "one", SPACE, Objective(), 7, 5)
    objective = Objective()

    search(tmp_path / "s.db", "other", SPACE, objective, 7, 3)

    assert len(objective.asked) == 3


def test_what_was_tuned_before_is_tried_second_if_it_lies_in_the_space(tmp_path):
    before, outside = {"x": 0.75, "days": 90.0}, {"x": 7.0}

    where = search(tmp_path / "s.db", "one", SPACE, Objective(), 7, 3, also=[before, outside])

    assert tried(where)[1] == {"x": 0.75, "days": 90.0, "method": "a"}
    assert all(0 <= values["x"] <= 1 for values in tried(where))


def test_it_ends_when_time_is_up_after_the_trial_that_runs(tmp_path):
    objective = Objective()

    where = search(tmp_path / "s.db", "one", SPACE, objective, 7, 9, may_go_on=lambda: len(objective.asked) < 2)

    assert len(where.trials) == 2


def test_without_time_nothing_is_tried(tmp_path):
    where = search(tmp_path / "s.db", "one", SPACE, Objective(), 7, 9, may_go_on=lambda: False)

    assert (where.trials, where.best, where.default) == ((), None, None)


def test_a_hopeless_trial_is_cut_short_and_is_never_the_best(tmp_path):
    steps = []

    def attempt(values, so_far):
        value = values["x"]
        for step in range(4):
            steps.append(step)
            so_far(value)
        return value

    where = search(tmp_path / "s.db", "one", SPACE[:1], attempt, 7, 30)

    cut = [trial for trial in where.trials if trial.reached is None]
    assert cut
    assert where.trials[0].reached is not None
    assert len(steps) < 4 * 30
    assert where.best.reached == max(t.values["x"] for t in where.trials)


def test_a_trial_cut_short_by_itself_counts_as_tried(tmp_path):
    def attempt(values, so_far):
        if values != {"x": 0.5}:
            raise Pruned
        return 1.0

    where = search(tmp_path / "s.db", "one", SPACE[:1], attempt, 7, 4)

    assert [trial.reached for trial in where.trials] == [1.0, None, None, None]
    assert where.best == where.default


def test_of_equals_the_earliest_is_the_best(tmp_path):
    where = search(tmp_path / "s.db", "one", SPACE, lambda values, so_far: 1.0, 7, 5)

    assert where.best == where.default


def test_every_trial_is_told(tmp_path):
    told = []

    search(tmp_path / "s.db", "one", SPACE, Objective(), 7, 3, tell=lambda where: told.append(len(where.trials)))

    assert told == [1, 2, 3]

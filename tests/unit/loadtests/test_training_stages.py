"""What each stage of a training costs."""

import numpy as np

from loadtests.training_stages import Stages


def test_every_step_is_closed_by_the_next_and_the_last_by_the_end(capsys):
    stages = Stages()

    stages("reading the data")
    stages("fitting popular")
    stages.end()
    stages.end()

    assert [what for what, *_ in stages.found] == ["reading the data", "fitting popular"]
    assert all(cpu >= 0 and wall >= 0 and peak > 1 for _, cpu, wall, peak in stages.found)


def test_a_peak_is_that_of_its_own_step(capsys):
    stages = Stages()

    stages("large")
    held = np.ones(30_000_000, np.float32)
    del held
    stages("small")
    stages.end()

    (_, _, _, large), (_, _, _, small) = stages.found
    assert large > small + 60

"""The whole pipeline under thousands of seeded bad days; and bugs put in on purpose, which must not pass."""

import gc
import json
import os
import subprocess
import sys

import pytest

from orchestrator.core.model import Level, Loss, Rung
from tests.simulation.explore import Found, explore, judged
from tests.simulation.loop import ShuffledLoop
from tests.simulation.mutations import MUTATIONS
from tests.simulation.plan import plan_of
from tests.simulation.world import run

ENOUGH = 2000
"""Seeds among which even the rarest thing happened several times."""

CAUGHT_WITHIN = 25
"""Seeds after a mutation's `near`; most are caught by the first."""


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Found:
    """What the seeds of this run came to."""
    found = Found()
    for part in explore(1, request.config.getoption("--seeds")):
        found += part
    return found


# case 9: wallclock_jump
def test_no_seed_breaks_an_invariant(found: Found):
    first = min(found.broken, default=0)

    assert not found.broken, (
        f"{len(found.broken)} of {found.seeds} seeds; the first, {first}: {found.broken[first][:3]}; "
        f"python -m tests.simulation --replay {first} --verbose"
    )


def test_the_seeds_meet_everything_that_can_happen(found: Found):
    if found.seeds < ENOUGH:
        pytest.skip(f"{found.seeds} seeds may miss what is rare; {ENOUGH} do not")
    wanted = {
        *(f"outcome {loss.value}" for loss in Loss),
        *(f"slate {level.value}" for level in Level if level is not Level.STALE),
        "slate full, cached",
        "slate stale, cached",
        "slate popular, cached",
        *(f"rung {rung.name.lower()}" for rung in (Rung.FULL, Rung.NARROW, Rung.NO_RERANK, Rung.POPULAR)),
        *(f"attempt {kind}" for kind in ("first", "retry", "hedge")),
        "breaker closed → open",
        "breaker open → half_open",
        "breaker half_open → closed",
        "breaker half_open → open",
        "hung up",
        "stall",
    }

    assert wanted - set(found.seen) == set()


def test_a_seed_is_the_same_in_another_process():
    seeds = [3, 4, 5]
    script = (
        "import json, sys; from tests.simulation.plan import plan_of; from tests.simulation.world import run;"
        "print(json.dumps([run(plan_of(seed)).digest for seed in json.loads(sys.argv[1])]))"
    )

    told = subprocess.run(
        [sys.executable, "-c", script, json.dumps(seeds)],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert json.loads(told.stdout) == [run(plan_of(seed)).digest for seed in seeds]


def test_another_order_of_what_is_ready_is_another_trace():
    """Else the shuffled loop shuffles nothing."""
    plan = plan_of(1)
    shuffled = run(plan).trace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShuffledLoop, "_run_once", lambda self: super(ShuffledLoop, self)._run_once())
        in_order = run(plan).trace

    assert shuffled != in_order


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_bug_put_in_on_purpose_is_caught(name: str):
    mutation = MUTATIONS[name]
    gc.collect()

    with mutation.applied():
        for seed in range(mutation.near, mutation.near + CAUGHT_WITHIN):
            violations = judged(seed).violations
            if violations:
                break

    assert violations, f"seeds {mutation.near} to {mutation.near + CAUGHT_WITHIN - 1} see nothing wrong"
    assert any(f" {number} " in f" {violation}" for violation in violations for number in mutation.breaks), violations[
        :3
    ]

"""
The whole pipeline on a clock that jumps, against networks that misbehave by a seeded plan, with the invariants of the
resilience specification (§1.10) checked at every call, every answer and at rest.

    plan.py        seed → what is asked when, and what goes wrong when
    loop.py        an event loop that runs what is ready in a shuffled order, stalls, and owns a wall clock that jumps
    network.py     the way to each twin: takes time, hangs, errs, answers late or twice, will not be cancelled
    world.py       pipeline, guard and controller on those twins; carries a plan out and keeps a trace
    invariants.py  what must hold, and who broke it
    explore.py     many seeds on all cores
    mutations.py   bugs put in on purpose, each of which must be caught

`python -m tests.simulation --seeds 50000` looks further than the suite does; `--replay SEED` shows one.
"""

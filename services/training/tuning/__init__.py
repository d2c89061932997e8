"""
`tutti tune`: parameters found on a shop's own past, kept only where they are better than the defaults beyond noise.

    run.py          the whole way, top to bottom;  stages.py  what a stage is, and what comes of it
    grounds.py      what is judged: one window to choose on, a later one to confirm on
    space.py        what may be moved, how far, and why
    generators.py, fusion.py, reranker.py    the stages, in the order of a request's way
    outcome.py      figures of one set of parameters;  verdict.py  whether a difference is more than chance
    study.py        Optuna: trials, resuming, pruning;  tables.py  what was tried and kept, for people
"""

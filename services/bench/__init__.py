"""
What a request costs, measured beside the arithmetic in it: `tutti bench`.

    verb.py        the command
    run.py         a measurement, top to bottom;  options.py  what is asked of it
    shop.py        what is measured on: a trained data directory, and a copy of it that may be written to
    orchestra.py   the system under test, a process: what `tutti up` starts, with an orchestrator for each variant
    system.py      starts that process, finds out who is who in it, ends it
    variants.py    the settings an orchestrator is measured with
    asking.py      what is asked, kind by kind: the bytes that travel and the same as a query
    client.py      the load, a process of its own;  wire.py  its HTTP,  loads.py  how it is started
    bare.py        the bare arithmetic, a process of its own;  beside.py  how it is asked
    cpu.py         CPU seconds of processes;  figures.py  rows from what was counted;  knee.py  how much is too much
    table.py       the table;  facts.py  what machine that was
    growth/        how the cost grows with the shop

Nobody imports this package, and only `orchestra.py` and `bare.py` import the orchestrator (docs/adr/0040).
"""

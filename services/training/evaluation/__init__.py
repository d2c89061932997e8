"""
Judging what would be served, offline, against everything simple and tuned: `tutti evaluate`.

    run.py             the way of an evaluation, top to bottom
    past.py            the data directory of the past: why nothing leaks
    tasks.py           what is judged: who is asked for, where, and what they went on to want
    methods.py         what the system is compared with;  tuning.py, baseline_lists.py  chosen and made
    asking.py          lists from the serving pipeline
    judging.py         figures, intervals, slices, pairs;  compare.py, slices.py
    costs.py           time and memory of every stage
    tables.py, page.py, charts.py, document.py   the report as tables, as a page, inside a document
"""

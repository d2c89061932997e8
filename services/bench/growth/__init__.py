"""
How the cost of a request grows with the shop: `tutti bench --growth`.

    curve.py      points along axes, what they cost, and which of them are compared
    stretched.py  the artefacts of a trained shop, made larger or smaller
    shop.py       a data directory of such artefacts
    points.py     measures the points of one size of shop, a process of its own
    redis.py      bytes of Redis a shopper
    run.py        all axes, top to bottom
    chart.py      curves as SVG;  report.py  as text
"""

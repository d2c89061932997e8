"""
Shoppers for Locust: who comes, when, what they look at, what they do about it, and whether the objectives held.

The rule: nothing in here imports Locust, which patches the whole process for gevent when it is imported. So everything
that decides can be tested by itself; `loadtests/locustfile.py` puts it on the wire.
"""

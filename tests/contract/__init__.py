"""
What every implementation of a port must do: one class a port, and one subclass for each twin and each real adapter.

A twin may stand in for the real thing elsewhere because it passes the same tests. `test_memory.py` runs the twins,
`test_grpc.py`, `test_redis.py` and `test_feast.py` the real adapters against real servers on loopback.
"""

import pytest

for _port in ("candidate_source", "reranker", "feature_reader", "slate_cache", "event_log", "people", "catalogue"):
    pytest.register_assert_rewrite(f"tests.contract.{_port}")

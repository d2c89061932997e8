"""How often dependencies were called, read from a real page of metrics."""

import io
import urllib.request
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from orchestrator.doctor.calls import Calls, calls_made
from orchestrator.telemetry import new_metrics


@pytest.fixture
def two_orchestrators(monkeypatch):
    metrics = new_metrics()
    metrics.attempts.labels("cf", "first", "ok").inc(3)
    metrics.attempts.labels("cf", "hedge", "deadline").inc()
    metrics.attempts.labels("reranking", "first", "ok").inc(2)
    page = generate_latest(metrics.registry)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(page))
    return SimpleNamespace(orchestrators=lambda: [SimpleNamespace(address="h:1"), SimpleNamespace(address="h:2")])


def test_attempts_of_all_orchestrators_are_added_up(two_orchestrators):
    assert calls_made(two_orchestrators) == {"cf": Calls(6, 2), "reranking": Calls(4, 0)}


def test_one_that_does_not_tell_makes_the_sum_unknown(two_orchestrators, monkeypatch):
    def refuses(url, timeout):
        raise OSError

    monkeypatch.setattr(urllib.request, "urlopen", refuses)

    assert calls_made(two_orchestrators) == {}

"""Metrics by their labels, and log lines as JSON."""

import asyncio
import io
import json

import prometheus_client
import pytest

from orchestrator.telemetry import LATENCY_BUCKETS_S, JsonLine, TurnLogger, new_metrics


def test_a_child_is_the_same_by_place_and_by_name():
    metrics = new_metrics()

    metrics.losses.labels("user", "deadline").inc()
    metrics.losses.labels(dependency="user", loss="deadline").inc()

    assert metrics.losses.labels("user", "deadline")._value.get() == 2


def test_what_is_counted_by_children_is_scraped():
    metrics = new_metrics()

    metrics.requests.labels("/livez", "2xx").inc()
    metrics.requests.labels("/livez", "2xx").inc()
    metrics.request_seconds.labels("/livez").observe(0.02)
    metrics.limit.labels("user").set(7)

    value = metrics.registry.get_sample_value
    assert value("tutti_requests_total", {"route": "/livez", "status_class": "2xx"}) == 2
    assert value("tutti_request_seconds_count", {"route": "/livez"}) == 1
    assert value("tutti_limit", {"dependency": "user"}) == 7


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.0011, 0.1, 1.0, 1.5])
def test_a_time_falls_into_the_bucket_in_which_the_library_puts_it(seconds):
    ours = new_metrics().request_seconds.labels("/livez")
    theirs = prometheus_client.Histogram("theirs", "The same.", buckets=LATENCY_BUCKETS_S, registry=None)

    ours.observe(seconds)
    theirs.observe(seconds)

    assert [b.get() for b in ours._buckets] == [b.get() for b in theirs._buckets]
    assert ours._sum.get() == theirs._sum.get() == seconds


def test_what_cannot_be_counted_is_refused():
    metrics = new_metrics()

    with pytest.raises(ValueError, match="label"):
        metrics.losses.inc()
    with pytest.raises(ValueError, match="label"):
        metrics.request_seconds.observe(1.0)
    with pytest.raises(ValueError, match="non-negative"):
        metrics.backstops.inc(-1)


def test_a_wrong_number_of_labels_is_an_error():
    with pytest.raises(ValueError, match="label"):
        new_metrics().losses.labels("user")


def a_line(event, method="info", at=1_700_000_000.25):
    return JsonLine(lambda: at)(None, method, event)


@pytest.mark.parametrize("value", ["ü", "\ud800", 2**70, {"a": [1, 2.5, None, True]}])
def test_every_line_is_json_whatever_is_in_it(value):
    line = a_line({"event": "slate", "value": value})

    assert b"\n" not in line
    assert json.loads(line) == {
        "event": "slate",
        "value": value,
        "level": "info",
        "timestamp": "2023-11-14T22:13:20.250000Z",
    }


def test_what_json_has_no_words_for_is_told_as_text():
    assert json.loads(a_line({"value": {1}}))["value"] == "{1}"


def test_lines_of_one_second_and_of_the_next_have_their_own_time():
    moments = iter([1_700_000_059.0, 1_700_000_059.999_999, 1_700_000_060.5])
    line = JsonLine(lambda: next(moments))

    found = [json.loads(line(None, "info", {}))["timestamp"] for _ in range(3)]

    assert found == ["2023-11-14T22:14:19.000000Z", "2023-11-14T22:14:19.999999Z", "2023-11-14T22:14:20.500000Z"]


def test_an_error_is_told_with_its_trace():
    try:
        raise ValueError("no such thing")
    except ValueError:
        found = json.loads(a_line({"event": "unexpected", "exc_info": True}, "exception"))

    assert found["level"] == "error"
    assert "ValueError: no such thing" in found["exception"]
    assert "exc_info" not in found


class Out(io.BytesIO):
    """Remembers what each write brought."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, data):
        self.writes.append(bytes(data))
        return super().write(data)


async def test_lines_of_one_turn_are_one_write_at_its_end():
    out = Out()
    logger = TurnLogger(out=out)

    logger.info(b"first")
    logger.info(b"second")
    before = list(out.writes)
    await asyncio.sleep(0)
    logger.info(b"third")
    await asyncio.sleep(0)

    assert (before, out.writes) == ([], [b"first\nsecond\n", b"third\n"])


async def test_a_warning_is_written_at_once_behind_what_came_before():
    out = Out()
    logger = TurnLogger(out=out)

    logger.info(b"first")
    logger.error(b"second")
    before = list(out.writes)
    await asyncio.sleep(0)

    assert before == out.writes == [b"first\nsecond\n"]


def test_without_a_loop_a_line_is_written_at_once():
    out = Out()

    TurnLogger(out=out).info(b"line")

    assert out.writes == [b"line\n"]


def test_every_method_that_structlog_calls_writes_the_line():
    out = Out()
    logger = TurnLogger(out=out)

    for method in ("debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "msg"):
        getattr(logger, method)(method.encode())

    assert out.getvalue().split() == [w.strip() for w in out.writes]
    assert len(out.writes) == 9

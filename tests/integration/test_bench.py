"""`tutti bench` on a tiny shop: a real system is started, every row is there, and nothing is left."""

import json
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner

from services.bench import knee
from services.bench import run as run_of_table
from services.bench.growth import report, run
from services.bench.verb import bench

pytestmark = pytest.mark.integration


@dataclass
class Measured:
    output: str
    document: dict
    scratch: Path
    before: list[Path]
    after: list[Path]


@pytest.fixture(scope="module")
def data(tiny_shop):
    return tiny_shop.data


@pytest.fixture(scope="module")
def measured(data, tmp_path_factory):
    """What one run printed and wrote, and what the shop held before and after."""
    out = tmp_path_factory.mktemp("out") / "bench.json"
    scratch = tmp_path_factory.mktemp("scratch")
    before = traces(data)
    app = typer.Typer()
    app.command()(bench)
    arguments = ["--data", str(data), "--seconds", "0.5", "--concurrency", "1,4", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        # On a machine as busy as one that runs tests, a slate that is given up would be measured as one.
        for name in ("BUDGET__TOTAL_MS", "STAGES__USER__CAP_MS", "STAGES__RETRIEVE__CAP_MS", "STAGES__RERANK__CAP_MS"):
            patch.setenv(f"TUTTI_{name}", "5000")
        patch.setenv("TUTTI_ADMISSION__ENABLED", "false")
        # The machine need not be warm, nor the knee found to a tenth: nobody reads these figures.
        patch.setattr(run_of_table, "WARM_S", 0.1)
        patch.setattr(run_of_table, "FIRST_S", 0.2)
        patch.setattr(knee, "STEP", 0.5)
        # Everything that is started works somewhere in here, so that what is left can be found.
        patch.setattr(tempfile, "tempdir", str(scratch))
        handler = signal.getsignal(signal.SIGTERM)
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert signal.getsignal(signal.SIGTERM) is handler, "who called it is ended as before"
    return Measured(done.output, json.loads(out.read_text()), scratch, before, traces(data))


def traces(data):
    return sorted(path.relative_to(data) for path in data.rglob("*"))


def test_every_kind_has_a_row_at_every_concurrency(measured):
    cells = [(one["kind"], one["concurrency"]) for one in measured.document["rows"]]
    assert cells == [(kind, c) for kind in ("cached", "uncached", "page", "ranking") for c in (1, 4)]
    for kind, concurrency in cells:
        assert any(line.split()[:2] == [kind, str(concurrency)] for line in measured.output.splitlines()), (
            kind,
            concurrency,
        )


def test_every_row_was_answered_and_costs_every_process_that_takes_part(measured):
    for one in measured.document["rows"]:
        assert one["requests"] > 0
        assert not set(one["failures"]) - {"unanswered"}, one["failures"]
        assert {"orchestrator", "redis", "collaborative_filtering", "content_based", "reranking"} <= set(one["cpu_ms"])
        assert one["cpu_ms"]["orchestrator"] > 0
        assert one["latency_ms"]["p50"] <= one["latency_ms"]["p99"] <= one["latency_ms"]["p99.9"]


def test_computed_slates_cost_the_models_and_remembered_ones_do_not(measured):
    rows = {(one["kind"], one["concurrency"]): one for one in measured.document["rows"]}

    assert rows["uncached", 4]["remembered_share"] == 0
    assert rows["cached", 4]["remembered_share"] > 0.5
    assert rows["cached", 4]["bare_ms"] is None
    for kind in ("uncached", "page", "ranking"):
        assert rows[kind, 4]["bare_ms"] > 0


def test_the_bare_arithmetic_gives_the_slates_that_are_served(measured):
    found = measured.document["same_work"]

    assert {kind: one["slates"] for kind, one in found.items()} == {"uncached": 20, "page": 60, "ranking": 20}
    # Ages are counted from another moment, and items of a tiny shop are close: nearly all, not all.
    assert min(one["share"] for one in found.values()) > 0.95


def test_the_shop_is_as_it_was_and_nothing_is_left(measured):
    left = [words for one in psutil.process_iter() if str(measured.scratch) in (words := _words(one))]

    assert measured.after == measured.before
    assert list(measured.scratch.iterdir()) == []
    assert left == []


def test_curves_are_measured_in_shops_smaller_and_larger_than_the_trained_one(data, tmp_path):
    growth = run.measure(data, 0.05, lambda what: None, items=(60, 400), at=400)

    assert [cost.point.value for cost in growth.along("items", 1)] == [60, 400]
    assert [cost.point.value for cost in growth.along("history", 32)] == [0, 10, 50, 200, 1000]
    assert [cost.point.value for cost in growth.along("candidates", 1)] == [50, 100, 200, 400, 1000]
    for cost in growth.costs:
        assert set(cost.ms) == {"collaborative_filtering", "content_based", "reranking", "pipeline"}
        assert cost.total_ms > 0
    # A filter that keeps a tenth of 400 items fills a slate of 20, and models do.
    tenth = next(cost for cost in growth.along("kept", 1) if cost.point.value == 0.1)
    assert tenth.slots == 20
    assert tenth.own > 10
    assert {name for name, at in growth.memory.items() if set(at) == {60, 400}} == {*growth.costs[0].ms} - {
        "pipeline"
    } | {"orchestrator"}
    assert growth.redis_sample >= 50
    assert growth.redis["features"] > 0
    assert growth.redis["history"] > 0
    assert len(report.draw(growth, tmp_path)) == 4
    assert "bytes a user" in report.text(growth)


def _words(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""

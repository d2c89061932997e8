"""A whole tuning of a small shop, without the re-ranker: what is written when, what is repeated, what is left alone."""

import json

import pytest

from protos import tuned as tuned_file
from protos.tuned import Tuned
from services.training import tuned
from services.training.dataset import DatasetUnusable
from services.training.sources import SourceSpec
from services.training.tuning import run, tables
from services.training.tuning.run import Plan, Silent
from tests.support.small_shop import tastes, write_shop

SOURCES = (SourceSpec("collaborative_filtering", 40), SourceSpec("content_based", 20))
STAGES = ("content_based", "fusion")
CLOSE = {"shrink": 3.0}


class Counting(Silent):
    """Counts trials by stage; Ctrl-C after so many of one."""

    def __init__(self, stop=None):
        self.trials, self.stop = [], stop

    def trial(self, progress):
        self.trials.append((progress.stage, progress.done))
        if self.trials[-1] == self.stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def rows():
    return tastes(users=30, items=24, days=120)


@pytest.fixture
def shop(tmp_path, rows, monkeypatch):
    for name in ("TUTTI_CONFIG", "TUTTI_DEFAULTS"):
        monkeypatch.delenv(name, raising=False)
    return write_shop(tmp_path / "shop", rows)


def test_a_tuning_says_what_was_tried_what_was_kept_and_why(shop):
    done = run.tune(shop, SOURCES, Plan(trials=3, only=("collaborative_filtering", *STAGES)))

    stages = {stage["stage"]: stage for stage in done.report["stages"]}
    assert list(stages) == ["collaborative_filtering", "content_based", "fusion"]
    for stage in stages.values():
        assert stage["trials"] == len(stage["tried"]) == 3
        assert stage["tried"][0]["reached"] == stage["default"] <= stage["best"]
        assert stage["verdict"]["why"]
        assert bool(stage["confirmed"]) == (stage["best"] > stage["default"])
    assert json.loads(done.path.read_text()) == done.report
    assert tuned_file.read(shop).digest == done.tuned.digest
    assert len(tables.of_stages(done.report).rows) == 3
    assert len(tables.reasons(done.report)) >= 3


def test_what_is_stopped_goes_on_and_repeats_nothing(shop):
    plan, first, second = Plan(trials=6, only=STAGES), Counting(stop=("content_based", 4)), Counting()

    with pytest.raises(KeyboardInterrupt):
        run.tune(shop, SOURCES, plan, first)
    done = run.tune(shop, SOURCES, plan, second)

    assert first.trials == [("content_based", n) for n in (1, 2, 3, 4)]
    assert second.trials == [*(("content_based", n) for n in (4, 5, 6)), *(("fusion", n) for n in range(1, 7))]
    assert [stage["trials"] for stage in done.report["stages"]] == [6, 6]


def test_other_data_begins_anew(shop, rows):
    run.tune(shop, SOURCES, Plan(trials=2, only=("content_based",)))
    counting = Counting()
    write_shop(shop, rows[3:])

    run.tune(shop, SOURCES, Plan(trials=2, only=("content_based",)), counting)

    assert counting.trials == [("content_based", 1), ("content_based", 2)]


def test_a_stop_before_the_first_verdict_leaves_the_file_as_it_was(shop):
    before = Tuned({"content_based": {"half_life_days": 7.0}}, None, {}, 1)
    tuned.write(shop, before, {})

    with pytest.raises(KeyboardInterrupt):
        run.tune(shop, SOURCES, Plan(trials=3, only=("content_based",)), Counting(stop=("content_based", 2)))

    assert tuned_file.read(shop) == before


def test_what_was_tuned_before_is_tried_second_and_goes_where_it_is_no_better(shop):
    tuned.write(shop, Tuned({"content_based": {"half_life_days": 7.0}}, None, {}, 1), {})

    done = run.tune(shop, SOURCES, Plan(trials=2, only=("content_based",)))

    (stage,) = done.report["stages"]
    assert stage["tried"][1]["values"]["half_life_days"] == 7.0
    assert tuned_file.read(shop).parameters.get("content_based", {}) == (
        stage["found"] if stage["verdict"]["is_kept"] else {}
    )


def test_what_is_tuned_of_other_stages_stays(shop):
    before = Tuned(
        {
            "collaborative_filtering": {"sweeps": 4, "affinity": {"shrink": 3.0}},
            "reranking": {"affinity": {"shrink": 3.0}},
        },
        "z_score",
        {"content_based": 0.1},
        1,
    )
    tuned.write(shop, before, {})

    done = run.tune(shop, SOURCES, Plan(trials=2, only=("content_based",)))

    kept = tuned_file.read(shop)
    assert {name: kept.parameters[name] for name in before.parameters} == before.parameters
    assert (kept.method, kept.weights) == (before.method, before.weights)
    assert kept.seen_until_us == done.tuned.seen_until_us > 1


def test_closeness_goes_with_the_generator_it_was_found_for(shop):
    before = Tuned(
        {
            "collaborative_filtering": {"affinity": {"shrink": 3.0}},
            "reranking": {"affinity": {"shrink": 3.0}, "epochs": 3},
        },
    )
    found = run.Held("collaborative_filtering", run.Search((), {}), None, {"sweeps": 4, "affinity.shrink": 9.0})

    left = run._without(before, {"collaborative_filtering": ()}, a_ground())

    assert left.parameters == {"reranking": {"epochs": 3}}
    assert run._with(left, found).parameters == {
        "collaborative_filtering": {"sweeps": 4, "affinity": {"shrink": 9.0}},
        "reranking": {"epochs": 3, "affinity": {"shrink": 9.0}},
    }
    assert run._without(before, {"reranking": ()}, a_ground()).parameters["reranking"] == {"affinity": {"shrink": 3.0}}


def a_ground():
    return type("Ground", (), {"until_us": 5})()


def test_time_is_shared_out_and_what_has_none_left_says_so(shop):
    ticks = iter(range(10_000))

    done = run.tune(shop, SOURCES, Plan(trials=50, minutes=0.2, only=STAGES), clock=lambda: float(next(ticks)))

    tried = [stage["trials"] for stage in done.report["stages"]]
    assert all(n < 50 for n in tried)
    assert tried[0] >= 1


def test_a_stage_that_there_is_not_is_refused(shop):
    with pytest.raises(ValueError, match="no stage colour; there are collaborative_filtering, content_based, fusion"):
        run.tune(shop, SOURCES, Plan(only=("colour",)))


def test_the_trials_of_a_generator_leave_no_artefact_behind(shop):
    run.tune(shop, SOURCES, Plan(trials=2, only=("content_based",)))

    left = [path for path in (shop / "tuning" / "past" / "models").rglob("*") if path.is_file()]
    assert left == []


def test_a_second_tuning_beside_the_first_is_refused(shop):
    with run._alone(shop), pytest.raises(ValueError, match="is being tuned already"):
        run.tune(shop, SOURCES, Plan(trials=2, only=("content_based",)))

    run.tune(shop, SOURCES, Plan(trials=2, only=("content_based",)))


def test_a_directory_that_there_is_not_is_not_made(tmp_path):
    with pytest.raises(DatasetUnusable):
        run.tune(tmp_path / "nowhere", SOURCES, Plan(only=("content_based",)))

    assert not (tmp_path / "nowhere").exists()

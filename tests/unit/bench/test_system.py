"""Who is who in the system under test, and what may be written to."""

from pathlib import Path

import pytest

from orchestrator import settings as tree
from orchestrator.supervisor.plan import settings_file
from services.bench import orchestra, shop, variants
from services.bench.options import BenchUnusable
from services.bench.system import of_status
from services.bench.variants import AS_SERVED, COMPUTED, JOINED, SINGLE, Variant

TWO = (Variant("served"), Variant("alone", {"TUTTI_X__Y": "1"}))


def a_process(name, pid, replica=0, state="ready", port=50_000):
    return {"name": name, "pid": pid, "address": f"127.0.0.1:{port}", "state": state, "replica": replica}


def a_status(*processes):
    return {"supervisor": 1, "edge": "127.0.0.1:1", "processes": list(processes)}


READY = (
    a_process("redis", 2),
    a_process("reranking", 3),
    a_process("orchestrator", 4, 0, port=50_004),
    a_process("orchestrator", 5, 1, port=50_005),
)


def test_a_variants_requests_cost_its_own_orchestrator_and_what_all_share():
    system = of_status(a_status(*READY), 1, Path("/shop"), TWO)

    assert system.ports == {"served": 50_004, "alone": 50_005}
    assert system.under("alone") == {"orchestrator": 5, "redis": 2, "reranking": 3, "supervisor": 1}
    assert system.beside("alone") == {"served": 4}


@pytest.mark.parametrize(
    "status",
    [
        {},
        a_status(*READY[:3]),
        a_status(*READY[:3], a_process("orchestrator", 5, 1, "starting")),
        {**a_status(*READY), "supervisor": 99},
    ],
    ids=["nothing yet", "not all of them", "not ready", "another supervisor's"],
)
def test_nothing_is_measured_before_everything_is_ready(status):
    assert of_status(status, 1, Path("/shop"), TWO) is None


def test_each_variant_is_the_same_command_with_settings_of_its_own():
    settings = tree.load(environment={})

    plan = orchestra.planner(TWO, [7001, 7002])(
        settings, Path("/shop"), iter(range(6000, 6100)), redis_url=None, redis_command=("redis",), edge_fd=5
    )

    first, second = plan.orchestrators
    assert first.command == second.command
    assert str(settings_file(Path("/shop"))) in first.command
    assert second.environment == {"TUTTI_X__Y": "1", "TUTTI_EDGE__HOST": "127.0.0.1", "TUTTI_EDGE__PORT": "7002"}
    assert (first.address, second.address) == ("127.0.0.1:7001", "127.0.0.1:7002")
    assert [first.replica, second.replica] == [0, 1]
    assert {spec.name for spec in plan.models} == {"collaborative_filtering", "content_based", "reranking"}


@pytest.mark.parametrize("environment", [variants.UNREMEMBERED, variants.PATIENT], ids=["unremembered", "patient"])
def test_settings_of_a_variant_are_settings(environment):
    settings = tree.load(environment=environment)

    assert not settings.slate_cache.enabled


def test_a_computed_slate_is_made_with_admission_guard_and_ladder_as_served():
    served, computed = tree.load(environment={}), tree.load(environment=variants.UNREMEMBERED)

    remembering = computed.model_copy(update={"slate_cache": served.slate_cache})
    assert remembering == served


def test_only_what_is_needed_is_started():
    def names(kinds, switch=None):
        return [one.name for one in variants.variants(kinds, switch)]

    assert names(["cached"]) == [AS_SERVED]
    assert names(["uncached", "page", "ranking"]) == [COMPUTED]
    assert names(["cached", "uncached"], "TUTTI_X") == [AS_SERVED, COMPUTED, JOINED, SINGLE]


def test_the_compared_differ_in_one_setting():
    by_name = {one.name: dict(one.environment) for one in variants.variants(["uncached"], "TUTTI_X")}

    differ = set(by_name[JOINED].items()) ^ set(by_name[SINGLE].items())
    assert differ == {("TUTTI_X", "true"), ("TUTTI_X", "false")}


@pytest.mark.parametrize(
    ("text", "switch"),
    [
        ("coalesce = false", "TUTTI_COALESCE"),
        ("[coalesce]\nenabled = true", "TUTTI_COALESCE__ENABLED"),
        ("[coalesce]\n", None),
        ("[edge]\nport = 1\n", None),
    ],
)
def test_the_switch_is_found_in_the_settings_and_without_it_there_is_nothing_to_compare(tmp_path, text, switch):
    file = tmp_path / "defaults.toml"
    file.write_text(text)

    assert variants.coalescing_switch(file) == switch


def test_a_measurement_leaves_no_trace_in_the_shop(tmp_path):
    data = tmp_path / "shop"
    (data / "models").mkdir(parents=True)
    (data / "features").mkdir()
    (data / "features" / "live.json").write_text("{}")
    for name in ("events.parquet", "items.parquet", "dataset.json", "vocabulary.parquet"):
        (data / name).write_text(name)
    before = sorted(path.relative_to(data) for path in data.rglob("*"))

    with shop.copied(data) as place:
        (place / "features" / "live.json").write_text("changed")
        (place / "vocabulary.parquet").write_text("changed")
        (place / "slate_log").mkdir()
        assert (place / "events.parquet").read_text() == "events.parquet"

    assert not place.exists()
    assert sorted(path.relative_to(data) for path in data.rglob("*")) == before
    assert (data / "features" / "live.json").read_text() == "{}"
    assert (data / "vocabulary.parquet").read_text() == "vocabulary.parquet"


def test_a_shop_that_is_not_there_or_not_trained_is_said_with_what_to_run(tmp_path):
    with pytest.raises(BenchUnusable, match="make one with `tutti data synth"):
        shop.checked(tmp_path)

    (tmp_path / "events.parquet").touch()
    with pytest.raises(BenchUnusable, match="is not trained; run `tutti train"):
        shop.checked(tmp_path)

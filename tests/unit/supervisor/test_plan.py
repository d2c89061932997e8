import itertools
import tomllib
from pathlib import Path

from orchestrator import settings as tree
from orchestrator.supervisor.plan import Probe, make_plan, model_names, reachable, settings_file, to_toml

DATA = Path("/shop")


def a_plan(environment=None, redis_url=None):
    settings = tree.load(environment=environment or {})
    return make_plan(settings, DATA, itertools.count(4000), redis_url=redis_url, redis_command=("redis",), python="py")


def test_every_process_but_the_edge_gets_an_address_of_its_own():
    plan = a_plan()

    started = [plan.redis, *plan.models, plan.ingestion]
    assert [spec.name for spec in started] == [
        *("redis", "collaborative_filtering", "content_based", "reranking", "ingestion")
    ]
    assert len({spec.address for spec in started}) == len(started)
    assert plan.orchestrator.address == "127.0.0.1:8000"
    assert (plan.redis.probe, plan.ingestion.probe, plan.orchestrator.probe) == (Probe.REDIS, Probe.GRPC, Probe.HTTP)


def test_the_orchestrator_is_told_the_addresses_the_services_were_given():
    plan = a_plan()

    addresses = {spec.name: spec.address for spec in plan.models}
    told = {source.name: source.targets["champion"] for source in plan.settings.sources}
    assert {**told, "reranking": plan.settings.reranker.targets["champion"]} == addresses
    assert plan.settings.redis.url == f"redis://{plan.redis.address}/0"
    assert all(spec.address in spec.command for spec in plan.models)
    assert all(plan.settings.redis.url in command for command in (plan.seed, *(s.command for s in plan.models)))
    assert plan.settings.data.path == DATA
    assert plan.orchestrator.command == ("py", "-m", "orchestrator", "--config", str(settings_file(DATA)))


def test_a_given_redis_is_used_and_none_is_started():
    plan = a_plan(redis_url="redis://store:6379/3")

    assert plan.redis is None
    assert plan.settings.redis.url == "redis://store:6379/3"


def test_one_more_source_is_one_more_process():
    settings = tree.load(environment={})
    more = settings.model_copy(update={"sources": (*settings.sources, tree.Source(name="trending"))})

    plan = make_plan(more, DATA, itertools.count(4000), redis_url="redis://store/0", python="py")

    assert model_names(more) == ("collaborative_filtering", "content_based", "trending", "reranking")
    assert plan.models[2].command[:4] == ("py", "-m", "services.chassis", "trending")
    assert plan.settings.sources[2].targets == {"champion": plan.models[2].address}


def test_an_edge_on_every_interface_is_reached_by_loopback():
    edge = tree.load(environment={"TUTTI_EDGE__HOST": "0.0.0.0", "TUTTI_EDGE__PORT": "8123"}).edge

    assert reachable(edge) == "127.0.0.1:8123"


def test_the_effective_settings_survive_the_way_through_toml(tmp_path):
    settings = a_plan({"TUTTI_REDIS__URL": 'redis://:p"ä\\ss@store/0'}, redis_url='redis://:p"ä\\ss@store/0').settings
    path = tmp_path / "settings.toml"

    path.write_text(to_toml(settings.model_dump(mode="json")), encoding="utf-8")

    assert tomllib.loads(path.read_text(encoding="utf-8")) == settings.model_dump(mode="json")
    assert tree.load(path, {}) == settings

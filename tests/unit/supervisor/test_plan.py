import itertools
import tomllib
from pathlib import Path

import pytest

from orchestrator import settings as tree
from orchestrator.supervisor.errors import CannotProxy
from orchestrator.supervisor.plan import (
    FAULTS_VARIABLE,
    SINGLE,
    Probe,
    Shape,
    count_ports,
    faults_file,
    make_plan,
    model_names,
    reachable,
    settings_file,
    to_toml,
)

DATA = Path("/shop")


def a_plan(environment=None, redis_url=None, shape=SINGLE):
    return make_plan(
        tree.load(environment=environment or {}),
        DATA,
        itertools.count(4000),
        redis_url=redis_url,
        redis_command=("redis",),
        shape=shape,
        edge_fd=7,
        python="py",
    )


def targets(plan):
    told = {source.name: source.targets["champion"] for source in plan.settings.sources}
    return {**told, plan.settings.reranker.name: plan.settings.reranker.targets["champion"]}


def test_every_process_but_the_edge_gets_an_address_of_its_own():
    plan = a_plan()

    started = [plan.redis, *plan.models, plan.ingestion, *plan.orchestrators]
    assert [spec.name for spec in started] == [
        *("redis", "collaborative_filtering", "content_based", "reranking", "ingestion", "orchestrator")
    ]
    assert len({spec.address for spec in started}) == len(started)
    assert [spec.probe for spec in started] == [Probe.REDIS, *[Probe.GRPC] * 4, Probe.HTTP]
    assert plan.proxies == ()


def test_the_orchestrator_is_told_the_addresses_the_services_were_given():
    plan = a_plan()

    addresses = {spec.name: (spec.address,) for spec in plan.models}
    assert targets(plan) == addresses
    assert plan.settings.redis.url == f"redis://{plan.redis.address}/0"
    assert all(spec.address in spec.command for spec in plan.models)
    assert all(plan.settings.redis.url in command for command in (plan.seed, *(s.command for s in plan.models)))
    assert plan.settings.data.path == DATA
    (orchestrator,) = plan.orchestrators
    assert orchestrator.command == (
        *("py", "-m", "orchestrator", "--config", str(settings_file(DATA))),
        *("--fd", "7", "--admin", orchestrator.address),
    )
    assert orchestrator.inherits == (7,)


def test_replicas_are_processes_with_addresses_of_their_own_and_all_are_told():
    plan = a_plan(shape=Shape(replicas=2, workers=3))

    assert [(spec.name, spec.replica) for spec in plan.models] == [
        *(("collaborative_filtering", 0), ("collaborative_filtering", 1)),
        *(("content_based", 0), ("content_based", 1)),
        *(("reranking", 0), ("reranking", 1)),
    ]
    assert targets(plan) == {
        name: tuple(spec.address for spec in plan.models if spec.name == name)
        for name in ("collaborative_filtering", "content_based", "reranking")
    }
    replicas = [spec.command[spec.command.index("--replica") + 1] for spec in plan.models]
    assert replicas == [str(n) for n in (0, 1, 0, 1, 0, 1)]
    assert [spec.replica for spec in plan.orchestrators] == [0, 1, 2]
    started = [plan.redis, *plan.models, plan.ingestion, *plan.orchestrators]
    assert len({spec.address for spec in started}) == len({spec.label for spec in started}) == len(started)


def test_faults_put_a_proxy_between_the_orchestrator_and_everything_it_asks():
    plan = a_plan(shape=Shape(replicas=2, faults=True))

    behind = {spec.address: spec for spec in (*plan.models, plan.redis)}
    for proxy in plan.proxies:
        hidden = behind.pop(proxy.command[proxy.command.index("--upstream") + 1])
        assert (proxy.upstream, proxy.replica) == (hidden.name, hidden.replica)
        assert proxy.command[proxy.command.index("--listen") + 1] == proxy.address
        assert proxy.command[proxy.command.index("--control") + 1] == proxy.control
    assert behind == {}
    assert targets(plan) == {
        name: tuple(spec.address for spec in plan.proxies if spec.upstream == name)
        for name in ("collaborative_filtering", "content_based", "reranking")
    }
    assert plan.settings.redis.url == f"redis://{plan.proxies[-1].address}/0"
    assert all(f"redis://{plan.redis.address}/0" in spec.command for spec in (*plan.models, plan.ingestion))
    assert {spec.environment[FAULTS_VARIABLE] for spec in plan.models} == {str(faults_file(DATA))}
    assert len({spec.label for spec in plan.proxies}) == 7


def test_ingestion_is_told_the_topic_where_events_are_in_kafka_and_the_file_of_secrets_by_its_name():
    kafka = {
        "TUTTI_EVENTS__BROKER": "kafka",
        "TUTTI_EVENTS__KAFKA__BOOTSTRAP_SERVERS": "k1:9092,k2:9092",
        "TUTTI_EVENTS__KAFKA__PROPERTIES": "/etc/kafka.properties",
    }

    told = a_plan(kafka).ingestion.command

    assert told[-6:] == (
        *("--kafka", "k1:9092,k2:9092", "--topic", "tutti-events"),
        *("--kafka-properties", "/etc/kafka.properties"),
    )
    assert not any(option.startswith("--kafka") for option in a_plan().ingestion.command)


def test_prometheus_has_an_address_of_each_service_and_no_two_processes_one_port():
    plan = a_plan(shape=Shape(replicas=2, workers=2, faults=True))

    services = [*plan.models, plan.ingestion]
    for spec in services:
        port = spec.command[spec.command.index("--metrics-port") + 1]
        assert spec.metrics == f"127.0.0.1:{port}"
    started = [plan.redis, *services, *plan.proxies, *plan.orchestrators]
    taken = [one for spec in started for one in (spec.address, spec.metrics, spec.control) if one]
    assert len(set(taken)) == len(taken)


def test_without_faults_no_service_hears_of_a_fault_file():
    assert [FAULTS_VARIABLE in spec.environment for spec in a_plan().models] == [False] * 3


def test_a_given_redis_keeps_its_password_and_database_behind_a_proxy():
    plan = a_plan(redis_url="redis://:secret@store:6379/3", shape=Shape(faults=True))

    assert plan.settings.redis.url == f"redis://:secret@{plan.proxies[-1].address}/3"
    assert "store:6379" in plan.proxies[-1].command


@pytest.mark.parametrize("url", ["rediss://store:6379/0", "unix:///run/redis.sock", "redis://store/0"])
def test_a_redis_that_no_proxy_can_stand_before_is_refused(url):
    with pytest.raises(CannotProxy, match="REDIS_URL"):
        a_plan(redis_url=url, shape=Shape(faults=True))


@pytest.mark.parametrize("shape", [SINGLE, Shape(3, 2), Shape(2, 2, faults=True)])
def test_the_ports_counted_are_the_ports_taken(shape):
    settings = tree.load(environment={})
    ports = iter(range(count_ports(settings, shape)))

    make_plan(settings, DATA, ports, redis_url=None, shape=shape)

    assert list(ports) == []


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
    assert plan.settings.sources[2].targets == {"champion": (plan.models[2].address,)}


def test_an_edge_on_every_interface_is_reached_by_loopback():
    edge = tree.load(environment={"TUTTI_EDGE__HOST": "0.0.0.0", "TUTTI_EDGE__PORT": "8123"}).edge

    assert reachable(edge) == "127.0.0.1:8123"


def test_the_effective_settings_survive_the_way_through_toml(tmp_path):
    settings = a_plan({"TUTTI_REDIS__URL": 'redis://:p"ä\\ss@store/0'}, redis_url='redis://:p"ä\\ss@store/0').settings
    path = tmp_path / "settings.toml"

    path.write_text(to_toml(settings.model_dump(mode="json")), encoding="utf-8")

    assert tomllib.loads(path.read_text(encoding="utf-8")) == settings.model_dump(mode="json")
    assert tree.load(path, {}) == settings

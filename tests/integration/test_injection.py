"""Faults on real processes, a real proxy and a real Redis: what is done is undone, whatever happens in between."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import redis

from orchestrator.doctor.injection import Injector
from orchestrator.doctor.proxy_control import CannotInject, Control
from orchestrator.doctor.steps import (
    Again,
    Configure,
    FewFiles,
    ForgetSlates,
    Misbehave,
    Poison,
    Signal,
    Target,
    Tell,
)
from orchestrator.doctor.system import Process
from orchestrator.doctor.toxics import Kind, Toxic
from tests.support.ports import free_port

pytestmark = pytest.mark.integration


@dataclass
class Parts:
    """Stands for a system: whatever processes a test has started."""

    data: Path
    processes: list[Process] = field(default_factory=list)

    def of(self, name):
        return [process for process in self.processes if process.name == name]

    def proxies_of(self, upstream):
        return [process for process in self.processes if process.upstream == upstream]

    def has_own_redis(self):
        return any(process.pid is not None for process in self.of("redis"))


@pytest.fixture
def parts(tmp_path):
    (tmp_path / "run").mkdir()
    return Parts(tmp_path)


@contextmanager
def a_process(parts, name, replica=0):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        parts.processes.append(Process(name, process.pid, "127.0.0.1:1", "ready", replica))
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def a_proxy(parts, upstream):
    control, listen = free_port(), free_port()
    command = [sys.executable, "-m", "orchestrator.doctor.fault_proxy", "--listen", f"127.0.0.1:{listen}"]
    command += ["--upstream", "127.0.0.1:1", "--control", f"127.0.0.1:{control}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        found = Process("fault_proxy", process.pid, f"127.0.0.1:{listen}", "ready", 0, upstream, f"127.0.0.1:{control}")
        parts.processes.append(found)
        try:
            yield found
        finally:
            process.terminate()


def is_stopped(process):
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


def soon(claim):
    end = time.monotonic() + 2
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_stopped_process_goes_on_even_when_the_drill_is_interrupted(parts):
    def interrupted(process):
        with Injector(parts) as injector:
            injector.inject([Signal(Target(("reranking",)), signal.SIGSTOP)])
            soon(lambda: is_stopped(process))
            raise KeyboardInterrupt

    with a_process(parts, "reranking") as process:
        with pytest.raises(KeyboardInterrupt):
            interrupted(process)

        soon(lambda: not is_stopped(process))


def test_only_the_replica_that_is_meant_is_touched(parts):
    with a_process(parts, "reranking", 0) as first, a_process(parts, "reranking", 1) as second:
        with Injector(parts) as injector:
            injector.inject([Signal(Target(("reranking",), 1), signal.SIGSTOP)])
            soon(lambda: is_stopped(second))

            assert not is_stopped(first)
        soon(lambda: not is_stopped(second))


def test_what_was_done_before_a_step_that_cannot_be_done_is_undone(parts):
    stop, poison = Signal(Target(("reranking",)), signal.SIGSTOP), Poison(Target(("redis",)), (Toxic(Kind.HANG),))
    with a_process(parts, "reranking") as process:
        with pytest.raises(CannotInject, match="--faults"), Injector(parts) as injector:
            injector.inject([stop, poison])

        soon(lambda: not is_stopped(process))


def test_nobody_to_signal_is_no_fault_made(parts):
    with pytest.raises(CannotInject, match="no process of reranking"), Injector(parts) as injector:
        injector.inject([Signal(Target(("reranking",)), signal.SIGKILL)])


def test_a_proxy_is_poisoned_and_healed(parts):
    with a_proxy(parts, "reranking") as proxy:
        with Injector(parts, seed=3) as injector:
            injector.inject([Poison(Target(("reranking",)), (Toxic(Kind.LATENCY, ms=5),))])
            during = stats(proxy)
            injector.heal()
        after = stats(proxy)

    assert during["toxics"] == [{"kind": "latency", "direction": "down", "ms": 5}]
    assert after["toxics"] == []


def stats(proxy):
    control = Control(proxy.control)
    try:
        return control.ask({"command": "stats"})
    finally:
        control.close()


def test_a_redis_that_is_somebody_elses_is_left_alone(parts, redis_url):
    parts.processes.append(Process("redis", None, redis_url.split("/")[2], "ready"))

    with pytest.raises(CannotInject, match="left alone"), Injector(parts) as injector:
        injector.inject([Tell(("FLUSHALL",))])


def test_our_redis_is_configured_and_set_back(parts, redis_url):
    parts.processes.append(Process("redis", os.getpid(), redis_url.split("/")[2], "ready"))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        was = client.config_get("maxmemory")
        with Injector(parts) as injector:
            injector.inject([Configure("maxmemory", "1mb")])
            during = client.config_get("maxmemory")
        after = client.config_get("maxmemory")

    assert during == {"maxmemory": "1048576"}
    assert after == was


def test_slates_are_forgotten_and_nothing_else(parts, redis_url):
    parts.processes.append(Process("redis", os.getpid(), redis_url.split("/")[2], "ready"))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.mset({"tutti:slates:u:1": "x", "tutti:history:u:1": "y"})
        with Injector(parts) as injector:
            injector.inject([ForgetSlates()])

        assert client.keys("*") == ["tutti:history:u:1"]


def test_a_wish_is_in_the_fault_file_until_it_is_healed(parts):
    path = parts.data / "run" / "faults.json"

    with Injector(parts) as injector:
        injector.inject([Misbehave((("reranking", (("status", "INTERNAL"), ("share", 0.5))),))])
        during = json.loads(path.read_text())

    assert during == {"reranking": {"status": "INTERNAL", "share": 0.5}}
    assert json.loads(path.read_text()) == {}


def test_a_stutter_stops_and_goes_on_again_and_again_until_it_is_healed(parts):
    with a_process(parts, "redis") as process:
        with Injector(parts) as injector:
            injector.inject([Again(Signal(Target(("redis",)), signal.SIGSTOP), every_s=0.02, undo_after_s=0.02)])
            for _ in range(2):
                soon(lambda: is_stopped(process))
                soon(lambda: not is_stopped(process))
        time.sleep(0.05)

        assert not is_stopped(process)


def test_a_limit_of_open_files_is_lowered_and_set_back(parts):
    def limit(process):
        return resource.prlimit(process.pid, resource.RLIMIT_NOFILE)

    with a_process(parts, "orchestrator") as process:
        was = limit(process)
        with Injector(parts) as injector:
            injector.inject([FewFiles(Target(("orchestrator",)), 16)])
            during = limit(process)

        assert during == (16, was[1])
        assert limit(process) == was

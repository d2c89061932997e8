"""The supervisor as a process of its own, with a real Redis and tiny fakes for the services."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import psutil
import pytest
from typer.testing import CliRunner

from orchestrator import settings as tree
from orchestrator.supervisor.state import holder, read_status
from tests.support.open_loop import Client, under_load
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

NAMES = {"redis", "collaborative_filtering", "content_based", "reranking", "ingestion", "orchestrator"}


def until(claim, what, seconds=20):
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        if found := claim():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


def launch(data, port, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TUTTI_", "REDIS_URL"))}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_system", str(data), str(port), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def processes(data):
    return {p["name"]: p for p in (read_status(data / "run") or {}).get("processes", [])}


def every_process(data):
    """(name, upstream, replica) → its line of the status."""
    listed = (read_status(data / "run") or {}).get("processes", [])
    return {(p["name"], p.get("upstream"), p["replica"]): p for p in listed}


def all_ready(data):
    found = processes(data)
    states = {p["state"] for p in every_process(data).values()}
    return found if set(found) >= NAMES and states == {"ready"} else None


def alive(pids):
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@contextmanager
def a_system(data, *arguments):
    port = free_port()
    supervisor = launch(data, port, *arguments)
    try:
        until(lambda: all_ready(data) or supervisor.poll() is not None, "all processes ready", 40)
        assert supervisor.poll() is None, supervisor.communicate()
        # The last process is ready a moment before the command says so.
        until((data / "run" / "control").exists, "can be asked")
        yield supervisor, all_ready(data), port
    finally:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait(timeout=15)


def test_everything_becomes_ready_is_listed_and_stops_cleanly(tmp_path):
    with a_system(tmp_path) as (supervisor, found, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            assert answer.status == 200
        from orchestrator.cli import build

        shown = CliRunner().invoke(build(), ["status", "--data", str(tmp_path), "--json"])
        effective = tree.load(tmp_path / "run" / "settings.toml", {})

        began_at = time.monotonic()
        supervisor.send_signal(signal.SIGINT)
        out, err = supervisor.communicate(timeout=15)
        took_s = time.monotonic() - began_at

    listed = json.loads(shown.stdout)["processes"]
    assert {p["name"] for p in listed} == NAMES
    assert all(set(p) - {"metrics"} == {"name", "pid", "address", "state", "replica"} for p in listed)
    assert {p["name"] for p in listed if "metrics" in p} == NAMES - {"redis", "orchestrator"}
    assert {s.name: s.targets["champion"] for s in effective.sources} == {
        name: (found[name]["address"],) for name in ("collaborative_filtering", "content_based")
    }
    assert effective.redis.url == f"redis://{found['redis']['address']}/0"
    assert supervisor.returncode == 0, err
    assert took_s < 10
    assert alive(p["pid"] for p in found.values()) == []
    assert read_status(tmp_path / "run") is None
    assert holder(tmp_path / "run") is None
    assert "drained" in (tmp_path / "run" / "logs" / "content_based.log").read_text()
    assert "ready at http" in out


def test_a_killed_supervisor_leaves_no_orphans(tmp_path):
    with a_system(tmp_path) as (supervisor, found, _):
        supervisor.kill()
        supervisor.wait()

        until(lambda: not alive(p["pid"] for p in found.values()), "no child left")

    assert read_status(tmp_path / "run") is None


def test_a_crashed_child_is_restarted_alone(tmp_path):
    with a_system(tmp_path) as (_, before, _):
        os.kill(before["reranking"]["pid"], signal.SIGKILL)

        until(lambda: processes(tmp_path)["reranking"]["state"] == "restarting", "the crash is seen")
        after = until(lambda: all_ready(tmp_path), "ready again")

    assert after["reranking"]["pid"] != before["reranking"]["pid"]
    assert after["reranking"]["address"] == before["reranking"]["address"]
    assert {n: p for n, p in after.items() if n != "reranking"} == {n: p for n, p in before.items() if n != "reranking"}


def test_a_second_supervisor_of_the_same_directory_is_refused(tmp_path):
    with a_system(tmp_path) as (_, found, _):
        second = launch(tmp_path, free_port())
        _, err = second.communicate(timeout=10)

        assert second.returncode == 1
        assert "already in use" in err
        assert len(alive(p["pid"] for p in found.values())) == len(NAMES)


@pytest.mark.parametrize(("name", "said"), [("content_based", "the model has no items"), ("seed", "no features")])
def test_a_child_that_fails_at_start_stops_everything_and_is_named(tmp_path, name, said):
    supervisor = launch(tmp_path, free_port(), "--fail", name)
    _, err = supervisor.communicate(timeout=20)

    assert supervisor.returncode == 1
    assert err.startswith(f"{name} ended with exit code 3")
    assert said in err
    assert holder(tmp_path / "run") is None


def test_ctrl_c_during_the_start_stops_what_was_started(tmp_path):
    supervisor = launch(tmp_path, free_port())
    redis = until(lambda: processes(tmp_path).get("redis", {}).get("pid"), "redis started")

    supervisor.send_signal(signal.SIGINT)
    _, err = supervisor.communicate(timeout=15)

    assert supervisor.returncode == 0, err
    assert alive([redis]) == []


def test_a_taken_port_is_refused_before_anything_is_started(tmp_path):
    with a_system(tmp_path / "first") as (_, _, port):
        second = launch(tmp_path / "second", port)
        _, err = second.communicate(timeout=10)

    assert second.returncode == 1
    assert f"port {port} is already in use" in err
    assert not (tmp_path / "second" / "run").exists()


def test_down_stops_a_running_system_and_is_content_with_none(tmp_path):
    from orchestrator.cli import build

    with a_system(tmp_path) as (supervisor, found, _):
        first = CliRunner().invoke(build(), ["down", "--data", str(tmp_path)])
        supervisor.wait(timeout=10)
        second = CliRunner().invoke(build(), ["down", "--data", str(tmp_path)])

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "nothing runs" in second.stdout
    assert alive(p["pid"] for p in found.values()) == []


def invoke(*arguments):
    from orchestrator.cli import build

    return CliRunner().invoke(build(), list(arguments))


def pids(data):
    return {key: p["pid"] for key, p in every_process(data).items()}


async def test_a_rolling_restart_of_everything_under_load_loses_no_request(tmp_path):
    with a_system(tmp_path, "--replicas", "2", "--workers", "2") as (_, _, port):
        before = pids(tmp_path)
        client = Client("127.0.0.1", port)

        async with under_load(client, rate=50):
            done = await asyncio.to_thread(invoke, "restart", "--data", str(tmp_path))
            after = pids(tmp_path)

    assert done.exit_code == 0, done.output
    assert client.outcome.failures == []
    assert set(after) == set(before)
    kept = {key for key in before if before[key] == after[key]}
    assert kept == {("redis", None, 0)}
    restarted = [line.split()[1] for line in done.output.splitlines() if line.startswith("restarting")]
    assert restarted == [
        *("collaborative_filtering", "collaborative_filtering-1", "content_based", "content_based-1"),
        *("reranking", "reranking-1", "ingestion", "orchestrator", "orchestrator-1"),
    ]
    logs = {path.name for path in (tmp_path / "run" / "logs").iterdir()}
    assert {"reranking.log", "reranking-1.log", "orchestrator.log", "orchestrator-1.log"} <= logs


def test_one_replica_is_restarted_by_its_number_at_once_and_an_unknown_one_is_named(tmp_path):
    with a_system(tmp_path, "--replicas", "2") as (_, _, _):
        before = pids(tmp_path)
        done = invoke("restart", "reranking:1", "--data", str(tmp_path))
        after = pids(tmp_path)
        refused = invoke("restart", "rerankin", "--data", str(tmp_path))
        mode = (tmp_path / "run" / "control").stat().st_mode & 0o777

    assert done.exit_code == 0, done.output
    assert {key for key in before if before[key] != after[key]} == {("reranking", None, 1)}
    assert refused.exit_code == 1
    assert "no process rerankin; there are" in refused.output
    assert mode == 0o600


def test_restarting_where_nothing_runs_says_so(tmp_path):
    refused = invoke("restart", "--data", str(tmp_path))

    assert refused.exit_code == 1
    assert "nothing runs" in refused.output


def test_with_faults_every_proxy_says_what_is_behind_it_and_where_it_is_controlled(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "faults.json").write_text('{"reranking": {"delay_ms": 5}}')

    with a_system(tmp_path, "--replicas", "2", "--faults") as (_, _, _):
        listed = [p for p in every_process(tmp_path).values() if p["name"] == "fault_proxy"]
        faults = json.loads((tmp_path / "run" / "faults.json").read_text())

    models = ("collaborative_filtering", "content_based", "reranking")
    assert {(p["upstream"], p["replica"]) for p in listed} == {("redis", 0), *((m, r) for m in models for r in (0, 1))}
    assert len({p["control"] for p in listed} | {p["address"] for p in listed}) == 14
    assert faults == {}

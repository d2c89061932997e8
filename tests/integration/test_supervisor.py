"""The supervisor as a process of its own, with a real Redis and tiny fakes for the services."""

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


def all_ready(data):
    found = processes(data)
    return found if set(found) == NAMES and {p["state"] for p in found.values()} == {"ready"} else None


def alive(pids):
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@contextmanager
def a_system(data):
    port = free_port()
    supervisor = launch(data, port)
    try:
        until(lambda: all_ready(data) or supervisor.poll() is not None, "all processes ready")
        assert supervisor.poll() is None, supervisor.communicate()
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
    assert all(set(p) == {"name", "pid", "address", "state", "replica"} for p in listed)
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

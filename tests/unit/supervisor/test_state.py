import json
import os

import pytest

from orchestrator.supervisor.errors import AlreadyRunning
from orchestrator.supervisor.state import ProcessStatus, RunLock, holder, read_status, write_status


def test_a_directory_is_held_by_one_and_the_other_is_told_by_whom(tmp_path):
    first = RunLock(tmp_path / "run")
    first.acquire()

    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        RunLock(tmp_path / "run").acquire()
    assert holder(tmp_path / "run") == os.getpid()

    first.release()
    assert holder(tmp_path / "run") is None
    RunLock(tmp_path / "run").acquire()


def test_nobody_holds_a_directory_that_was_never_run(tmp_path):
    assert holder(tmp_path / "run") is None


def test_a_status_counts_only_while_its_writer_lives(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    write_status(tmp_path, "127.0.0.1:8000", [ProcessStatus("redis", 7, "127.0.0.1:1", "ready")])

    while_held = read_status(tmp_path)
    lock.release()

    assert while_held["processes"] == [
        {"name": "redis", "pid": 7, "address": "127.0.0.1:1", "state": "ready", "replica": 0}
    ]
    assert read_status(tmp_path) is None
    assert json.loads((tmp_path / "status.json").read_text())["supervisor"] == os.getpid()

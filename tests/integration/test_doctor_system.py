"""What a system that was started for a drill leaves behind."""

import subprocess
import sys

import psutil
import pytest

from orchestrator.doctor.system import end_left_behind

pytestmark = pytest.mark.integration


def test_what_outlives_its_supervisor_is_named_and_ended():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "orphan"]) as process:
        names = end_left_behind([psutil.Process(process.pid)])
        code = process.wait(5)

    assert len(names) == 1
    assert "time.sleep" in names[0]
    assert code == -9


def test_what_ended_by_itself_is_no_orphan():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        ended = psutil.Process(process.pid)
        process.wait(5)

    assert end_left_behind([ended]) == []

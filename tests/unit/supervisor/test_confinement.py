"""A process that starts beside running ones: on one core and nice until it is ready, then as we are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.supervisor.confinement import NICER_BY, can_take_niceness_back, confine, release

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="confinement: one core, or no Linux",
)

THREADS = """
import os, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child():
    """A process that tells when it has a second thread, and ends when its input does."""
    with subprocess.Popen([sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        confine(process.pid)
        assert process.stdout.readline() == b"up\n"
        yield process.pid


def cores_of_threads(pid):
    return [os.sched_getaffinity(int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir()]


def niceness_of_threads(pid):
    return [os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir()]


def test_it_is_nice_until_it_is_released_and_never_where_that_is_for_good(child):
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    expected = ours + NICER_BY if can_take_niceness_back() else ours
    assert niceness_of_threads(child) == [expected] * 2

    release(child)

    assert niceness_of_threads(child) == [ours] * 2


def test_it_keeps_to_one_core_until_it_is_released_with_all_its_threads(child):
    assert [len(cores) for cores in cores_of_threads(child)] == [1, 1]

    release(child)

    assert cores_of_threads(child) == [os.sched_getaffinity(0)] * 2


def test_one_that_has_ended_is_no_error():
    confine(2**22 + 1)
    release(2**22 + 1)

import io
import threading
from pathlib import Path

import pytest

from orchestrator.supervisor.console import QUEUE_LINES, Console, LogFile


def test_lines_carry_the_name_of_who_said_them():
    out = io.StringIO()
    console = Console(out, width=6)

    console.echo("redis", "hello")
    console.say("ready")
    console.close()

    assert out.getvalue() == "redis  │ hello\ntutti  │ ready\n"


def test_a_quiet_console_keeps_the_supervisors_own_voice():
    out = io.StringIO()
    console = Console(out, show_children=False)

    console.echo("redis", "hello")
    console.say("ready")
    console.close()

    assert out.getvalue() == "tutti │ ready\n"


def test_a_terminal_that_stands_still_holds_nobody_up_and_the_dropped_lines_are_counted():
    class Stuck(io.StringIO):
        moves = threading.Event()

        def write(self, text):
            self.moves.wait(5)
            return super().write(text)

    out = Stuck()
    console = Console(out)

    for n in range(QUEUE_LINES + 500):
        console.echo("model", str(n))
    out.moves.set()
    console.close()

    printed = out.getvalue().splitlines()
    shown = [line for line in printed if line.startswith("model")]
    dropped = next(line for line in printed if "were not shown" in line)
    assert len(shown) + int(dropped.split("│")[1].split()[0]) == QUEUE_LINES + 500


def test_a_reader_that_hung_up_is_no_error():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    console = Console(Gone())

    console.say("ready")
    console.close()


def test_a_log_file_keeps_one_file_before_it_and_no_more(tmp_path):
    log = LogFile(tmp_path / "model.log", max_bytes=20)

    for n in range(10):
        log.write(f"line {n}")
    log.close()

    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.log", "model.log.1"]
    assert (tmp_path / "model.log").read_text() == "line 8\nline 9\n"
    assert (tmp_path / "model.log.1").read_text() == "line 6\nline 7\n"


# Once: closing the log raised on a full disk, and `tutti up` left its processes behind.
def test_a_log_on_a_full_disk_can_be_closed(tmp_path):
    log = LogFile(tmp_path / "model.log")
    log.close()
    log._file = Path("/dev/full").open("wb")  # noqa: SIM115 – closing it is what is tested

    with pytest.raises(OSError, match="No space"):
        log.write("x")
    log.close()

"""Sampled stacks, what they add up to, and the picture of them."""

import asyncio
import stat
from xml.etree import ElementTree

import psutil
import pytest

from loadtests.profile import __main__ as command
from loadtests.profile.flame import WIDTH, colour, flame_graph
from loadtests.profile.stacks import Function, StacksError, merged, read_stacks, table

RAW = """\
thread (0x1): main;<module> (app.py:3);run (app.py:10);fuse (fusion.py:30) 6
<module> (app.py:3);run (app.py:12);encode (encode.py:5) 3
<module> (app.py:3);run (app.py:14) 1
<module> (app.py:3);walk (tree.py:1);walk (tree.py:2);walk (tree.py:2) 2
"""


def test_samples_of_a_function_count_together_whatever_line_they_were_in():
    functions = {one.name: one for one in read_stacks(RAW).functions()}

    assert functions["run (app.py)"] == Function("run (app.py)", 1, 10)
    assert functions["fuse (fusion.py)"] == Function("fuse (fusion.py)", 6, 6)
    assert functions["<module> (app.py)"] == Function("<module> (app.py)", 0, 12)


def test_a_function_that_calls_itself_is_in_a_sample_once_and_no_sample_is_lost():
    stacks = read_stacks(RAW)
    functions = stacks.functions()

    assert stacks.n == 12
    assert sum(one.self_n for one in functions) == 12
    assert all(one.self_n <= one.all_n <= 12 for one in functions)
    assert [one.all_n for one in functions if one.name.startswith("walk")] == [2]
    assert functions[0].name == "fuse (fusion.py)"


@pytest.mark.parametrize("line", ["no count", "a (b.py:1)", "", "a (b.py:1) x"])
def test_what_is_no_stack_is_refused_with_its_line(line):
    with pytest.raises(StacksError, match="line 2"):
        read_stacks(f"a (b.py:1) 3\n{line}\n")


def test_a_stack_that_was_gone_when_it_was_read_is_nobodys():
    assert read_stacks(f"{RAW} 1\n").n == 12


def test_the_table_names_the_dearest_functions_of_each_process_with_their_shares():
    text = table({"orchestrator": read_stacks(RAW), "idle": read_stacks("")}, most=2)

    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == ["| `fuse (fusion.py)` | 50.0% | 50.0% |", "| `encode (encode.py)` | 25.0% | 25.0% |"]
    assert "## idle\n\n0 samples" in text


def test_processes_of_one_kind_are_added_up():
    both = merged([read_stacks(RAW), read_stacks(RAW)])

    assert both.n == 24
    assert both.functions()[0] == Function("fuse (fusion.py)", 12, 12)


def test_a_flame_graph_is_whole_svg_in_which_what_is_called_stands_within_its_caller():
    svg = flame_graph(read_stacks(RAW), "a <name> & more")

    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    boxes = {
        group.find(f"{space}title").text.partition(":")[0]: group.find(f"{space}rect").attrib
        for group in root.iter(f"{space}g")
    }
    run, fuse, module = (boxes[f"{name}.py)"] for name in ("run (app", "fuse (fusion", "<module> (app"))
    assert float(module["width"]) == WIDTH
    assert float(fuse["width"]) == pytest.approx(WIDTH / 2, abs=0.01)
    assert float(run["x"]) <= float(fuse["x"])
    assert float(fuse["x"]) + float(fuse["width"]) <= float(run["x"]) + float(run["width"]) + 0.01
    assert float(fuse["y"]) < float(run["y"]) < float(module["y"])
    assert "a &lt;name&gt; &amp; more: 12 samples" in svg


def test_without_a_sample_there_is_an_empty_picture_and_a_function_has_one_colour():
    assert ElementTree.fromstring(flame_graph(read_stacks(""), "nothing")) is not None
    assert colour("fuse (fusion.py)") == colour("fuse (fusion.py)") != colour("run (app.py)")


def test_missing_rights_are_told_with_what_to_do_and_anything_else_as_it_was_said():
    rights = command.why_not("Error: Permission Denied: Try running again with elevated permissions", 7)
    gone = command.why_not("Error: No such process", 7)

    assert "process 7" in rights
    assert "SYS_PTRACE" in rights
    assert gone == "py-spy could not sample process 7: Error: No such process"


def a_py_spy(tmp_path, script):
    path = tmp_path / "py-spy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


async def test_what_py_spy_wrote_is_read_and_what_it_refused_is_an_error(tmp_path):
    # Among its arguments is --output FILE.
    works = a_py_spy(tmp_path, 'while [ "$1" != --output ]; do shift; done; echo "a (b.py:1) 4" > "$2"')
    found = await command.sample(works, 7, 1, tmp_path)

    refuses = a_py_spy(tmp_path, "echo 'Error: Operation not permitted (os error 1)' >&2; exit 1")
    with pytest.raises(command.CannotSample, match="ptrace_scope"):
        await command.sample(refuses, 7, 1, tmp_path)

    assert found.n == 4


async def test_a_sampler_that_is_given_up_is_ended(tmp_path):
    hangs = a_py_spy(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")

    task = asyncio.create_task(command.sample(hangs, 7, 1, tmp_path))
    async with asyncio.timeout(20):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    pid = (tmp_path / "pid").read_text().strip()
    assert not psutil.pid_exists(int(pid))


def test_without_py_spy_the_command_ends_with_two_and_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))

    code = command.main(["--data", str(tmp_path)])

    assert code == 2
    assert "pip install py-spy" in capsys.readouterr().err

"""A long command: many answers in the making, handed on in order, and what is said of how far it is."""

import asyncio
import io

import pyarrow.parquet as pq
import pytest

from orchestrator.cli import progress, recommend
from orchestrator.cli.ordered import in_order


class Makers:
    """Answers that end when they are told to; counts who is at it."""

    def __init__(self):
        self.begun, self.at_once, self.most, self.cancelled = [], 0, 0, 0
        self.ends = {}

    async def answer(self, question):
        self.begun.append(question)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.ends.setdefault(question, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1
        if question == "bad":
            raise ValueError("no answer")
        return f"{question}!"

    def end(self, *questions):
        for question in questions:
            self.ends.setdefault(question, asyncio.Event()).set()


async def turns(n=20):
    for _ in range(n):
        await asyncio.sleep(0)


async def collect(makers, questions, found, at_once=2, window=4):
    async for question, answer in in_order(questions, makers.answer, at_once, window):
        found.append((question, answer))


async def test_answers_come_in_order_and_a_slow_head_does_not_hold_up_the_making():
    makers, found = Makers(), []
    task = asyncio.create_task(collect(makers, list(range(10)), found))

    makers.end(1, 2, 3)
    await turns()

    assert found == []
    assert makers.begun == [0, 1, 2, 3]
    makers.end(*range(10))
    await task
    assert found == [(i, f"{i}!") for i in range(10)]
    assert makers.most == 2


async def test_no_more_questions_are_taken_than_the_window_holds():
    taken = []
    makers = Makers()

    def questions():
        for i in range(100):
            taken.append(i)
            yield i

    task = asyncio.create_task(collect(makers, questions(), []))
    makers.end(*range(1, 100))
    await turns(200)

    assert taken == [0, 1, 2, 3]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_error_comes_at_its_turn_and_ends_what_is_still_in_the_making():
    makers, found = Makers(), []
    makers.end("good", "bad")

    with pytest.raises(ValueError, match="no answer"):
        await collect(makers, ["good", "bad", "slow", "later"], found, at_once=3, window=3)

    assert found == [("good", "good!")]
    assert makers.cancelled == 1
    assert makers.at_once == 0


def test_a_log_is_told_now_and_then_how_long_it_will_take():
    now, said = [0.0], io.StringIO()

    with progress.shown("slates", 1_000, said, lambda: now[0]) as advance:
        for _ in range(10):
            now[0] += 5.0
            advance(100)

    lines = said.getvalue().splitlines()
    assert lines[0] == "slates: 300 of 1,000, 20/s, 35 s left"
    assert lines[-1] == "slates: 1,000 in 50 s, 20/s"
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7_500, "2 h 5 min")]
)
def test_a_length_of_time_is_said_as_people_do(seconds, said):
    assert progress.spoken(seconds) == said


SCHEMA = recommend.SCHEMA


def rows_of(n, at=0):
    return [(f"u{i}", "mug", 1, 0.5) for i in range(at, at + n)]


def test_slates_are_written_group_by_group_and_the_file_is_there_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(recommend, "ROWS_A_GROUP", 3)
    out = tmp_path / "slates.parquet"

    with recommend._whole(out, SCHEMA) as write:
        for at in range(0, 8, 2):
            write(rows_of(2, at))
        assert not out.exists()

    table = pq.read_table(out)
    assert table.column("user_id").to_pylist() == [f"u{i}" for i in range(8)]
    assert pq.ParquetFile(out).num_row_groups == 3
    assert [path.name for path in tmp_path.iterdir()] == ["slates.parquet"]


def test_a_batch_that_fails_leaves_the_file_of_the_last_one(tmp_path):
    out = tmp_path / "slates.parquet"
    with recommend._whole(out, SCHEMA) as write:
        write(rows_of(1))

    def fails():
        with recommend._whole(out, SCHEMA) as write:
            write(rows_of(5))
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fails()

    assert pq.read_table(out).num_rows == 1
    assert [path.name for path in tmp_path.iterdir()] == ["slates.parquet"]

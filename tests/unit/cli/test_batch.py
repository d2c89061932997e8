"""A long command: many answers in the making, handed on in order, and what is said of how far it is."""

import asyncio
import io

import pyarrow.parquet as pq
import pytest

from orchestrator.cli import parts, progress, recommend
from orchestrator.cli.ordered import in_order
from protos import artefacts


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
INPUTS = {"the users file": "abc", "--k": 20}


def answers(keep, numbers, level="full"):
    for i in numbers:
        keep([(f"u{i}", "mug", 1, 0.5), (f"u{i}", "pot", 2, 0.4)], level)


def test_slates_are_written_part_by_part_and_the_file_is_there_at_the_end(tmp_path):
    out = tmp_path / "slates.parquet"
    run = parts.Parts.of(out, INPUTS, size=3, total=8)

    with recommend._kept(run, SCHEMA) as keep:
        answers(keep, range(8))
        assert not out.exists()
    run.join(SCHEMA)

    table = pq.read_table(out)
    assert table.column("user_id").to_pylist() == [f"u{i}" for i in range(8) for _ in range(2)]
    assert pq.ParquetFile(out).num_row_groups == 3
    assert run.counts == {}
    assert [path.name for path in tmp_path.iterdir()] == ["slates.parquet"]


def test_a_run_that_was_stopped_goes_on_where_it_was_and_makes_the_same_file(tmp_path):
    whole = parts.Parts.of(tmp_path / "whole.parquet", INPUTS, size=3, total=8)
    with recommend._kept(whole, SCHEMA) as keep:
        answers(keep, range(8))
    whole.join(SCHEMA)
    out = tmp_path / "slates.parquet"

    def is_stopped():
        with recommend._kept(parts.Parts.of(out, INPUTS, size=3, total=8), SCHEMA) as keep:
            answers(keep, range(5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        is_stopped()
    again = parts.Parts.of(out, INPUTS, size=3, total=8)

    assert not out.exists()
    assert again.missing() == [1, 2]
    assert [again.questions(number) for number in again.missing()] == [slice(3, 6), slice(6, 8)]
    with recommend._kept(again, SCHEMA) as keep:
        answers(keep, range(3, 8), "partial")
    assert again.counts == {"full": 3, "partial": 5}
    again.join(SCHEMA)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_parts_of_other_inputs_are_refused_by_name_until_they_are_thrown_away(tmp_path):
    out = tmp_path / "slates.parquet"
    with recommend._kept(parts.Parts.of(out, INPUTS, size=3, total=8), SCHEMA) as keep:
        answers(keep, range(3))

    with pytest.raises(parts.InputsChanged, match=r"1 parts .* the users file changed; give --restart"):
        parts.Parts.of(out, {**INPUTS, "the users file": "xyz"}, size=3, total=8)
    with pytest.raises(parts.InputsChanged, match="since then --k changed"):
        parts.Parts.of(out, {**INPUTS, "--k": 10}, size=6, total=8)
    with pytest.raises(parts.InputsChanged, match="since then questions a part changed"):
        parts.Parts.of(out, INPUTS, size=6, total=8)
    anew = parts.Parts.of(out, {**INPUTS, "the users file": "xyz"}, size=3, total=8, restart=True)

    assert anew.missing() == [0, 1, 2]
    assert not anew.folder.exists()


def test_a_part_that_is_half_written_or_gone_is_made_again(tmp_path):
    out = tmp_path / "slates.parquet"
    run = parts.Parts.of(out, INPUTS, size=3, total=8)
    with recommend._kept(run, SCHEMA) as keep:
        answers(keep, range(8))
    (run.folder / "part-00001.parquet").unlink()
    (run.folder / "part-00001.partial").write_bytes(b"half")

    assert parts.Parts.of(out, INPUTS, size=3, total=8).missing() == [1]
    (run.folder / parts.MANIFEST).write_text("{")
    with pytest.raises(parts.InputsChanged, match="cannot be read"):
        parts.Parts.of(out, INPUTS, size=3, total=8)


def test_an_answer_with_a_part_missing_is_never_joined(tmp_path):
    out = tmp_path / "slates.parquet"
    run = parts.Parts.of(out, INPUTS, size=3, total=8)
    with recommend._kept(run, SCHEMA) as keep:
        answers(keep, range(6))

    with pytest.raises(RuntimeError, match=r"part 2 of .* is not done"):
        run.join(SCHEMA)

    assert not out.exists()


def test_inputs_change_with_users_data_models_and_options(tmp_path, monkeypatch):
    users, models = tmp_path / "users.csv", tmp_path / "models" / "popular"
    models.mkdir(parents=True)
    aliases = models / artefacts.ALIASES
    users.write_text("user_id\nu1\n")
    aliases.write_text('{"champion": "1", "previous": "0"}')
    before = recommend._inputs(tmp_path, users, {"k": 20})

    def changed():
        now = recommend._inputs(tmp_path, users, {"k": 20})
        return [name for name in now if now[name] != before[name]]

    aliases.write_text('{"champion": "1", "previous": "-1"}')
    assert changed() == []
    aliases.write_text('{"champion": "2"}')
    assert changed() == ["the models"]
    users.write_text("user_id\nu2\n")
    assert changed() == ["the users file", "the models"]
    (tmp_path / "events.parquet").write_bytes(b"other")
    assert changed() == ["the users file", "the data", "the models"]

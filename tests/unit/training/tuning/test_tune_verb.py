"""`tutti tune`: what it prints, and its exit codes."""

import pytest
import typer
from typer.testing import CliRunner

from protos import tuned as tuned_file
from protos.tuned import Tuned
from services.training import tuned
from services.training.tune_verb import said, tune
from services.training.tuning import run as runs
from services.training.tuning.run import Progress
from tests.support.small_shop import tastes, write_shop

app = typer.Typer()
app.command("tune")(tune)
app.command("other")(lambda: None)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    for name in ("TUTTI_CONFIG", "TUTTI_DEFAULTS"):
        monkeypatch.delenv(name, raising=False)
    return write_shop(tmp_path / "shop", tastes(users=24, items=20, days=120))


def run(*arguments: object):
    return CliRunner().invoke(app, ["tune", *map(str, arguments)])


def test_it_tunes_and_says_what_came_of_it(shop):
    result = run("--data", shop, "--trials", 3, "--only", "content_based")

    assert result.exit_code == 0, result.output
    assert "| content_based | 3 (" in result.stdout
    assert "report.json" in result.stdout
    assert "content_based: trial 3 of 3, best" in result.stderr


def test_a_dry_run_prints_what_may_be_moved_and_touches_nothing(shop):
    before = sorted(path.name for path in shop.iterdir())

    result = run("--data", shop, "--dry-run")

    assert result.exit_code == 0, result.output
    assert "| collaborative_filtering | affinity.linear_ridge | 30.0 | 2 … 300, logarithmic |" in result.stdout
    assert "| fusion | weights.content_based |" in result.stdout
    assert sorted(path.name for path in shop.iterdir()) == before


def test_forgetting_removes_the_file(shop):
    tuned.write(shop, Tuned({"content_based": {"half_life_days": 7.0}}), {})

    first, second = run("--data", shop, "--forget"), run("--data", shop, "--forget")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "forgotten" in first.stdout
    assert "nothing was tuned" in second.stdout
    assert not (shop / tuned_file.FILE).exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--only", "colour"], "no stage colour"),
        (["--until", "yesterday"], "expected a date as in"),
        (["--until", "1999-01-01"], "give --until"),
    ],
)
def test_a_wrong_word_is_one_sentence(shop, arguments, expected):
    result = run("--data", shop, *arguments)

    assert result.exit_code == 1
    assert expected in result.stderr


def test_a_tuned_file_that_cannot_be_read_says_how_to_go_back(shop):
    (shop / tuned_file.FILE).write_text("{")

    result = run("--data", shop, "--only", "content_based")

    assert result.exit_code == 1
    assert "tutti tune --forget" in result.stderr


def test_ctrl_c_ends_with_its_own_code_and_a_word(shop, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "tune", stopped)

    result = run("--data", shop)

    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr


def test_progress_is_a_line_that_says_where_it_is():
    there = Progress("fusion", 12, 40, 0.21, 0.2, 75.0)

    assert said(there) == "fusion: trial 12 of 40, best 0.2100 (+5.0% on the defaults), about 1:15 left"
    assert said(Progress("fusion", 1, 40, 0.2, None, None)) == "fusion: trial 1 of 40, best 0.2000"

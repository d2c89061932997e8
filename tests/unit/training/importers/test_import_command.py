"""`tutti data import`: what it prints, and its exit codes."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from services.training.importers import SOURCES
from services.training.importers.command import HELP, import_

app = typer.Typer()
app.command("import", help=HELP)(import_)
app.command("other")(lambda: None)

GOOD = "user_id,item_id,event_type,timestamp\nu1,i1,view,2024-01-01\n,i1,view,2024-01-02\n"


def run(*arguments: object):
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


def test_the_help_has_every_source_and_an_example():
    result = run("--help")

    assert result.exit_code == 0
    for source in SOURCES:
        assert source in result.output
    assert "tutti data import online-retail" in result.output


def test_an_import_prints_its_account(write, tmp_path):
    result = run("canonical", write({"events.csv": GOOD}), "--out", tmp_path / "out")

    assert result.exit_code == 0
    assert result.stdout.split("\n")[:3] == [
        "rows read                2",
        "  dropped                1  no user_id",
        "rows kept                1",
    ]
    assert (tmp_path / "out" / "dataset.json").exists()


def test_a_wrong_file_is_one_sentence_and_exit_code_one(write, tmp_path):
    result = run("canonical", write({"events.csv": "a,b\n"}), "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "error: events.csv:1: column user_id: found no such column in 'a,b'; expected" in result.stderr
    assert "Traceback" not in result.output


def test_wrong_usage_is_exit_code_two(write, tmp_path):
    folder = write({"events.csv": GOOD})

    unknown = run("netflix", folder, "--out", tmp_path / "out")
    unrated = run("canonical", folder, "--out", tmp_path / "out", "--min-rating", "3")
    missing = run("canonical", tmp_path / "nowhere", "--out", tmp_path / "out")

    assert [result.exit_code for result in (unknown, unrated, missing)] == [2, 2, 2]
    assert "online-retail" in unknown.output
    assert not (tmp_path / "out").exists()


def test_ratings_take_a_threshold(write, tmp_path):
    folder = write({"ratings.dat": "1::1::3::978300760\n1::2::2::978300761\n"})

    result = run("movielens", folder, "--out", tmp_path / "out", "--min-rating", "3")

    assert result.exit_code == 0
    assert "rating below 3" in result.stdout

"""`tutti config check`: settings and rules, as they would be taken, or the key that is wrong."""

import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli import build

HIDE = '[[rules]]\nname = "gone"\naction = "hide"\nitems = { ids = ["a"] }\n'


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTTI_DATA__PATH", str(tmp_path / "no shop"))
    monkeypatch.delenv("TUTTI_CONFIG", raising=False)

    def check(rules=None):
        path = tmp_path / "rules.toml"
        if rules is not None:
            path.write_text(rules)
        config = tmp_path / "tutti.toml"
        config.write_text(f'[rules]\npath = "{path}"\n')
        return CliRunner().invoke(build(), ["config", "check", "--config", str(config)])

    return check


def test_the_effective_tree_is_printed_and_each_rule_described(check):
    rules = HIDE + HIDE.replace("gone", "later") + "from = 2999-01-01T00:00:00Z\n"
    rules += HIDE.replace("gone", "before") + "until = 1999-01-01T00:00:00Z\n"

    told = check(rules)

    assert told.exit_code == 0
    assert json.loads(told.stdout)["rules"]["reload_s"] == 5
    assert "rule gone: hide, in force\n" in told.stderr
    assert "rule later: hide, from 2999-01-01 00:00 UTC\n" in told.stderr
    assert "rule before: hide, over\n" in told.stderr
    assert "not held against the shop" in told.stderr, "there is none yet, and nothing of that is an error"


@pytest.mark.parametrize(
    ("rules", "said"),
    [(HIDE + "places = 2\n", "rule 'gone': factor and places"), (None, "no rules file at"), ("[[rules]", "not TOML")],
)
def test_a_wrong_file_of_rules_is_refused_in_one_sentence(check, rules, said):
    told = check(rules)

    assert told.exit_code == 1
    assert told.stderr.startswith("rules: ")
    assert said in told.stderr
    assert told.stdout == ""

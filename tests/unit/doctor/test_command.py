"""`tutti doctor` where there is nothing to examine."""

from typer.testing import CliRunner

from orchestrator.cli import build


def test_without_a_data_directory_it_says_how_to_make_one_and_judges_nothing(tmp_path):
    ran = CliRunner().invoke(build(), ["doctor", "--data", str(tmp_path / "none")])

    assert ran.exit_code == 2
    assert "no data directory" in ran.output
    assert "tutti demo" in ran.output


def test_what_it_breaks_and_what_its_exit_codes_mean_is_in_its_help():
    ran = CliRunner().invoke(build(), ["doctor", "--help"])

    assert ran.exit_code == 0
    assert "Exit code 0 only when every fault held" in ran.output
    assert "Not for a system that serves customers" in ran.output

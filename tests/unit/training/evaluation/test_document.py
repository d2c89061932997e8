"""Tables find their place in a document, and nothing else in it moves."""

import json

import pytest

from services.training.evaluation import document
from tests.unit.training.evaluation.test_page import report

__all__ = ["report"]

TEXT = "before\n\n<!-- begin shop figures -->\nold\n<!-- end shop figures -->\n\nafter | 1 |\n"


def test_a_block_is_made_anew_and_what_is_around_it_stays(report):
    once = document.filled(TEXT, "shop", report)

    assert once.startswith("before\n\n<!-- begin shop figures -->\n")
    assert once.endswith("<!-- end shop figures -->\n\nafter | 1 |\n")
    assert "old" not in once
    assert "| slate | 0.300 |" in once
    assert "Test window 2020-01-01 to 2020-01-29, seeds 7, 8" in once
    assert document.filled(once, "shop", report) == once


def test_slices_and_costs_are_a_block_of_their_own(report):
    text = document.filled("<!-- begin shop slices --><!-- end shop slices -->", "shop", report)

    assert "one event (50)" in text
    assert "| judging | 1.5 | 300 |" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [(TEXT.replace("shop", "other"), "has blocks of other"), ("<!-- begin shop figures --> never ends", "without")],
)
def test_a_document_without_the_block_is_left_alone(tmp_path, capsys, report, text, words):
    path, source = tmp_path / "quality.md", tmp_path / "evaluation.json"
    path.write_text(text)
    source.write_text(json.dumps(report))

    assert document.main([str(path), f"shop={source}"]) == 1
    assert path.read_text() == text
    assert words in capsys.readouterr().err


def test_the_command_fills_the_file_and_says_how_it_is_used(tmp_path, report):
    path, source = tmp_path / "quality.md", tmp_path / "evaluation.json"
    path.write_text(TEXT)
    source.write_text(json.dumps(report))

    assert document.main([str(path), f"shop={source}"]) == 0
    assert "| slate | 0.300 |" in path.read_text()
    assert document.main([str(path)]) == 2

"""Values are dataclasses that a type checker keeps frozen."""

import dataclasses

from mypy import api

from orchestrator.core.model import Kept, Lost
from orchestrator.core.values import value


@value
class Pair:
    left: int
    right: str = "r"


def test_values_are_equal_hashed_and_replaced_by_their_fields():
    assert Pair(1) == Pair(1, "r") != Pair(2)
    assert len({Pair(1), Pair(1), Pair(2)}) == 2
    assert dataclasses.replace(Pair(1), right="s") == Pair(1, "s")
    assert repr(Pair(1)).endswith("Pair(left=1, right='r')")


def test_values_have_slots_and_can_be_matched():
    assert not hasattr(Pair(1), "__dict__")
    match Kept(3):
        case Lost():
            raise AssertionError("it was kept")
        case Kept(value=found):
            assert found == 3


def test_the_type_checker_refuses_to_write_to_one(tmp_path):
    text = "from orchestrator.core.deadline import Deadline\nDeadline(1.0).at = 2.0\n"
    (tmp_path / "wrong.py").write_text(text)

    found, _, _ = api.run(["--follow-imports=silent", "--cache-dir", str(tmp_path), str(tmp_path / "wrong.py")])

    assert 'Property "at" defined in "Deadline" is read-only' in found

"""Where ingestion may be let die: named steps, all of them passed by the code, and none in service."""

import re
from pathlib import Path

import pytest

from services import ingestion
from services.ingestion import steps


def test_without_the_variable_nothing_happens():
    assert steps.from_environment({}) is steps.nothing


@pytest.mark.parametrize("told", ["nowhere", "consume.read:often", ":2"])
def test_what_is_no_step_is_refused_with_those_there_are(told):
    with pytest.raises(ValueError, match=r"consume\.read"):
        steps.from_environment({steps.VARIABLE: told})


def test_other_steps_are_passed():
    reached = steps.from_environment({steps.VARIABLE: "consume.read:2"})

    reached("consume.read")
    reached("consume.written")


def test_the_code_passes_every_step_once_and_no_other():
    source = "".join(path.read_text() for path in Path(ingestion.__path__[0]).glob("*.py"))

    assert sorted(re.findall(r'self\._step\("([^"]+)"\)', source)) == sorted(steps.STEPS)

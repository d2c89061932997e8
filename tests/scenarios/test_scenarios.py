"""
Transcripts of whole stories in virtual time: commands, and below each what it reported (see script.py).

After a wanted change `pytest tests/scenarios --rerecord` writes them anew; the diff is what to review.
"""

from pathlib import Path

import pytest

from tests.scenarios.script import Stage
from tests.support.virtual_clock import run

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))
RULE = "----"

pytestmark = pytest.mark.virtual_time


def blocks(text: str) -> list[list[str]]:
    """Paragraphs of a transcript: comment lines, command lines, and after the rule what the last one reported."""
    return [paragraph.splitlines() for paragraph in text.strip().split("\n\n")]


async def replayed(text: str) -> str:
    """The transcript with what the commands report now."""
    stage, out = Stage(), []
    for paragraph in blocks(text):
        said = paragraph[: paragraph.index(RULE)] if RULE in paragraph else paragraph
        reports = [await stage.do(line) for line in said if not line.startswith("#")]
        if all(report == "ok" for report in reports):
            out.append("\n".join(said))
        else:
            assert all(report == "ok" for report in reports[:-1]), f"one report a paragraph: {said}"
            out.append("\n".join([*said, RULE, reports[-1]]))
    return "\n\n".join(out) + "\n"


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_story_goes_as_it_was_told(transcript: Path, request: pytest.FixtureRequest):
    recorded = transcript.read_text()

    now = run(replayed(recorded))

    if request.config.getoption("--rerecord"):
        transcript.write_text(now)
    else:
        assert now.splitlines() == recorded.splitlines(), "run `pytest tests/scenarios --rerecord` if this is wanted"


def test_there_are_stories():
    assert len(TRANSCRIPTS) >= 8


async def test_a_story_does_not_depend_on_the_one_before():
    text = TRANSCRIPTS[0].read_text()

    assert await replayed(text) == await replayed(text)


async def test_an_unknown_command_is_refused():
    with pytest.raises(ValueError, match="no command 'dance'"):
        await replayed("dance now\n")

"""
What each stage of one training costs: processor seconds of this process, wall seconds, and the most memory it held.

The rule: the training is the real one, of the command, on a copy of the data; nothing is measured that is not paid.
The peak of a stage is the kernel's high-water mark, reset where a stage begins (Linux; elsewhere the peak so far).

    python -m loadtests.training_stages .tutti/shop [--seed 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from services.training import pipeline, sources

CANONICAL = ("events.parquet", "items.parquet", "dataset.json", "tuned.json", "vocabulary.parquet")


class Stages:
    """Told when a step begins; holds (step, CPU s, wall s, peak MB) of those before it."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float, float, float]] = []
        self._begun: tuple[str, float, float] | None = None

    def __call__(self, what: str) -> None:
        self.end()
        _forget_peak()
        self._begun = what, time.process_time(), time.monotonic()
        sys.stderr.write(f"{what}\n")

    def end(self) -> None:
        """Close the step that is open, if one is."""
        if self._begun is not None:
            what, cpu, wall = self._begun
            line = (what, time.process_time() - cpu, time.monotonic() - wall, peak_mb())
            sys.stderr.write(f"    {line[1]:.1f} s CPU, {line[2]:.1f} s, {line[3]:,.0f} MB\n")
            sys.stderr.flush()
            self.found.append(line)
        self._begun = None


def peak_mb() -> float:
    """The most memory this process held since `_forget_peak`."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        sys.stderr.write("peaks cannot be reset here: each is the highest so far\n")


def main(arguments: list[str]) -> int:
    """Train a copy and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="train here in place of a folder that is thrown away")
    asked = parser.parse_args(arguments)
    place = asked.keep or Path(tempfile.mkdtemp(prefix="tutti-stages-"))
    place.mkdir(exist_ok=True)
    stages = Stages()
    try:
        for name in CANONICAL:
            if (asked.data / name).is_file():
                shutil.copy2(asked.data / name, place / name)
        done = pipeline.train(place, sources.configured(), asked.seed, progress=stages, force=True)
        stages.end()
    finally:
        if asked.keep is None:
            shutil.rmtree(place, ignore_errors=True)
    width = max(len(what) for what, *_ in stages.found)
    for what, cpu, wall, peak in stages.found:
        sys.stdout.write(f"{what:<{width}} {cpu:8.1f} s CPU {wall:8.1f} s {peak:8,.0f} MB\n")
    cpu, wall = sum(one[1] for one in stages.found), sum(one[2] for one in stages.found)
    sys.stdout.write(
        f"{'all':<{width}} {cpu:8.1f} s CPU {wall:8.1f} s {max(one[3] for one in stages.found):8,.0f} MB\n"
    )
    if asked.json is not None:
        found = {"stages": stages.found, "report": done.report}
        asked.json.write_text(json.dumps(found, indent=1, default=str) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

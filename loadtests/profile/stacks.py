"""
Sampled stacks, as py-spy's raw format has them, and what they add up to by function.

One line a stack: frames from the outermost in, `name (file:line)`, joined by `;`, then a space and how often.

    StacksError    a line that is none
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Stack = tuple[str, ...]

_FRAME = re.compile(r"(?P<name>.+) \((?P<file>[^()]*?)(?::\d+)?\)\Z")

_THREAD = re.compile(r"(?:thread|process) .*\Z", re.IGNORECASE)


class StacksError(ValueError):
    """See the module's docstring."""


@dataclass(frozen=True, slots=True)
class Function:
    """How many samples ended in a function (*self_n*), and in how many it was anywhere (*all_n*)."""

    name: str
    self_n: int
    all_n: int


@dataclass(slots=True)
class Stacks:
    """Stack → how often it was seen."""

    counts: Counter[Stack] = field(default_factory=Counter)

    @property
    def n(self) -> int:
        """Samples in all."""
        return self.counts.total()

    def functions(self) -> list[Function]:
        """Every function, most of its own time first, equals by name."""
        own: Counter[str] = Counter()
        anywhere: Counter[str] = Counter()
        for stack, n in self.counts.items():
            own[stack[-1]] += n
            # A function that calls itself is in the sample once.
            anywhere.update(dict.fromkeys(stack, n))
        found = [Function(name, own[name], anywhere[name]) for name in anywhere]
        return sorted(found, key=lambda one: (-one.self_n, one.name))


def read_stacks(text: str) -> Stacks:
    """
    What py-spy wrote with `--format raw`; lines of a function count together, threads and processes are left out.

    Raises:
        StacksError: see the module.
    """
    stacks = Stacks()
    for number, line in enumerate(text.splitlines(), 1):
        frames, _, n = line.rpartition(" ")
        if not line.strip() or not n.isdigit():
            raise StacksError(f"line {number} is no stack and its count: {line[:80]!r}")
        # Unpaused, py-spy now and then reads a stack that is just gone: a count of nothing.
        stack = tuple(_function(frame) for frame in frames.split(";") if frame and not _THREAD.match(frame))
        if stack:
            stacks.counts[stack] += int(n)
    return stacks


def _function(frame: str) -> str:
    found = _FRAME.match(frame)
    return frame if found is None else f"{found['name']} ({found['file']})"


def table(processes: Mapping[str, Stacks], most: int) -> str:
    """The *most* functions of each process by self time, as Markdown."""
    parts = []
    for name, stacks in processes.items():
        lines = [f"## {name}", "", f"{stacks.n} samples in which it worked.", ""]
        lines += ["| function | self | with what it calls |", "|---|---:|---:|"]
        lines += [_row(one, stacks.n) for one in stacks.functions()[:most] if one.self_n]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _row(one: Function, n: int) -> str:
    return f"| `{one.name}` | {one.self_n / n:.1%} | {one.all_n / n:.1%} |"


def merged(many: Iterable[Stacks]) -> Stacks:
    """The stacks of several processes of one kind."""
    counts: Counter[Stack] = Counter()
    for one in many:
        counts.update(one.counts)
    return Stacks(counts)


def below(counts: Mapping[Stack, int], depth: int) -> Sequence[tuple[str, Mapping[Stack, int]]]:
    """Those stacks that are deeper than *depth* by their frame there, by name."""
    groups: dict[str, dict[Stack, int]] = {}
    for stack, n in counts.items():
        if len(stack) > depth:
            groups.setdefault(stack[depth], {})[stack] = n
    return sorted(groups.items())

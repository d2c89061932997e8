"""
A measurement, top to bottom: the table, coalescing on and off, the knee. `measure` reads like the report it makes.

The rule: everything that is divided by each other is measured in this one run, in turns: the bare arithmetic before,
between and after the rows of its kind, coalescing on and off in alternating rounds. What else the machine does then
meets both sides of a ratio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.bench import asking, facts, loads, variants
from services.bench.asking import Unit
from services.bench.beside import BATCHES, Beside, Cost, bare, cheaper
from services.bench.client import Spec
from services.bench.figures import FULL, Comparison, Round, Row, row
from services.bench.knee import BELOW, Step, is_over, knee, rates, step_of
from services.bench.options import COMPARED_AT, BenchUnusable, Options
from services.bench.shop import copied
from services.bench.system import System, running
from services.bench.variants import JOINED, SINGLE, VARIANT_OF

FORMAT = 1

WARM_S = 1.0
"""Before each cell. Judged: the edge's adaptive limit follows a new number in flight within some hundred answers."""

FIRST_S = 2.0
"""Before the first cell of a variant: connections, lazy imports, buffers. Judged as above."""

FORGOTTEN_S = 10.0
"""Between the table and the knee. Derived: the ladder climbs back from the last rung within some seconds, a breaker
closes slowly over ten (orchestrator/core); begun at once, the first rate came back 70 % full, a higher one 98 %."""

BARE_SHARE = 0.4
"""Of a cell's seconds, for each stretch of the bare arithmetic: of which there are four or more a kind."""

ROUNDS = 2
"""Of each side of a comparison: on, off, on, off. What gets slower all the time is then the same for both."""

COMPARED_SLATES = 20
"""Asked of the edge and of the bare arithmetic, to see that they do the same work."""

FULL_WITHIN = 5
"""Times a slate is asked for until it is full. Judged: who is not by then is the system's usual answer, and is told."""

PERSONAL = ("uncached", "page", "ranking")
"""Kinds with arithmetic in them; a remembered slate has none."""

Say = Callable[[str], None]


@dataclass
class Results:
    """What a measurement found; `to_json` is the file beside the table."""

    machine: dict[str, Any]
    shop: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    costs: dict[str, list[Cost]] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    not_compared: str | None = None
    steps: list[Step] = field(default_factory=list)
    knee_per_s: float | None = None
    below_knee: Row | None = None
    same_work: dict[str, tuple[float, int]] = field(default_factory=dict)
    pages_are_one_request: bool = False
    took_s: float = 0.0
    settings: str = ""

    def to_json(self, options: Options) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "format": FORMAT,
            "machine": self.machine,
            "options": {
                "seconds": options.seconds,
                "concurrency": list(options.concurrency),
                "kinds": list(options.kinds),
                "seed": options.seed,
            },
            "shop": self.shop,
            "settings": self.settings,
            "took_s": round(self.took_s, 1),
            "pages_are_one_request": self.pages_are_one_request,
            "same_work": {kind: {"share": share, "slates": n} for kind, (share, n) in self.same_work.items()},
            "bare": {kind: [cost.to_json() for cost in costs] for kind, costs in self.costs.items()},
            "rows": [one.to_json() for one in self.rows],
            "coalescing": {
                "not_compared": self.not_compared,
                "compared": [one.to_json() for one in self.comparisons],
            },
            "knee": {
                "steps": [{"rate": s.rate, "sent": s.sent, "full": s.full} for s in self.steps],
                "per_s": self.knee_per_s,
                "below": self.below_knee.to_json() if self.below_knee is not None else None,
                "below_share": BELOW,
            },
        }


def measure(data: Path, options: Options, say: Say = lambda what: None) -> Results:
    """
    Start the shop of *data*, measure it as *options* want it, and end it.

    Raises:
        BenchUnusable: the shop cannot be measured.
        SystemFailed, BareFailed, LoadFailed, ProcessGone: something ended that should not have.
    """
    began, results = time.monotonic(), Results(facts.machine())
    switch = variants.coalescing_switch() if options.compare else None
    if options.compare and switch is None:
        results.not_compared = "the settings know no coalesce"
    needed = variants.variants(options.kinds, switch)
    with copied(data) as place:
        say("starting the system")
        with running(place, needed) as system, bare(system.settings) as beside:
            bench = _Bench(system, beside, options, say, results)
            bench.prepare(data)
            for kind in options.kinds:
                bench.rows_of(kind)
            if switch is not None:
                bench.compare()
            if options.knee and "uncached" in options.kinds:
                bench.find_knee()
            results.settings = facts.digest(system.settings)
    results.machine["load_average_after"] = facts.load()
    results.took_s = time.monotonic() - began
    return results


class _Bench:
    """One run's collaborators and what it found so far."""

    def __init__(self, system: System, beside: Beside, options: Options, say: Say, results: Results) -> None:
        self._system, self._beside, self._options, self._say = system, beside, options, say
        self._results = results
        self._units: dict[str, list[Unit]] = {}
        self._first: dict[str, int] = {}
        self._warm: set[str] = set()

    def prepare(self, data: Path) -> None:
        """Who asks for what; and that the bare arithmetic does the same work as the edge."""
        options, results = self._options, self._results
        self._say("reading shoppers")
        shoppers, looked_at, items = self._beside.shoppers(asking.MOST, options.seed)
        if not shoppers:
            raise BenchUnusable(
                f"none of {looked_at} shoppers of {data} has features and a history in Redis; "
                f"is it trained on its own events? `tutti train --data {data} --force`"
            )
        mean = sum(len(one.items) for one in shoppers) / len(shoppers)
        results.shop = {
            "data": data.name,
            "items": len(items),
            "shoppers_asked_for": len(shoppers),
            "shoppers_looked_at": looked_at,
            "items_of_a_shopper_at_most_10": round(mean, 2),
        }
        # The comparison is of uncached slates, whatever the table is of.
        self._units["uncached"] = asking.units("uncached", shoppers, items, options.seed)
        for kind in options.kinds:
            self._units[kind] = asking.units(kind, shoppers, items, options.seed)
            if kind in PERSONAL:
                # As three requests: what the bare arithmetic computes is three slates either way.
                self._beside.take(kind, self._units[kind])
                results.same_work[kind] = self._same_work(kind)
        if "page" in options.kinds and self._has_pages():
            results.pages_are_one_request = True
            self._units["page"] = asking.as_pages(self._units["page"])

    def _same_work(self, kind: str) -> tuple[float, int]:
        """Mean share of a full slate's first 20 items that are among the bare arithmetic's, and of how many slates."""
        ours = self._beside.slates(kind, COMPARED_SLATES)
        shares, asked = [], [one for unit in self._units[kind][:COMPARED_SLATES] for one in unit]
        for (path, body), slate in zip(asked, ours, strict=True):
            theirs = self._full_slate(VARIANT_OF[kind], path, body)
            if theirs is not None:
                first, same = set(theirs[: asking.COUNT]), set(slate[: asking.COUNT])
                shares.append(len(first & same) / max(len(first), len(same), 1))
        return sum(shares) / max(len(shares), 1), len(shares)

    def _full_slate(self, variant: str, path: str, body: str) -> list[str] | None:
        """Items of the answer; None where some stage was lost, which first requests on a busy machine may see."""
        for _ in range(FULL_WITHIN):
            status, answer = self._system.post(variant, path, body)
            if status == 200 and answer["quality"]["level"] == FULL:
                return [item["id"] for item in answer["items"]]
        return None

    def _has_pages(self) -> bool:
        """Whether the edge answers whole pages; asked, not known."""
        ((path, body),) = asking.as_pages(self._units["page"][:1])[0]
        status, answer = self._system.post(VARIANT_OF["page"], path, body)
        return status == 200 and bool(answer)

    def rows_of(self, kind: str) -> None:
        """A row for each number in flight, the bare arithmetic before, between and after them."""
        rounds: list[tuple[int, Round]] = []
        with self._bare_around(kind) as between:
            for concurrency in self._options.concurrency:
                self._say(f"{kind}, {concurrency} in flight")
                rounds.append((concurrency, self._closed(kind, VARIANT_OF[kind], concurrency)))
                between()
        bare_ms = self._bare_ms(kind)
        self._results.rows += [row(kind, concurrency, [one], bare_ms) for concurrency, one in rounds]

    def compare(self) -> None:
        """Coalescing on and off, patient on both sides, in alternating rounds."""
        kind, every = "uncached", dict[int, dict[str, list[Round]]]()
        with self._bare_around(kind) as between:
            for concurrency in COMPARED_AT:
                rounds = every[concurrency] = {JOINED: [], SINGLE: []}
                for turn in range(ROUNDS):
                    for name in (JOINED, SINGLE):
                        side = "on" if name == JOINED else "off"
                        self._say(f"coalescing {side}, {concurrency} in flight, round {turn + 1} of {ROUNDS}")
                        rounds[name].append(self._closed(kind, name, concurrency))
                    between()
        bare_ms = self._bare_ms(kind)
        for concurrency, rounds in every.items():
            on, off = (row(kind, concurrency, rounds[name], bare_ms) for name in (JOINED, SINGLE))
            self._results.comparisons.append(Comparison(concurrency, on, off))

    def find_knee(self) -> None:
        """Rates that rise until they are not followed, then latency at nine tenths of the last that was."""
        results, seconds = self._results, self._options.seconds
        closed = max(one.full_per_s for one in results.rows if one.kind == "uncached")
        self._say("letting limits, breakers and the ladder forget the rows that were too much")
        self._load("uncached", VARIANT_OF["uncached"], concurrency=1, rate=None, warm_s=0.0, seconds=FORGOTTEN_S)
        # Nothing came back full: there is no rate to begin with.
        for rate in rates(closed) if closed else ():
            self._say(f"open loop, {rate:.0f} requests/s")
            results.steps.append(step_of(rate, self._open("uncached", rate, seconds)))
            if is_over(results.steps):
                break
        results.knee_per_s = knee(results.steps)
        if results.knee_per_s is None:
            return
        rate = BELOW * results.knee_per_s
        self._say(f"open loop, {rate:.0f} requests/s: {BELOW:.0%} of the knee")
        results.below_knee = row("uncached", None, [self._open("uncached", rate, 2 * seconds)])

    @contextmanager
    def _bare_around(self, kind: str) -> Iterator[Callable[[], None]]:
        if kind not in PERSONAL:
            yield lambda: None
            return

        def stretch() -> None:
            self._beside.measure(kind, BARE_SHARE * self._options.seconds)

        stretch()
        yield stretch
        self._results.costs[kind] = self._costs(kind)

    def _bare_ms(self, kind: str) -> float | None:
        costs = self._costs(kind)
        return cheaper(costs).ms if costs else None

    def _costs(self, kind: str) -> list[Cost]:
        return [cost for batch in BATCHES if (cost := self._beside.cost(kind, batch)) is not None]

    def _closed(self, kind: str, variant: str, concurrency: int) -> Round:
        if variant not in self._warm:
            self._warm.add(variant)
            self._load(kind, variant, concurrency=8, rate=None, warm_s=0.0, seconds=FIRST_S)
        return self._load(
            kind, variant, concurrency=concurrency, rate=None, warm_s=WARM_S, seconds=self._options.seconds
        )

    def _open(self, kind: str, rate: float, seconds: float) -> Round:
        return self._load(kind, VARIANT_OF[kind], concurrency=None, rate=rate, warm_s=WARM_S, seconds=seconds)

    def _load(
        self, kind: str, variant: str, *, concurrency: int | None, rate: float | None, warm_s: float, seconds: float
    ) -> Round:
        system, units = self._system, self._units[kind]
        # Each stretch goes on where the one before began, and an eighth on: others ask now.
        first = self._first.get(kind, 0)
        self._first[kind] = first + max(1, len(units) // 8)
        spec = Spec(system.ports[variant], units, first, concurrency, rate, warm_s, seconds, self._options.seed)
        return loads.measure(spec, system.under(variant), system.beside(variant))

"""
Several slates in one answer: one shopper, one deadline, no item twice.

    look up        every shelf at once; remembered slates stand from the top, as far as none repeats an item
    hydrate        the shopper, once
    the lines      stages 3 to 7 of every shelf that is left, at once; the coalescer makes one call of them
    select         one shelf after the other, each without what stands above it

Adds nothing to what a slate is: stages, losses, levels and fallbacks are the pipeline's, shelf by shelf
(docs/adr/0049). What may stand beside what is decided in `core.page`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from orchestrator.backstop import Backstop
from orchestrator.core import page, slate_cache
from orchestrator.core.deadline import Deadline
from orchestrator.core.model import Loss, Query, Rung, Slate, StageList
from orchestrator.core.report import Report, keys_of
from orchestrator.core.rules import InForce
from orchestrator.pipeline import BACKSTOP_S, Line, Pipeline
from orchestrator.remembered import NOTHING, Recalled
from orchestrator.telemetry import summarise_page


@dataclass(frozen=True, slots=True)
class Shelf:
    """One slate of a page; *lists* are what stood behind it, for explanations, where it was computed."""

    query: Query
    slate: Slate
    lists: Sequence[StageList]


@dataclass(slots=True)
class _Wanted:
    """
    A shelf that is not filled yet.

    mark: what its remembered name says of the shelves above.
    """

    query: Query
    rules: InForce
    mark: str
    report: Report
    recalled: Recalled = NOTHING


@dataclass(slots=True)
class _Page:
    """One page under way: shelves that are filled, from the top; those that are not; and the keys shown so far."""

    left: list[_Wanted]
    filled: list[Shelf] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)

    def show(self, slate: Slate) -> None:
        """*slate* is what stands on the next shelf."""
        wanted = self.left.pop(0)
        self.filled.append(Shelf(wanted.query, slate, wanted.report.lists))
        self.shown += keys_of(slate.items).tolist()


class Pages(Pipeline):
    """The pipeline, which also answers several queries of one shopper together."""

    async def page(
        self,
        queries: Sequence[Query],
        budget_s: float | None = None,
        *,
        queued_s: float = 0.0,
        floor: Rung = Rung.FULL,
    ) -> list[Shelf]:
        """
        A slate for each of *queries*, in their order, no item in two of them.

        Args:
            queries: of one shopper; no rankings. Who stands further up chooses first.
            budget_s, queued_s, floor: as of `recommend`, for all of them together.
        """
        started = self._parts.monotonic()
        deadline = self._deadline(started, budget_s, queued_s)
        one = _Page(
            [
                _Wanted(query, self._arrangement.in_force(query), mark, Report(rung=self.rung))
                for query, mark in zip(queries, page.marks(queries), strict=True)
            ]
        )
        try:
            # As in `recommend`: never fires, unless a stage has a bug.
            with Backstop(deadline.remaining(started) + BACKSTOP_S):
                await self._answer_all(one, deadline, floor)
        except TimeoutError:
            self._parts.metrics.backstops.inc()
            self._fill_without_calls(one, Loss.DEADLINE)
        slates = [shelf.slate for shelf in one.filled]
        summarise_page(
            [(shelf.query, shelf.slate) for shelf in one.filled],
            page.longest(slates),
            self._parts.monotonic() - started,
            self._parts.metrics,
        )
        return one.filled

    async def _answer_all(self, one: _Page, deadline: Deadline, floor: Rung) -> None:
        """As far down the ladder as *floor* says."""
        if floor >= Rung.POPULAR:
            self._fill_without_calls(one, Loss.SHED)
            return
        await self._recall(one, deadline)
        self._fill_from_memory(one)
        if floor >= Rung.STALE:
            self._fill_with_what_there_is(one)
        elif one.left:
            await self._compute_the_rest(one, deadline)

    # What is remembered.

    async def _recall(self, one: _Page, deadline: Deadline) -> None:
        look_up = self._remembered.look_up
        async with asyncio.TaskGroup() as group:
            found = [
                group.create_task(look_up(shelf.query, deadline, shelf.report, shelf.rules.digest + shelf.mark))
                for shelf in one.left
            ]
        for shelf, task in zip(one.left, found, strict=True):
            shelf.recalled = task.result()

    def _fill_from_memory(self, one: _Page) -> None:
        """
        Remembered slates, from the top down to the first that is not there or would repeat an item.

        What is remembered further down was made beneath another slate than will stand there, so it goes with it.
        """
        while one.left:
            shelf = one.left[0]
            remembered = shelf.recalled.slate
            if remembered is None:
                return
            slate = page.apart(remembered, one.shown)
            if len(slate.items) < len(remembered.items):
                return
            if shelf.recalled.refresh:
                beneath = page.beneath(shelf.query, one.shown)
                self._remembered.refresh_later(shelf.recalled, partial(self._make, beneath, shelf.rules))
            self._show(one, slate)

    def _fill_with_what_there_is(self, one: _Page) -> None:
        """What is remembered, filled with popular items where something stands above it already; else popular ones."""
        while one.left:
            shelf = one.left[0]
            slate = self._fitted(shelf, shelf.recalled.slate, one.shown)
            if slate is None:
                popular = self._without_calls(page.beneath(shelf.query, one.shown), shelf.report, Loss.SHED)
                slate = slate_cache.or_fallback(popular, self._fitted(shelf, shelf.recalled.fallback, one.shown))
            self._show(one, slate)

    def _fitted(self, shelf: _Wanted, slate: Slate | None, shown: Sequence[int]) -> Slate | None:
        """*slate* without what is shown above, filled with popular items; None where that cannot be done from here."""
        if slate is None:
            return None
        return self._arrangement.still_shown(page.beneath(shelf.query, shown), page.apart(slate, shown))

    def _fill_without_calls(self, one: _Page, loss: Loss) -> None:
        while one.left:
            shelf = one.left[0]
            self._show(one, self._without_calls(page.beneath(shelf.query, one.shown), shelf.report, loss))

    # What has to be made.

    async def _compute_the_rest(self, one: _Page, deadline: Deadline) -> None:
        """Lines at once, slates one after the other."""
        started = self._parts.monotonic()
        lines = await self._lines(one, deadline)
        for line in lines:
            shelf, shown = one.left[0], one.shown
            slate = self._beneath(shelf, line, shown)
            self._remembered.keep(shelf.recalled, slate, started)
            self._show(one, slate_cache.or_fallback(slate, self._fitted(shelf, shelf.recalled.fallback, shown)))

    async def _lines(self, one: _Page, deadline: Deadline) -> list[Line]:
        """Stages 2 to 7 of the shelves that are left: the shopper once, everything else at the same time."""
        first, *others = one.left
        user = await self._hydrate_query(first.query, deadline, first.report)
        for shelf in others:
            shelf.report.of_the_same_shopper(first.report)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    # What is remembered above is known by now, and need not be proposed again.
                    self._line(page.beneath(shelf.query, one.shown), user, shelf.rules, deadline, shelf.report)
                )
                for shelf in one.left
            ]
        return [task.result() for task in tasks]

    def _beneath(self, shelf: _Wanted, line: Line, shown: Sequence[int]) -> Slate:
        """The slate of *line* as if what is shown above had been excluded from the start."""
        query, report = page.beneath(shelf.query, shown), shelf.report
        may_be_shown, _ = page.without(line.may_be_shown, shown)
        ranked, gone = page.without(line.ranked, shown)
        if gone:
            report.removed = (*report.removed, (page.REMOVED_AS, gone))
        slate = self._selected(query, Line(line.user, line.terms, may_be_shown, ranked), report)
        # An explained slate is asked for by a developer, not seen by a shopper: nothing is learnt from it.
        return slate if query.explain else self._noted(query, slate, report)

    def _show(self, one: _Page, slate: Slate) -> None:
        """*slate* on the next shelf, as it leaves the process: chance has the last word before the next is chosen."""
        query = one.left[0].query
        if not query.explain:
            slate = self._shown(query, slate)
            if self._parts.slate_log is not None:
                self._parts.slate_log.served(query, slate)
        one.show(slate)

"""
What happened to one request, written down while it happens, and the honest words for it at the end.

The one mutable value of a request: stages add to it, `slate` turns it into the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.core.model import (
    Asked,
    Int32,
    Kept,
    Level,
    Loss,
    Lost,
    Reranked,
    Retrieved,
    Rung,
    Slate,
    SlateItem,
    SourceReport,
    StageList,
)
from orchestrator.core.selection import IMPERSONAL, Selected
from orchestrator.core.unread import UnreadSlots


@dataclass(slots=True)
class Report:
    """
    Collects what each stage did; see `Slate` for the fields' meaning.

    rung: the one the ladder's controller stands on; what was lost may put the answer on a lower one.
    asked: what the re-ranker was asked, where it answered.
    """

    sources: dict[str, SourceReport] = field(default_factory=dict)
    losses: dict[str, Loss] = field(default_factory=dict)
    model_versions: dict[str, str] = field(default_factory=dict)
    removed: tuple[tuple[str, int], ...] = ()
    stages_ms: dict[str, float] = field(default_factory=dict)
    lists: list[StageList] = field(default_factory=list)
    watermark: int = 0
    rung: Rung = Rung.FULL
    asked: Asked | None = None

    def stage(self, name: str, took_s: float) -> None:
        """Note how long stage *name* took."""
        self.stages_ms[name] = round(took_s * 1000, 3)

    def lost(self, name: str, loss: Loss) -> None:
        """Note that *name* did not contribute."""
        self.losses[name] = loss

    def of_the_same_shopper(self, other: Report) -> None:
        """Note what *other* noted of the shopper, who was read for both."""
        self.watermark = other.watermark
        if "user" in other.losses:
            self.lost("user", other.losses["user"])
        if "user" in other.stages_ms:
            self.stages_ms["user"] = other.stages_ms["user"]

    def source(self, name: str, outcome: Kept[Retrieved] | Lost) -> None:
        """Note what source *name* answered, or why it did not."""
        took_ms = round(outcome.took_s * 1000, 3)
        match outcome:
            case Kept(value=value):
                self.sources[name] = SourceReport(name, "ok", took_ms, len(value.keys))
                self.model_versions[name] = value.model_version
                self.lists.append(StageList(f"source:{name}", value.keys, value.scores.astype("f8")))
            case Lost(loss=loss):
                self.sources[name] = SourceReport(name, loss.status, took_ms)
                self.lost(name, loss)

    def rerank(self, name: str, outcome: Kept[Reranked] | Lost) -> None:
        """Note what the re-ranker answered, or why it did not."""
        match outcome:
            case Kept(value=value):
                self.model_versions[name] = value.model_version
            case Lost(loss=loss):
                self.lost("rerank", loss)

    def slate(self, selected: Selected, created_at: float) -> Slate:
        """The answer: what was *selected* and everything noted."""
        items = selected.items
        level = self._level(items)
        return Slate(
            items=items,
            level=level,
            sources=tuple(self._with_kept(report, items) for report in self.sources.values()),
            degraded=tuple(self.losses),
            losses=tuple(self.losses.items()),
            model_versions=tuple(self.model_versions.items()),
            watermark=self.watermark,
            created_at=created_at,
            removed=self.removed,
            stages_ms=tuple(self.stages_ms.items()),
            # The controller's lower rungs say what it fears; what this answer lost says where it stands.
            rung=max(min(self.rung, Rung.NARROW), self._needed(level)),
            pinned=selected.pinned,
            pool=selected.pool,
            touched=selected.touched,
        )

    def _needed(self, level: Level) -> Rung:
        """
        The rung that the losses put this answer on; see docs/resilience.md.

        A shopper of whom nothing is known gets popular items on the first rung: nothing was lost.
        """
        if level is Level.POPULAR and self.losses.keys() - {"cache"}:
            return Rung.POPULAR
        if "rerank" in self.losses:
            return Rung.NO_RERANK
        return Rung.NARROW if "user" in self.losses else Rung.FULL

    def _level(self, items: tuple[SlateItem, ...]) -> Level:
        """Popular: nothing personal is in it. Partial: something personal, but a contribution is missing."""
        if all(len(item.sources) == 1 and item.sources[0] in IMPERSONAL for item in items):
            return Level.POPULAR
        # A lost cache costs time, not quality: the slate is as good as computed.
        return Level.PARTIAL if self.losses.keys() - {"cache"} else Level.FULL

    @staticmethod
    def _with_kept(report: SourceReport, items: tuple[SlateItem, ...]) -> SourceReport:
        kept = sum(report.name in item.sources for item in items)
        return SourceReport(report.name, report.status, report.took_ms, report.candidates, kept)


def keys_of(items: Sequence[SlateItem]) -> Int32:
    """(n,) int32 keys of *items*, in order; not to be written to."""
    if isinstance(items, UnreadSlots):
        return items.keys
    return np.array([item.key for item in items], np.int32)

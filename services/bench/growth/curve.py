"""
Points along axes, and what they cost; what the curves are made of. Pure.

The rule: one axis moves at a time, and all others stand where the defaults have them, so that a curve says what one
thing costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

ITEMS = (10_000, 50_000, 200_000, 1_000_000)
AT = 50_000
"""Items where another axis moves: the shop of the project's objectives."""

HISTORY = (0, 10, 50, 200, 1_000)
CANDIDATES = (50, 100, 200, 400, 1_000)
KEPT = (1.0, 0.3, 0.1, 0.01, 0.001)
USERS = (10_000, 100_000, 1_000_000, 10_000_000)

AXES = ("items", "history", "candidates", "kept")

BATCHES = (1, 32)


@dataclass(frozen=True, slots=True)
class Point:
    """
    What is asked at one place of one axis.

    history     events of each shopper; None: as many as they have
    candidates  asked of all sources together, and re-ranked; None: as the settings have it
    kept        share of the catalogue that the caller's filter allows; 1: no filter
    """

    axis: str
    value: float
    history: int | None = None
    candidates: int | None = None
    kept: float = 1.0


@dataclass(frozen=True, slots=True)
class Cost:
    """
    What a query costs there.

    ms         stage → milliseconds of CPU: each model by its name, `pipeline` for what is between them
    slots      items of a slate in the mean, of 20; own  how many of them some model proposed
    """

    point: Point
    batch: int
    ms: Mapping[str, float]
    queries: int
    slots: float
    own: float

    @property
    def total_ms(self) -> float:
        return sum(self.ms.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "ms": dict(self.ms), "total_ms": self.total_ms}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Cost:
        """What `to_json` gave."""
        given = {name: content[name] for name in ("batch", "ms", "queries", "slots", "own")}
        return cls(Point(**content["point"]), **given)


@dataclass
class Growth:
    """
    Everything that was found.

    memory        process → items → bytes it grew by when its part was loaded
    redis         what → bytes a user
    seconds       what was done → how long it took
    """

    machine: dict[str, Any] = field(default_factory=dict)
    shop: dict[str, Any] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)
    memory: dict[str, dict[int, int]] = field(default_factory=dict)
    redis: dict[str, float] = field(default_factory=dict)
    redis_sample: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def along(self, axis: str, batch: int) -> list[Cost]:
        """The costs of one curve, rising."""
        found = [cost for cost in self.costs if cost.point.axis == axis and cost.batch == batch]
        return sorted(found, key=lambda cost: cost.point.value)

    def ratio(self, axis: str, value: float, over: float, batch: int) -> float | None:
        """Cost at *value* over that at another place of the axis; None where one was not measured."""
        at = {cost.point.value: cost.total_ms for cost in self.along(axis, batch)}
        return at[value] / at[over] if value in at and at.get(over) else None

    def bytes_an_item(self, process: str) -> float | None:
        """The slope from the smallest to the largest shop: what is there whatever the shop is left out."""
        return slope(self.memory.get(process, {}))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": 1,
            "machine": self.machine,
            "shop": self.shop,
            "costs": [cost.to_json() for cost in self.costs],
            "memory_bytes": {name: {str(n): b for n, b in sizes.items()} for name, sizes in self.memory.items()},
            "bytes_an_item": {name: self.bytes_an_item(name) for name in self.memory},
            "redis_bytes_a_user": self.redis,
            "redis_users_measured": self.redis_sample,
            "redis_bytes": {str(users): users * sum(self.redis.values()) for users in USERS},
            "seconds": self.seconds,
        }


def points(items: int, is_middle: bool) -> list[Point]:
    """What is measured in a shop of *items*; in the middle one the other axes move, too."""
    found = [Point("items", items)]
    if is_middle:
        found += [Point("history", length, history=length) for length in HISTORY]
        found += [Point("candidates", count, candidates=count) for count in CANDIDATES]
        found += [Point("kept", share, kept=share) for share in KEPT]
    return found


def slope(at: Mapping[int, int]) -> float | None:
    """Bytes an item between the smallest and the largest shop; None for one shop alone."""
    if len(at) < 2:
        return None
    low, high = min(at), max(at)
    return (at[high] - at[low]) / (high - low)


def quotas(candidates: int, usual: Sequence[int], most: int = 1000) -> list[int]:
    """*candidates* over sources as their usual quotas are, at least one each and at most what the wire allows."""
    return [min(most, max(1, round(candidates * one / sum(usual)))) for one in usual]

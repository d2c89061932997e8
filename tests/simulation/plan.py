"""
Seed → plan: who asks what and when, which events arrive in between, and what goes wrong with whom.

A plan is a value; carrying it out twice must give the same trace. Times are virtual seconds.
"""

import random
from dataclasses import dataclass, replace
from enum import Enum

from orchestrator.core.model import Diversity, ItemFilter, Loss, Placement, Query, Rung
from tests.support.builders import CLICK, PURCHASE, VIEW
from tests.support.worlds import BRANDS, CACHE, CATEGORIES, CB, CF, EVENTS, N_ITEMS, RERANKER, USER

REPLICAS = {CF: 2, CB: 2, RERANKER: 2, USER: 1, CACHE: 1, EVENTS: 1}
HOUR_S = 3600.0
SHOPPERS = ("u1", "u2", "u3", "u4")
"""u1 to u3 have a history, u4 is new."""

SOLD_OUT = (frozenset(), frozenset({29, 28, 39, 4}), frozenset(range(20, 40)), frozenset(range(3, 40, 2)))
"""What may be sold out; a handful of shops, so that their catalogues are built once a process."""

DEPENDENCY_LOSSES = (Loss.UNAVAILABLE, Loss.UNAVAILABLE, Loss.ERROR, Loss.OVERLOADED, Loss.INVALID_REPLY, Loss.DEADLINE,
                     Loss.SKEW, Loss.REFUSED)  # fmt: skip
"""What a dependency may answer with; nobody-there is the most frequent, and the only one tried again."""


class Kind(Enum):
    """How a call goes wrong."""

    SLOW = "slow"
    HANG = "hang"
    LOSE = "lose"
    LATE = "late"
    TWICE = "twice"
    DEAF = "deaf"
    NAMELESS = "nameless"


@dataclass(frozen=True, slots=True)
class Fault:
    """
    *kind* happens to *target* from *from_s* until *until_s*.

    replica   None: all of them
    share     of the calls that it happens to
    period_s  0: all the time; else on for so long, off for so long, and so on
    factor    SLOW: times the usual latency
    """

    kind: Kind
    target: str
    replica: int | None
    from_s: float
    until_s: float
    share: float = 1.0
    period_s: float = 0.0
    factor: float = 1.0
    loss: Loss = Loss.UNAVAILABLE

    def is_on(self, replica: int, at: float) -> bool:
        """Whether a call to *replica* at *at* may meet it."""
        return (
            self.from_s <= at < self.until_s
            and self.replica in (None, replica)
            and (not self.period_s or int((at - self.from_s) / self.period_s) % 2 == 0)
        )

    def __str__(self) -> str:
        where = self.target if self.replica is None else f"{self.target}[{self.replica}]"
        how = {Kind.SLOW: f" ×{self.factor:.1f}", Kind.LOSE: f" {self.loss.value}"}.get(self.kind, "")
        flapping = f", on and off every {self.period_s:.2f} s" if self.period_s else ""
        return f"{self.from_s:.3f}–{self.until_s:.3f} s {where} {self.kind.value}{how}, {self.share:.0%}{flapping}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of `Pipeline.recommend`, and after how long the caller hangs up."""

    at_s: float
    query: Query
    budget_s: float | None = None
    queued_s: float = 0.0
    floor: Rung = Rung.FULL
    hangs_up_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """One event; *copies* of it arrive."""

    at_s: float
    subject: str
    key: int
    type_code: int
    event_id: str
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """
    latencies   dependency → (median in seconds, spread): a log-normal distribution
    warm        attempts that each dependency had answered before the first request, so that hedges have a histogram
    spurned_by  a dependency that accepted nothing for a while, so that adaptive throttling rejects most
    stock       (moment, keys sold out from then on)
    stalls      (moment, seconds for which the loop stands still)
    jumps       (moment, seconds by which the wall clock is set)
    heals       whether it is asked again long after the last fault, and must be whole
    """

    seed: int
    with_cache: bool
    latencies: dict[str, tuple[float, float]]
    warm: int
    spurned_by: str | None
    faults: tuple[Fault, ...]
    stock: tuple[tuple[float, frozenset[int]], ...]
    stalls: tuple[tuple[float, float], ...]
    jumps: tuple[tuple[float, float], ...]
    asked: tuple[Asked, ...]
    told: tuple[Told, ...]
    heals: bool

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {len(self.asked)} requests, {len(self.told)} events, "
            f"cache {'on' if self.with_cache else 'off'}, {self.warm} calls before, "
            f"spurned by {self.spurned_by or 'nobody'}",
            *(f"  usually {name} {median_s * 1000:.1f} ms ± {s:.2f}" for name, (median_s, s) in self.latencies.items()),
            *(f"  {fault}" for fault in self.faults),
            *(f"  {at:.3f} s sold out: {sorted(keys)}" for at, keys in self.stock),
            *(f"  {at:.3f} s the loop stalls for {for_s * 1000:.0f} ms" for at, for_s in self.stalls),
            *(f"  {at:.3f} s the wall clock jumps by {by_s:+.0f} s" for at, by_s in self.jumps),
        ]
        return "\n".join(lines)


def plan_of(seed: int) -> Plan:
    """The plan of *seed*."""
    rng = random.Random(f"plan {seed}")
    is_outage = rng.random() < 0.3
    asked = _requests(rng, _moments_of_an_outage(rng) if is_outage else _moments(rng))
    lasts_s = asked[-1].at_s + 0.1
    return Plan(
        seed=seed,
        with_cache=rng.random() < 0.5,
        latencies={
            CF: (rng.uniform(0.004, 0.014), rng.uniform(0.1, 0.5)),
            CB: (rng.uniform(0.003, 0.010), rng.uniform(0.1, 0.5)),
            RERANKER: (rng.uniform(0.003, 0.012), rng.uniform(0.1, 0.5)),
            USER: (rng.uniform(0.0005, 0.002), rng.uniform(0.1, 0.6)),
            CACHE: (rng.uniform(0.0003, 0.0015), rng.uniform(0.1, 0.6)),
            EVENTS: (rng.uniform(0.0005, 0.002), rng.uniform(0.1, 0.6)),
        },
        warm=rng.choice((0, 120)),
        spurned_by=rng.choice((CF, RERANKER, USER)) if rng.random() < 0.1 else None,
        faults=_faults(rng, lasts_s) + ((_outage(rng, lasts_s),) if is_outage else ()),
        stock=((0.0, SOLD_OUT[0]), *((rng.uniform(0, lasts_s), rng.choice(SOLD_OUT)) for _ in range(rng.randrange(3)))),
        stalls=_some(rng, 0.25, lambda: (rng.uniform(0, lasts_s), rng.choice((0.012, 0.04, 0.15, 0.4)))),
        jumps=_some(rng, 0.6, lambda: (rng.uniform(0, lasts_s), rng.choice((-HOUR_S, HOUR_S)))),
        asked=asked,
        told=_events(rng, asked),
        heals=rng.random() < 0.06,
    )


def _some(rng: random.Random, share: float, make) -> tuple:
    """None, one or two of what *make* gives."""
    if rng.random() >= share:
        return ()
    return tuple(sorted(make() for _ in range(rng.choice((1, 1, 2)))))


def _moments(rng: random.Random) -> list[float]:
    """8 to 13, steady or in bursts: nobody waits for the one before."""
    steadiness = rng.choice((0.0, 0.5, 1.0))
    at, found = 0.001, []
    for _ in range(rng.randint(8, 13)):
        found.append(round(at, 6))
        if rng.random() < steadiness:
            at += rng.expovariate(1 / 0.15)
        else:
            at += rng.choice((0.0, 0.0001, 0.002, 0.002, 0.01, 0.7))
    return found


def _moments_of_an_outage(rng: random.Random) -> list[float]:
    """Enough at once to open a breaker, and a crowd that comes back about when it is asked again."""
    opening = [0.001 + 0.004 * number for number in range(10)]
    crowd_at = rng.uniform(0.7, 1.4)
    return opening + [
        round(crowd_at + rng.choice((0.0, 0.001, 0.02)) * number, 6) for number in range(rng.randint(3, 5))
    ]


def _outage(rng: random.Random, lasts_s: float) -> Fault:
    """Of one dependency with all its replicas, over before the crowd comes back or not."""
    return Fault(
        rng.choice((Kind.HANG, Kind.LOSE, Kind.LOSE, Kind.LATE)),
        rng.choice((CF, CB, RERANKER, USER)),
        replica=None,
        from_s=0.0,
        until_s=rng.choice((0.3, lasts_s)),
        loss=rng.choice((Loss.UNAVAILABLE, Loss.ERROR)),
    )


def _requests(rng: random.Random, moments: list[float]) -> tuple[Asked, ...]:
    """What is asked at these moments; about half of it was asked before, so that there is something to remember."""
    # On a hurried day most have little time, so that a few milliseconds decide what is still tried; on an impatient one
    # most do not wait.
    hurry = rng.choice((0.1, 0.1, 0.1, 0.8))
    impatience = rng.choice((0.1, 0.1, 0.1, 0.6))
    asked: list[Asked] = []
    for number, at in enumerate(moments):
        name = f"r{number}"
        is_old = asked and rng.random() < 0.5
        query = replace(rng.choice(asked).query, recommendation_id=name) if is_old else _query(rng, name)
        asked.append(_request(rng, query, at, hurry, impatience))
    return tuple(asked)


def _request(rng: random.Random, query: Query, at: float, hurry: float, impatience: float) -> Asked:
    # Most ask as most do; each oddity is rare, so that several of one request are rarer still.
    return Asked(
        at,
        query,
        budget_s=rng.choice((0.0, rng.uniform(0.0, 0.1))) if rng.random() < hurry else None,
        queued_s=rng.choice((0.005, 0.03, 0.09, 0.2)) if rng.random() < 0.1 else 0.0,
        floor=rng.choice((Rung.STALE, Rung.POPULAR)) if rng.random() < 0.08 else Rung.FULL,
        hangs_up_after_s=rng.choice((0.0, 0.0015, 0.009, 0.02, 0.05)) if rng.random() < impatience else None,
    )


def _query(rng: random.Random, number: str) -> Query:
    def keys(most: int) -> tuple[int, ...]:
        return tuple(rng.sample(range(N_ITEMS), rng.randint(1, most)))

    about: dict[str, object] = {}
    who = rng.random()
    if who < 0.8:
        about["user_id"] = rng.choice(SHOPPERS)
    elif who < 0.9:
        about["visitor_id"] = "v1"
    if rng.random() < 0.12:
        only = keys(15)
        return Query(number, Placement.HOME, len(only), only_keys=only, **about)
    placement = rng.choice((Placement.HOME, Placement.HOME, Placement.ITEM, Placement.CART, Placement.CATEGORY))
    match placement:
        case Placement.ITEM:
            about["context_keys"] = keys(1)
        case Placement.CART:
            about["cart_keys"] = keys(3)
        case Placement.CATEGORY:
            about["category"] = rng.choice(CATEGORIES)
    if rng.random() < 0.15:
        about["filter"] = rng.choice(
            (ItemFilter(brands=(rng.choice(BRANDS),)), ItemFilter(price_max=20.0), ItemFilter(price_min=1000.0))
        )
    if rng.random() < 0.2:
        about["exclude_keys"] = keys(8)
    if rng.random() < 0.2:
        about["exclude_seen"] = True
    if rng.random() < 0.2:
        about["diversity"] = rng.choice(tuple(Diversity))
    if rng.random() < 0.05:
        about["explain"] = True
    return Query(number, placement, rng.choice((1, 5, 10, 10, 10, 30)), **about)


def _events(rng: random.Random, asked: tuple[Asked, ...]) -> tuple[Told, ...]:
    """Some, half of them while a slate for the same shopper is made."""
    found = []
    for number in range(rng.choice((0, 1, 3, 6))):
        while_asked = rng.choice(asked)
        subject = while_asked.query.subject
        at = while_asked.at_s + rng.uniform(0.0, 0.03)
        if subject is None or rng.random() < 0.5:
            subject, at = rng.choice([f"u:{user}" for user in SHOPPERS] + ["v:v1"]), rng.uniform(0, asked[-1].at_s)
        code = rng.choice((VIEW, CLICK, PURCHASE))
        found.append(Told(at, subject, rng.randrange(N_ITEMS), code, f"e{number}", rng.choice((1, 1, 2))))
    return tuple(found)


def _faults(rng: random.Random, lasts_s: float) -> tuple[Fault, ...]:
    """None, one sick dependency, or a bad day for several."""
    count = rng.choice((0, 1, 1, 2, 2, 3, 5))
    return tuple(_fault(rng, lasts_s) for _ in range(count))


def _fault(rng: random.Random, lasts_s: float) -> Fault:
    target = rng.choice((CF, CF, CB, RERANKER, RERANKER, USER, CACHE, EVENTS))
    kind = rng.choice((Kind.SLOW, Kind.HANG, Kind.HANG, Kind.LOSE, Kind.LOSE, Kind.LOSE, Kind.LATE, Kind.TWICE,
                       Kind.DEAF, Kind.NAMELESS))  # fmt: skip
    if target is EVENTS:
        kind = rng.choice((Kind.SLOW, Kind.TWICE))
    from_s = rng.choice((0.0, rng.uniform(0, lasts_s)))
    return Fault(
        kind,
        target,
        replica=rng.choice((None, rng.randrange(REPLICAS[target]))),
        from_s=from_s,
        until_s=rng.choice((lasts_s, from_s + rng.uniform(0, lasts_s))),
        share=rng.choice((1.0, 1.0, rng.uniform(0.02, 0.9))),
        period_s=rng.choice((0.0, 0.0, rng.uniform(0.05, 1.0))),
        factor=rng.uniform(1.5, 12.0),
        loss=rng.choice(DEPENDENCY_LOSSES),
    )

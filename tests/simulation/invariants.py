"""
What must hold at every attempt, guarded call and answer, and at rest: the resilience specification's I1 to I10.

Each function yields what is broken, in words that begin with the invariant's number. The truth they compare with is
kept apart from what they judge: what the twins answered, what the guard returned and what the plan did, never what the
slate says of itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from orchestrator.core.breaker import State
from orchestrator.core.deadline import MIN_USEFUL_S, Deadline
from orchestrator.core.dependency import Attempt, Dependency, Kind
from orchestrator.core.hedge import HEDGE_SHARE
from orchestrator.core.model import Kept, Level, Loss, Lost, Rung, Slate
from orchestrator.core.retry import RESERVE_PER_S, RETRY_RATIO, TOKEN_LIFE_S
from orchestrator.core.selection import POPULAR
from orchestrator.pipeline import BACKSTOP_S
from orchestrator.settings import Settings, Stage
from tests.simulation.plan import Asked
from tests.support.worlds import CACHE, CB, CF, RERANKER, USER

EPSILON_S = 1e-4
"""Virtual timers are exact to a microsecond; a chain of them is a few late."""

NOT_ASKED = {Loss.BREAKER_OPEN, Loss.SHED, Loss.NO_BUDGET}
STAGE_NAME = {RERANKER: "rerank", USER: "user", CACHE: "cache"}
"""Dependency → its name in a slate; a source goes by its own."""


@dataclass(slots=True)
class Call:
    """One guarded call as it really went. *answers*, *raised*: (moment, what) of its attempts, whoever heard of it."""

    dependency: str
    stage: Stage
    deadline: Deadline
    share: float
    began_at: float
    ended_at: float = 0.0
    outcome: Kept | Lost | None = None
    attempts: list[Attempt] = field(default_factory=list)
    made: list[Attempt] = field(default_factory=list)
    answers: list[tuple[float, object]] = field(default_factory=list)
    raised: list[tuple[float, Loss]] = field(default_factory=list)

    @property
    def ends_by(self) -> float:
        """What the stage's cap and the reserve of later stages allow (specification §1.1)."""
        usable_s = max(0.0, self.deadline.at - self.began_at)
        reserve_s = self.stage.reserve_after_ms / 1000 * self.deadline.share
        return self.began_at + min(self.stage.cap_ms / 1000 * self.share, usable_s - reserve_s)


@dataclass(slots=True)
class Record:
    """
    One request and everything that is true of it.

    due         watermark that its slate must have at least: of events acknowledged and of slates shown before it began
    seen        items of events acknowledged before it began
    sold_out    keys that were sold out all the time it took; *scarce*: at some moment of it
    allowed     keys that the query's own filters allow
    """

    asked: Asked
    began_at: float
    due: int
    seen: frozenset[int]
    ended_at: float = 0.0
    is_open: bool = True
    slate: Slate | None = None
    calls: dict[str, Call] = field(default_factory=dict)
    sold_out: frozenset[int] = frozenset()
    scarce: frozenset[int] = frozenset()
    allowed: np.ndarray | None = None


@dataclass(slots=True)
class Load:
    """Attempts really made to one dependency: moments of first ones, and of extra ones by kind."""

    firsts: list[float] = field(default_factory=list)
    extras: list[tuple[float, Kind]] = field(default_factory=list)
    before: int = 0


def of_attempt(known: Dependency, alive: list[Attempt], attempt: Attempt, call: Call, now: float) -> Iterator[str]:
    """At the moment *attempt* was allowed; *alive*: it and all others that have not ended."""
    if attempt.timeout_s < MIN_USEFUL_S - 1e-9:
        yield f"I9 {known.name}: a {attempt.kind.value} call starts with {attempt.timeout_s * 1000:.3f} ms"
    end = now + attempt.timeout_s + call.stage.grace_ms / 1000
    if end > call.ends_by + EPSILON_S:
        yield f"I9 {known.name}: a call may run {(end - call.ends_by) * 1000:.3f} ms into what later stages need"
    if known.limiter.in_flight != len(alive):
        yield f"I2 {known.name}: {known.limiter.in_flight} slots are held for {len(alive)} attempts"
    yield from of_probes(known, alive, now)


def of_probes(known: Dependency, alive: list[Attempt], now: float) -> Iterator[str]:
    """While the breaker probes."""
    breaker = known.breaker
    if breaker.state_at(now) is not State.HALF_OPEN:
        return
    # Every permit of this generation is a probe, whatever it says of itself.
    probes = [one._permit for one in alive if one._permit.generation == breaker.generation]
    if len(probes) > 2:
        yield f"I6 {known.name}: {len(probes)} probes in flight"
    held = sum(permit.expires_at > now for permit in probes)
    if not held <= breaker.n_in_flight <= len(probes):
        yield f"I2 {known.name}: the breaker counts {breaker.n_in_flight} probes in flight, {len(probes)} are"


def of_load(name: str, load: Load) -> Iterator[str]:
    """At an extra attempt: it was paid for, in every stretch of time that ends with it."""
    now, _ = load.extras[-1]
    young = sum(at > now - TOKEN_LIFE_S for at in load.firsts) + load.before
    retries = 0
    for number, (since, kind) in enumerate(reversed(load.extras), start=1):
        retries += kind is Kind.RETRY
        # The reserve pays for retries alone; one of it may have been in the bank.
        reserve = min(retries, RESERVE_PER_S * (now - since) + 1)
        if number > RETRY_RATIO * young + reserve + 1e-6:
            yield f"I5 {name}: {number} extra attempts in {now - since:.3f} s for {young} first ones"
            return
    hedges = sum(kind is Kind.HEDGE for _, kind in load.extras)
    if hedges > HEDGE_SHARE * (len(load.firsts) + load.before) + 1e-6:
        yield f"I5 {name}: {hedges} hedges for {len(load.firsts) + load.before} first attempts"


def of_call(call: Call, replicas: int, stalled_until: float) -> Iterator[str]:
    """When the guard has returned, or the caller hung up (outcome None)."""
    name = call.dependency
    if call.ended_at > max(call.ends_by, call.began_at, stalled_until) + EPSILON_S:
        yield f"I1 {name}: the call ended {(call.ended_at - call.ends_by) * 1000:.3f} ms after its slice"
    alive = [attempt for attempt in call.attempts if not attempt._is_over]
    if alive:
        yield f"I2 {name}: the call is over and {len(alive)} of its attempts are not"
    kinds = [attempt.kind for attempt in call.made]
    if len(set(kinds)) < len(kinds):
        yield f"I5 {name}: one call made {[kind.value for kind in kinds]}"
    if Kind.RETRY in kinds and (not call.raised or call.raised[0][1] is not Loss.UNAVAILABLE):
        yield f"I5 {name}: tried again after {[loss.value for _, loss in call.raised]}"
    if replicas > 1 and len({attempt.replica for attempt in call.made[:2]}) < len(kinds[:2]):
        yield f"I5 {name}: both attempts went to replica {call.made[0].replica}"
    yield from _of_outcome(call, stalled_until)


def _of_outcome(call: Call, stalled_until: float) -> Iterator[str]:
    name = call.dependency
    match call.outcome:
        case Kept(value=value):
            if not any(value is answer for _, answer in call.answers):
                yield f"I8 {name}: kept what nobody answered"
        case Lost(loss=loss):
            if (loss in NOT_ASKED) != (not call.made):
                yield f"I8 {name}: {loss.value} after {len(call.made)} attempts"
            ends = {raised for _, raised in call.raised}
            if any(one.began_at + one.timeout_s <= call.ended_at + EPSILON_S for one in call.made):
                ends.add(Loss.DEADLINE)
            if loss not in NOT_ASKED | ends:
                yield f"I8 {name}: {loss.value}, but no attempt ended so"
            in_time = [at for at, _ in call.answers if at < call.ends_by - EPSILON_S]
            if in_time and stalled_until <= call.began_at:
                early_ms = (call.ends_by - in_time[0]) * 1000
                yield f"I8 {name}: {loss.value} although an answer came {early_ms:.3f} ms early"


def of_request(record: Record, settings: Settings, stalled_until: float) -> Iterator[str]:
    """When the caller has its slate, or has hung up."""
    asked, total_s = record.asked, settings.budget.total_ms / 1000
    left_s = max(0.0, min(total_s, total_s if asked.budget_s is None else asked.budget_s) - asked.queued_s)
    by = record.began_at + left_s * (1 - settings.budget.reply_ms / settings.budget.total_ms)
    is_stalled = stalled_until > record.began_at
    if record.ended_at > max(by if not is_stalled else by + BACKSTOP_S, stalled_until) + EPSILON_S:
        yield f"I1 {asked.query.recommendation_id}: answered {(record.ended_at - by) * 1000:.3f} ms late"
    slate = record.slate
    if slate is None:
        return
    yield from _of_items(record, slate)
    # The last timer ended it; what was lost until then is not all that the slate must name.
    if not (is_stalled and record.ended_at >= by + BACKSTOP_S - EPSILON_S):
        yield from _of_losses(record, slate, settings)


def _of_items(record: Record, slate: Slate) -> Iterator[str]:
    query, keys = record.asked.query, [item.key for item in slate.items]
    name, shown = query.recommendation_id, set(keys)
    if len(shown) < len(keys):
        yield f"I7 {name}: an item twice in {keys}"
    banned = set(query.exclude_keys)
    if query.only_keys:
        if shown != set(query.only_keys) - banned:
            yield f"I7 {name}: ranked {sorted(query.only_keys)}, got {keys}"
        return
    banned |= set(query.focus_keys) | set(query.cart_keys)
    user = record.calls.get(USER)
    knows_shopper = slate.from_cache or (user is not None and isinstance(user.outcome, Kept))
    if query.exclude_seen and knows_shopper:
        banned |= record.seen
    banned |= record.sold_out
    if record.allowed is not None:
        banned |= set(np.flatnonzero(~record.allowed).tolist())
    if shown & banned:
        yield f"I7 {name}: {sorted(shown & banned)} may not be shown"
    n_items = len(record.allowed) if record.allowed is not None else 40
    surely = set(range(n_items)) - banned - record.scarce - (record.seen if query.exclude_seen else set())
    if not min(query.count, len(surely)) <= len(keys) <= query.count:
        yield f"I7 {name}: {len(keys)} items of {query.count}, {len(surely)} could have been shown"
    if query.subject is not None and knows_shopper and slate.watermark < record.due:
        yield f"W {name}: watermark {slate.watermark} after {record.due} was acknowledged or shown"


def _of_losses(record: Record, slate: Slate, settings: Settings) -> Iterator[str]:
    query, name = record.asked.query, record.asked.query.recommendation_id
    lost = {
        STAGE_NAME.get(dependency, dependency): call.outcome.loss
        for dependency, call in record.calls.items()
        if isinstance(call.outcome, Lost)
    }
    sources = [source.name for source in settings.sources]
    is_cheap = record.asked.floor >= Rung.STALE and not slate.from_cache
    if is_cheap:
        lost |= dict.fromkeys(sources, Loss.SHED)
        if query.subject is not None:
            lost["user"] = Loss.SHED
    missing = [] if is_cheap or slate.from_cache else [source for source in sources if source not in record.calls]
    if missing:
        yield f"I8 {name}: {missing} were never asked"
    if dict(slate.losses) != lost or sorted(slate.degraded) != sorted(lost):
        said = {stage: loss.value for stage, loss in slate.losses}
        yield f"I8 {name}: says it lost {said} ({slate.degraded}), lost { {k: v.value for k, v in lost.items()} }"
    if slate.level is Level.FULL and set(lost) - {"cache"}:
        yield f"I8 {name}: calls itself full without {sorted(lost)}"
    if slate.from_cache:
        return
    statuses = {source: lost[source].status if source in lost else "ok" for source in sources}
    said_statuses = {source.name: source.status for source in slate.sources}
    if said_statuses != statuses:
        yield f"I8 {name}: sources are said to be {said_statuses}, were {statuses}"
    kept = {source for source in (CF, CB) if source not in lost} | {POPULAR}
    if strangers := {source for item in slate.items for source in item.sources} - kept:
        yield f"I8 {name}: items found by {sorted(strangers)}, which were lost"


def at_rest(known: Dependency, alive: list[Attempt], now: float) -> Iterator[str]:
    """When nobody has asked for a while."""
    if known.limiter.in_flight:
        yield f"I3 {known.name}: {known.limiter.in_flight} slots are held and nobody asks"
    if alive:
        yield f"I3 {known.name}: {len(alive)} attempts have not ended and nobody asks"
    leaked = sum(probe.expires_at > now for probe in known.breaker._probes)
    if leaked or known.breaker.n_in_flight:
        yield f"I3 {known.name}: {known.breaker.n_in_flight} probes are out and nobody asks"

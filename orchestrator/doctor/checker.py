"""
The history checker: what clients saw, and when what was broken → whether the promise held. Pure.

Everything is judged from outside: availability, latency from the scheduled moment, honest `degraded`, the time until
nobody waits for the fault any more, the time until answers are clean again, and the invariants of the resilience
specification §1.10 that an answer can show: I1 (in time), I7 (never an empty 200), I8 (`degraded` names what failed).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.doctor.calls import Calls
from orchestrator.doctor.history import Seen, between
from orchestrator.doctor.mix import CACHE, RERANK, uses

PROMISE_S = 0.1
"""p99 during any one fault, p99.9 over all of them: the project's objectives."""

EXACT_SHARE = 0.999
HEAL_WITHIN_S = 5.0
DETECT_WITHIN_S = 0.5
"""Pass line of the resilience specification §5."""

FORGIVEN = 1
"""Answers of a phase, however short, that may name something else. Derived: a phase has some hundred answers, and a
thousandth of those is none; a busy machine loses a stage now and then without any fault (0 or 1 of 130 measured)."""

CALLS_TO_DETECT = 20
"""A breaker judges no fewer calls (§1.2, min calls): at a low rate these take longer than `DETECT_WITHIN_S`."""

RUN = 2
"""A process no longer waits for a fault when so many of its answers in a row named it and did not wait: one may be
chance,
a probe that waits comes after half a second."""

STALE = "stale"
"""The level of a remembered slate that is being made anew behind the answer."""

CACHE_CALLS = "slate_cache"
"""The cache's name among the orchestrator's dependencies."""

MOST_EXTRA_LOAD = 1.1
"""A fault may not make dependencies be called more often than this (resilience specification §5). Retries and hedges
are counted as such: a tenth of the first attempts, and the retries a second that a quiet dependency gets (§1.4). First
attempts are counted for each slate that was made, which answers only let us guess: there the noise of few comes on
top, three standard deviations of a ratio of two counts, since the largest of half a dozen dependencies is taken, row
after row."""

NOISE_DEVIATIONS = 3.0

RESERVE_PER_S = 1.0
"""Retries a second of each orchestrator to each dependency beyond the tenth, with one in hand (specification §1.4)."""

FIRST_OF_A_PROCESS = 100
"""Resilience specification §5, row 14."""

LEAST_ANSWERS = 20
"""Fewer answers in a phase, on average of the fault and what came after it, prove nothing."""


@dataclass(frozen=True, slots=True)
class Phases:
    """Monotonic moments of one drill. Injecting and healing take time; answers meanwhile are not judged exactly."""

    begins_at: float
    inject_from: float
    injected_at: float
    heal_from: float
    healed_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class Expect:
    """
    What answers during a fault may look like. Names are those of `degraded`.

    Args:
        lost: missing from every computed answer whose kind needs them.
        may_lose: may be missing too: one of two replicas, a stage behind a lost one.
        may_shed: 503 with Retry-After is an answer here (overload only).
        detect_within_s: None where there is nothing to detect, or detecting is not asked for.
        must_show: at least one answer must name one of these, else the injection did nothing.
        least_clean_share: of the answers during the fault, from *clean_after_s* on, that lose nothing at all.
        never_open: no answer may say that a breaker is open (the mistake is ours, the service is well).
        p99_s, heal_within_s: as named.
    """

    lost: frozenset[str] = frozenset()
    may_lose: frozenset[str] = frozenset()
    may_shed: bool = False
    detect_within_s: float | None = None
    must_show: frozenset[str] = frozenset()
    least_clean_share: float = 0.0
    clean_after_s: float = 0.0
    never_open: bool = False
    p99_s: float = PROMISE_S
    heal_within_s: float = HEAL_WITHIN_S


@dataclass(frozen=True, slots=True)
class Figures:
    """One phase in numbers; latencies in milliseconds, NaN without answers; *levels* and *degraded* as counts."""

    n: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    n_shed: int
    n_failed: int
    n_late: int
    n_starved: int
    n_cached: int
    levels: Mapping[str, int] = field(default_factory=dict)
    degraded: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that had to hold: what was found, in words."""

    name: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    One drill, judged. *detect_s* is None when nothing named the fault, or everyone waited for it to the end;
    *extra_load* is calls for each first attempt at the dependency that was asked most again; None if unknown.
    """

    before: Figures
    during: Figures
    after: Figures
    detect_s: float | None
    heal_s: float | None
    claims: tuple[Claim, ...]
    extra_load: float | None = None

    @property
    def holds(self) -> bool:
        return all(claim.holds for claim in self.claims)


def judge(
    seen: Sequence[Seen],
    phases: Phases,
    expect: Expect,
    sources: Sequence[str],
    sent: Sequence[Mapping[str, Calls]] = (),
    processes: int = 1,
) -> Verdict:
    """
    Judge one drill.

    Args:
        seen: the whole history, by schedule.
        sources: names of the candidate sources, which `degraded` uses.
        sent: calls made to each dependency so far, at `begins_at`, `inject_from` and `heal_from`; empty: not measured.
        processes: orchestrators; each has retries in reserve.
    """
    before = list(between(seen, phases.begins_at, phases.inject_from))
    during = list(between(seen, phases.inject_from, phases.heal_from))
    after = list(between(seen, phases.healed_at, phases.ends_at))
    exact = [one for one in during if one.scheduled_at >= phases.injected_at and one.done_at <= phases.heal_from]
    detect_s, heal_s = time_to_detect(before, during, phases, expect), time_to_heal(before, after, phases)
    figures = figures_of(during)
    claims = [
        _healthy(before),
        Claim(
            "enough answers", len(during) + len(after) >= 2 * LEAST_ANSWERS, f"{len(during)} during, {len(after)} after"
        ),
        _answered([*before, *during, *after], expect),
        _invariants(seen),
        _in_time(figures, expect),
        _named(exact, expect, sources),
        _healed(heal_s, expect),
        *_newcomers(before, [*during, *after], expect),
    ]
    if expect.must_show:
        n = sum(bool(expect.must_show & set(one.degraded)) for one in during)
        claims.append(Claim(f"shows {'/'.join(sorted(expect.must_show))}", n > 0, f"in {n} answers"))
    if expect.least_clean_share:
        claims.append(_clean([o for o in exact if o.scheduled_at >= phases.injected_at + expect.clean_after_s], expect))
    if expect.never_open:
        n = sum(any(status == "open" for _, status in one.lost) for one in during)
        claims.append(Claim("breaker stays closed", n == 0, f"open in {n} answers"))
    if expect.detect_within_s is not None:
        claims.append(_detected(before, during, phases, expect))
    claims += _load(sent, phases, processes)
    # Per slate that was made: one that lost something is not remembered, and stale ones are renewed behind answers, so
    # more are made in one phase than in another. That is no storm; what must not grow is the calls each one makes.
    n_before, n_during = _computed(before), _computed(during)
    grown = growth(sent, n_before, n_during)
    # Without slates from memory everything is computed: more calls are then the point, and no retries.
    if grown is not None and CACHE not in expect.lost | expect.may_lose:
        limit = MOST_EXTRA_LOAD + NOISE_DEVIATIONS * math.sqrt(1 / max(1, n_before) + 1 / max(1, n_during))
        claims.append(Claim(f"first calls ≤ {limit:.0%}", grown <= limit, f"{grown:.0%}"))
    return Verdict(figures_of(before), figures, figures_of(after), detect_s, heal_s, tuple(claims), extra_load(sent))


def figures_of(seen: Sequence[Seen]) -> Figures:
    """The numbers of one phase. A shed request counts in no latency; one that failed counts as long as it took."""
    answered = [one for one in seen if not one.is_shed]
    ms = sorted(one.latency_s * 1000 for one in answered)
    late = [one for one in answered if one.latency_s > PROMISE_S]
    return Figures(
        n=len(seen),
        p50_ms=percentile(ms, 0.5),
        p99_ms=percentile(ms, 0.99),
        p999_ms=percentile(ms, 0.999),
        max_ms=ms[-1] if ms else math.nan,
        n_shed=len(seen) - len(answered),
        n_failed=sum(one.status != 200 for one in answered),
        n_late=len(late),
        n_starved=sum(one.latency_s - one.client_s <= PROMISE_S for one in late),
        n_cached=sum(one.from_cache for one in seen),
        levels=dict(Counter(one.level for one in seen if one.status == 200)),
        degraded=dict(Counter("+".join(one.degraded) or "–" for one in seen if one.status == 200)),
    )


def _computed(seen: Sequence[Seen]) -> int:
    """Answers behind which a slate was made: at once, before falling back on a remembered one, or to renew one."""
    return sum(not one.from_cache or bool(one.degraded) or one.level == STALE for one in seen)


def growth(sent: Sequence[Mapping[str, Calls]], n_before: int, n_during: int) -> float | None:
    """The largest growth, over dependencies, of first calls per computed answer; None if not measured, or anew."""
    if len(sent) != 3 or not n_before or not n_during:
        return None
    grown = [
        (during.first / n_during) / (before.first / n_before)
        for name, (before, during) in _made(sent).items()
        # The cache is asked by every request, computed or not.
        if name != CACHE_CALLS and before.first > 0
    ]
    return max(grown, default=None)


def extra_load(sent: Sequence[Mapping[str, Calls]]) -> float | None:
    """The most calls, over dependencies, that were made during the fault for each first one; None if not measured."""
    made = _made(sent) if len(sent) == 3 else {}
    return max((1 + during.extra / during.first for _, during in made.values() if during.first > 0), default=None)


def _made(sent: Sequence[Mapping[str, Calls]]) -> Mapping[str, tuple[Calls, Calls]]:
    """Dependency → calls before the fault and during it; without those of an orchestrator that counts anew."""
    began, injected, healed = sent
    return {
        name: (injected[name] - began[name], healed[name] - injected[name])
        for name in began.keys() & injected.keys() & healed.keys()
        if healed[name].first >= injected[name].first >= began[name].first
    }


def _load(sent: Sequence[Mapping[str, Calls]], phases: Phases, processes: int) -> list[Claim]:
    """
    Retries and hedges stay within what first attempts have paid for, each dependency by itself.

    Attempts before the fault have paid, too: their tokens live for 10 s.
    """
    if len(sent) != 3 or not _made(sent):
        return []
    reserve = processes * (RESERVE_PER_S * (phases.heal_from - phases.inject_from) + 1)
    over = [
        f"{name} {during.extra} of {during.first}"
        for name, (before, during) in sorted(_made(sent).items())
        if during.extra > (MOST_EXTRA_LOAD - 1) * (before.first + during.first) + reserve
    ]
    return [Claim(f"asked again ≤ {MOST_EXTRA_LOAD - 1:.0%}", not over, "; ".join(over) or "within")]


def percentile(ascending: Sequence[float], p: float) -> float:
    """Nearest rank: the smallest value that at least *p* of them do not exceed; NaN of nothing."""
    return ascending[max(0, math.ceil(p * len(ascending)) - 1)] if ascending else math.nan


def is_as_expected(one: Seen, expect: Expect, sources: Sequence[str]) -> bool:
    """
    Whether `degraded` is one of the sets this answer may name.

    From memory: whatever was lost needs not show. Popular: nothing personal was found, so nothing was re-ranked.
    Computed otherwise: everything lost that its kind needs, and nothing beyond what may be lost.
    """
    named, needs = frozenset(one.degraded), uses(one.kind, sources)
    allowed = (expect.lost | expect.may_lose) & needs
    if one.from_cache:
        return named <= allowed
    required = expect.lost & needs - ({RERANK} if one.level == "popular" else frozenset())
    return required <= named <= allowed


def time_to_detect(before: Sequence[Seen], during: Sequence[Seen], phases: Phases, expect: Expect) -> float | None:
    """
    Seconds from injecting until no process waits for the fault any more; see `detections`.

    0.0 when none ever waited; None when one waited to the end, or nothing named the fault.
    """
    found = [one.after_s for one in detections(before, during, phases, expect)]
    return None if not found or None in found else max(s for s in found if s is not None)


@dataclass(frozen=True, slots=True)
class Detection:
    """
    One orchestrator's: after how long, None for not; how many of its answers waited first, and until when they may:
    infinity where it has not made the calls that a breaker needs.
    """

    after_s: float | None
    waited: int
    limit_s: float

    @property
    def is_in_time(self) -> bool:
        return (math.inf if self.after_s is None else self.after_s) <= self.limit_s


def detections(before: Sequence[Seen], during: Sequence[Seen], phases: Phases, expect: Expect) -> Sequence[Detection]:
    """
    Each process on its own, since each has breakers of its own: when its answers that name the fault no longer wait for
    it. Either a breaker shows open, or a run of them is as fast as answers were before.

    A process that gave fewer such answers than a run says nothing.
    """
    named: dict[str, list[Seen]] = {}
    for one in during:
        if frozenset(one.degraded) & (expect.lost | expect.may_lose):
            named.setdefault(one.process, []).append(one)
    usual = {
        kind: percentile(sorted(o.latency_s for o in before if o.kind == kind), 0.5)
        for kind in {o.kind for o in before}
    }
    return [_detection(own, usual, phases, expect) for own in named.values() if len(own) >= RUN]


def _detection(own: Sequence[Seen], usual: Mapping[str, float], phases: Phases, expect: Expect) -> Detection:
    waits = [one.latency_s > 1.5 * usual.get(one.kind, math.inf) + 0.005 for one in own]
    is_open = [any(status == "open" for _, status in one.lost) for one in own]
    first = next((n for n in range(len(own)) if is_open[n] or not any(waits[n : n + RUN])), None)
    # The breaker judges no fewer calls than these; whoever asks while the last of them is under way waits, too.
    judged_s = own[CALLS_TO_DETECT - 1].done_at - phases.inject_from if len(own) >= CALLS_TO_DETECT else math.inf
    limit_s = max(expect.detect_within_s or 0.0, judged_s)
    if first is None:
        return Detection(None, sum(waits), limit_s)
    n_waited = sum(waits[:first])
    return Detection(own[first].scheduled_at - phases.inject_from if n_waited else 0.0, n_waited, limit_s)


def time_to_heal(before: Sequence[Seen], after: Sequence[Seen], phases: Phases) -> float | None:
    """
    Seconds from the end of healing until answers are as clean as they were before the fault (at least 99.9 %).

    None: they never were in the time that was watched.
    """
    if not after:
        return None
    unclean = [one.scheduled_at for one in after if one.degraded or one.status != 200]
    usual = sum(bool(one.degraded) or one.status != 200 for one in before) / max(1, len(before))
    forgiven = math.floor(max(1 - EXACT_SHARE, usual) * len(after))
    if len(unclean) <= forgiven:
        return 0.0
    last = unclean[len(unclean) - forgiven - 1]
    return None if last > phases.ends_at - WATCH_S else max(0.0, last - phases.healed_at)


WATCH_S = 0.5
"""Clean answers must be watched at least this long to be called clean."""


def _healthy(before: Sequence[Seen]) -> Claim:
    unclean = sum(bool(one.degraded) or one.status != 200 for one in before)
    share = unclean / len(before) if before else 1.0
    # Judged: a busy machine loses a stage now and then, and where one drill follows the other the slow start of a
    # breaker that closed (10 s) still sheds a call; two answers in a hundred are not yet a sick system.
    return Claim("healthy before", share <= 0.02 + 1 / max(1, len(before)), f"{unclean} of {len(before)} degraded")


def _answered(seen: Iterable[Seen], expect: Expect) -> Claim:
    failed = [one for one in seen if one.status != 200 and not (expect.may_shed and one.is_shed)]
    why = Counter(one.error or str(one.status) for one in failed)
    return Claim("every answer 200", not failed, ", ".join(f"{n}× {what}" for what, n in why.items()) or "all")


def _in_time(figures: Figures, expect: Expect) -> Claim:
    limit_ms = expect.p99_s * 1000
    # Where everything was shed, which is then allowed, there is no answer to be late.
    holds = math.isnan(figures.p99_ms) or figures.p99_ms <= limit_ms
    return Claim(f"p99 ≤ {limit_ms:g} ms", holds, f"{figures.p99_ms:.1f} ms")


def _newcomers(before: Sequence[Seen], later: Sequence[Seen], expect: Expect) -> list[Claim]:
    """An orchestrator that was not there before answers its first hundred as fast as the others (§5, row 14)."""
    old, first = {one.process for one in before}, dict[str, list[Seen]]()
    for one in later:
        if one.status == 200 and one.process not in old:
            first.setdefault(one.process, []).append(one)
    limit_ms = expect.p99_s * 1000
    p99s = [figures_of(own[:FIRST_OF_A_PROCESS]).p99_ms for own in first.values() if len(own) >= LEAST_ANSWERS]
    name = f"first {FIRST_OF_A_PROCESS} of a new process p99 ≤ {limit_ms:g} ms"
    return [Claim(name, p99_ms <= limit_ms, f"{p99_ms:.1f} ms") for p99_ms in p99s]


def _invariants(seen: Iterable[Seen]) -> Claim:
    broken = Counter(words for one in seen for words in one.broken)
    return Claim("invariants", not broken, "; ".join(f"{n}× {what}" for what, n in broken.most_common(3)) or "kept")


def _named(exact: Sequence[Seen], expect: Expect, sources: Sequence[str]) -> Claim:
    answered = [one for one in exact if one.status == 200]
    other = Counter(
        f"{'+'.join(one.degraded) or 'nothing'} ({one.kind})"
        for one in answered
        if not is_as_expected(one, expect, sources)
    )
    share = 1 - sum(other.values()) / max(1, len(answered))
    shown = "; ".join(f"{n}× {what}" for what, n in other.most_common(3))
    wanted = "+".join(sorted(expect.lost)) or "nothing"
    holds = share >= EXACT_SHARE or sum(other.values()) <= FORGIVEN
    return Claim(f"degraded names {wanted}", holds, f"{share:.2%}" + (f", else {shown}" if other else ""))


def _clean(seen: Sequence[Seen], expect: Expect) -> Claim:
    share = sum(not one.degraded for one in seen) / max(1, len(seen))
    name = f"clean ≥ {expect.least_clean_share:.0%}" + (
        f" after {expect.clean_after_s:g} s" if expect.clean_after_s else ""
    )
    return Claim(name, share >= expect.least_clean_share, f"{share:.1%}")


def _healed(heal_s: float | None, expect: Expect) -> Claim:
    holds = heal_s is not None and heal_s <= expect.heal_within_s
    return Claim(f"heals within {expect.heal_within_s:g} s", holds, "not" if heal_s is None else f"{heal_s:.2f} s")


def _detected(before: Sequence[Seen], during: Sequence[Seen], phases: Phases, expect: Expect) -> Claim:
    each = detections(before, during, phases, expect)
    holds = bool(each) and all(one.is_in_time for one in each)
    found = ", ".join(
        f"{'not' if one.after_s is None else f'{one.after_s:.2f} s'} ({one.waited} waited)" for one in each
    )
    return Claim(f"detected within {expect.detect_within_s:g} s or {CALLS_TO_DETECT} calls", holds, found or "not")

"""
Admission: before a call for a slate is read, decide how it will be answered; afterwards, learn from how long it took.

Reads three headers and nothing of the body. The decision is `core.shedding`'s table over two numbers: slates being
computed as a share of an adaptive limit, and how late the event loop is. A call that is let in carries a `Ticket`,
which the handler asks for its `Plan` and the middleware gives back.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

import orjson
from starlette.responses import Response

from orchestrator.core.arrival import SkewGuard, has_run_out, queue_delay
from orchestrator.core.lag import Lag
from orchestrator.core.limiter import Limiter, LimiterPolicy, Slot
from orchestrator.core.model import Rung
from orchestrator.core.shedding import Priority, Turns, admit
from orchestrator.core.values import value
from orchestrator.edge.problems import MEDIA_TYPE, FieldError, Kind, Problem
from orchestrator.settings import Settings
from orchestrator.telemetry import Metrics

START, PRIORITY, TIMEOUT = "X-Request-Start", "X-Request-Priority", "X-Request-Timeout-Ms"
RETRY_AFTER_S = (1, 5)
"""Whole seconds, drawn for each refusal: who was refused together must not come back together (specification §1.6)."""

TEACHING_SHARE = 0.5
"""A late answer is a sign of load only if it had this share of the usual budget. Judged: a caller who gives 5 ms is
late whatever we do, and must not take the others' limit away."""

_WANTED = {name.lower().encode(): name for name in (START, PRIORITY, TIMEOUT)}
_MILLISECONDS = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,6})?\Z", re.ASCII)
_KEY = "tutti.ticket"
_SHOWN = 40


@value
class Plan:
    """
    What the pipeline is told.

    budget_s  what the caller gives, by header or body, the smaller of both; None: as usual
    queued_s  how much of it was gone before we read the request
    floor     where on the ladder the request starts
    """

    budget_s: float | None = None
    queued_s: float = 0.0
    floor: Rung = Rung.FULL


class Ticket:
    """One call that was let in, or refused: `rung` says which. Asked for its plan at most once, settled once."""

    __slots__ = (
        "_admission",
        "_at",
        "_beside",
        "_budget_s",
        "_is_typical",
        "_lag_s",
        "_priority",
        "_slot",
        "_stamp_s",
        "_timeout_s",
        "rung",
    )

    def __init__(
        self,
        admission: Admission,
        rung: Rung,
        at: float,
        lag_s: float,
        stamp_s: float | None,
        timeout_s: float | None,
        slot: Slot | None,
        priority: Priority = Priority.CRITICAL,
    ) -> None:
        """*stamp_s*: seconds waited by the proxy's clock; *timeout_s*: what the header gives."""
        self.rung = rung
        self._priority = priority
        self._beside: list[Slot] = []
        self._admission = admission
        self._at = at
        self._lag_s = lag_s
        self._stamp_s = stamp_s
        self._timeout_s = timeout_s
        self._slot = slot
        self._budget_s: float | None = None
        self._is_typical = True

    def __repr__(self) -> str:
        return f"<Ticket {self.rung.name.lower()}, {'a slot' if self._slot else 'no slot'}>"

    def plan(self, budget_ms: float | None, slates: int = 1) -> Plan:
        """How to answer, now that the body's *budget_ms* is known, too, and how many *slates* it asks for."""
        given = [
            limit for limit in (self._timeout_s, None if budget_ms is None else budget_ms / 1000) if limit is not None
        ]
        budget_s = min(given) if given else None
        usual_s = self._admission.usual_s
        total_s = usual_s if budget_s is None else min(usual_s, budget_s)
        if total_s > 0:
            queued_s, is_cut = self._admission.waited(self._stamp_s, total_s, self._lag_s)
        else:
            queued_s, is_cut = 0.0, True
        floor = Rung.POPULAR if is_cut else self.rung
        if floor is Rung.POPULAR:
            self._release()
        elif slates > 1 and self._slot is not None:
            beside = self._admission.widen(self._priority, slates - 1)
            if beside is None:
                self._release()
                floor = Rung.STALE
            else:
                self._beside = beside
        self._budget_s = total_s
        return Plan(budget_s, queued_s, floor)

    def remembered(self) -> None:
        """The slate came from the cache: how long that took says nothing about computing one."""
        self._is_typical = False

    def settle(self, status: int) -> None:
        """The answer with *status* has been written; 0 when the caller had left before."""
        slot, now = self._slot, self._admission.now()
        self._slot = None
        # One answer is one sample, however many slates are in it.
        for other in self._beside:
            other.release(now)
        if slot is None:
            return
        budget_s = self._budget_s
        # Our own time only: what a proxy's clock says of the time before must not shrink the limit.
        took_s = now - self._at
        if status != 200 or budget_s is None or not self._is_typical:
            slot.release(now)
        elif took_s <= budget_s:
            slot.sample(now, took_s)
        elif budget_s >= TEACHING_SHARE * self._admission.usual_s:
            slot.drop(now)
        else:
            slot.release(now)

    def _release(self) -> None:
        if self._slot is not None:
            self._slot.release(self._admission.now())
            self._slot = None


class Admission:
    """
    One a process: the limit, the guard against wrong clocks, the table.

    now: monotonic seconds; wall: seconds since the epoch, for proxies' stamps and nothing else.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        ours = settings.admission
        self.now = now
        self.usual_s = settings.budget.total_ms / 1000
        # Easy and hard as shares of a whole request's budget, not of one call's.
        policy = LimiterPolicy.of_cap(self.usual_s, ours.limit_max)
        self.limiter = Limiter(replace(policy, min_limit=ours.limit_min, initial=ours.limit_initial))
        self._is_on = ours.enabled
        self._table = ours.table
        self._metrics = metrics
        self._wall = wall
        self._rng = rng or random.Random()  # noqa: S311  # jitter, not a secret
        self._guard = SkewGuard()
        self._turns = Turns()

    def __repr__(self) -> str:
        return f"<Admission {'on' if self._is_on else 'off'}, {self.limiter!r}>"

    def admit(self, headers: Iterable[tuple[bytes, bytes]], lag: Lag) -> Ticket:
        """
        Decide about a call for a slate by its *headers*.

        Raises:
            Problem: a header we read has a value we cannot read (400).
        """
        found = {_WANTED[name]: value.decode("latin-1") for name, value in headers if name in _WANTED}
        priority = _priority(found.get(PRIORITY))
        timeout_s = _timeout_s(found.get(TIMEOUT))
        stamp_s = queue_delay(found.get(START), self._wall(), self.usual_s)
        now, slot, rung = self.now(), None, Rung.FULL
        if self._is_on:
            limiter = self.limiter
            slot = limiter.try_acquire(now)
            # No slot: with this one, more would be in flight than the limit, whatever the share of it.
            share = limiter.in_flight / limiter.limit if slot is not None else float("inf")
            rung = admit(self._table, priority, share, self._turns.late_s(lag))
            if slot is not None and rung is not Rung.FULL:
                # The cheap path takes no place: it is over before it could be counted.
                slot.release(now)
                slot = None
        if rung is Rung.SHED:
            self._metrics.shed.labels(priority.value).inc()
        else:
            self._metrics.admitted.labels(priority.value, rung.name.lower()).inc()
        return Ticket(self, rung, now, lag.smoothed_s, stamp_s, timeout_s, slot, priority)

    def widen(self, priority: Priority, more: int) -> list[Slot] | None:
        """
        Places for *more* slates of a page that has one: it counts as that many calls, which is known when it is read.

        None: with them more would be in flight than *priority* may have; it is then answered like a call without a
        place. A page that has nobody beside it is never too wide: it counts as the whole limit.
        """
        limiter, now = self.limiter, self.now()
        is_alone = limiter.in_flight <= 1
        more = min(more, limiter.limit - 1)
        places = [place for _ in range(more) if (place := limiter.try_acquire(now)) is not None]
        share = limiter.in_flight / limiter.limit
        if len(places) == more and (is_alone or admit(self._table, priority, share, 0.0) is Rung.FULL):
            return places
        for place in places:
            place.release(now)
        return None

    def is_overwhelmed(self, lag: Lag) -> bool:
        """Whether not even the cheap path of a critical call would be in time; events are refused then, too."""
        return self._is_on and admit(self._table, Priority.CRITICAL, 0.0, lag.smoothed_s) is Rung.SHED

    def waited(self, stamp_s: float | None, budget_s: float, lag_s: float) -> tuple[float, bool]:
        """Seconds of *budget_s* that are gone, and whether the request is cut for having waited too long."""
        if stamp_s is None:
            return lag_s, False
        looks_expired = has_run_out(budget_s, stamp_s)
        is_cut = self._guard.may_cut(self.now(), looks_expired=looks_expired)
        if looks_expired:
            self._metrics.arrivals_expired.labels("believed" if is_cut else "doubted").inc()
        # Too many say so to be right: then it is the clock, and the stamp is worth nothing.
        return (lag_s, False) if looks_expired and not is_cut else (stamp_s, is_cut)

    def refusal(self, request_id: str, *, keeps_connection: bool) -> Response:
        """503, from bytes made once; *request_id* holds nothing JSON would have to escape (`middleware`)."""
        headers = {"retry-after": str(self._rng.randint(*RETRY_AFTER_S)), "cache-control": "no-store"}
        if not keeps_connection:
            headers["connection"] = "close"
        return Response(_BUSY + request_id.encode() + b'"}', Kind.OVERLOADED.status, headers, MEDIA_TYPE)


_BUSY = orjson.dumps(
    {
        "type": f"/docs#{Kind.OVERLOADED.slug}",
        "title": Kind.OVERLOADED.title,
        "status": Kind.OVERLOADED.status,
        "detail": "more is asked than can be answered in time; Retry-After says in how many seconds to ask again",
        "request_id": "",
    }
).removesuffix(b'"}')


def keep(scope: MutableMapping[str, Any], ticket: Ticket) -> None:
    """Let the handler of *scope*'s request find *ticket*."""
    scope[_KEY] = ticket


def ticket_of(scope: Mapping[str, Any]) -> Ticket | None:
    """The ticket of *scope*'s request; None where no middleware admitted it (a handler tested alone)."""
    found = scope.get(_KEY)
    return found if isinstance(found, Ticket) else None


def _priority(value: str | None) -> Priority:
    if value is None:
        return Priority.CRITICAL
    try:
        return Priority(value.strip())
    except ValueError:
        raise _bad(PRIORITY, "should be critical, best_effort or bulk", value) from None


def _timeout_s(value: str | None) -> float | None:
    if value is None:
        return None
    if _MILLISECONDS.match(value.strip()) is None:
        raise _bad(TIMEOUT, "should be a number of milliseconds", value)
    return float(value) / 1000


def _bad(name: str, expected: str, value: str) -> Problem:
    message = f"{expected}; found {value[:_SHOWN]!r}"
    return Problem(Kind.BAD_REQUEST, f"{name}: {message}", [FieldError(name, message)])

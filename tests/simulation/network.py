"""
The way to a twin: every call travels there and back, and meets the faults of the plan on its way.

The far side works whether or not anybody still waits: a late `put` takes effect, an append that arrives twice is
taken in twice. The near side waits for the answer, and gives up when it is cancelled, unless it is deaf.
"""

import asyncio
import random

from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from tests.simulation.plan import Fault, Kind, Plan
from tests.support.worlds import CB, CF, RERANKER

TIMES_ITSELF = {CF, CB, RERANKER}
"""gRPC's, whose calls end themselves some milliseconds after their time; nothing else does."""

OVERSHOOT_S = 0.0025
"""Mean of how late gRPC's timer is (resilience specification §0, fact 5: 2.5 to 3 ms in the median)."""

GIVES_UP_S = 1.0
"""A call without a timeout ends here with nobody-there, as the Redis connection does that finds itself hung."""

NAMELESS = "nobody has a name for this"


class Wire:
    """The way to all replicas of *name*."""

    def __init__(self, name: str, plan: Plan, rng: random.Random) -> None:
        self.name = name
        self.nameless = 0
        self.deaf = 0
        self._rng = rng
        self._median_s, self._spread = plan.latencies[name]
        self._faults = tuple(fault for fault in plan.faults if fault.target == name)

    def usual_s(self) -> float:
        """A healthy latency."""
        return self._median_s * self._rng.lognormvariate(0.0, self._spread)

    def met(self, replica: int) -> dict[Kind, Fault]:
        """The faults that a call sent now meets."""
        at = asyncio.get_running_loop().time()
        return {
            fault.kind: fault
            for fault in self._faults
            if fault.is_on(replica, at) and (fault.share == 1.0 or self._rng.random() < fault.share)
        }

    async def carry(self, work, timeout_s: float | None, replica: int = 0):
        """
        What *work* (a coroutine of a twin, which never waits) answers, if the way there and back is open.

        Raises:
            DependencyError: as the plan says, or because the call timed itself out.
        """
        loop = asyncio.get_running_loop()
        met = self.met(replica)
        takes_s = self.usual_s()
        if (slow := met.get(Kind.SLOW)) is not None:
            takes_s *= slow.factor
        if Kind.LATE in met:
            takes_s = (timeout_s or 0.05) + self._rng.uniform(0.0, 0.08)
        reply: asyncio.Future = loop.create_future()

        def end(error: Exception) -> None:
            if not reply.done():
                reply.set_exception(error)

        def arrive() -> None:
            answer, error = _done(work())
            loop.call_later(takes_s / 2, come_back, answer, error)

        def come_back(answer, error) -> None:
            if reply.done():
                return
            if error is None:
                reply.set_result(answer)
            else:
                reply.set_exception(error)

        if (lose := met.get(Kind.LOSE)) is not None:
            # Mostly at once; one in four as late as an answer would have been.
            after_s = takes_s if self._rng.random() < 0.25 else self._rng.uniform(0.0, 0.002)
            loop.call_later(after_s, end, DependencyError(lose.loss, "as planned"))
        elif Kind.NAMELESS in met:
            self.nameless += 1
            loop.call_later(takes_s, end, RuntimeError(NAMELESS))
        elif Kind.HANG not in met:
            loop.call_later(takes_s / 2, arrive)
            if Kind.TWICE in met:
                loop.call_later(takes_s / 2 + self._rng.uniform(0.0, 0.2), arrive)
        if timeout_s is None or Kind.DEAF in met:
            loop.call_later(GIVES_UP_S, end, DependencyError(Loss.UNAVAILABLE, "given up"))
        elif self.name in TIMES_ITSELF:
            late_s = self._rng.expovariate(1 / OVERSHOOT_S)
            loop.call_later(timeout_s + late_s, end, DependencyError(Loss.DEADLINE, "timed itself out"))
        return await (self._deaf(reply) if Kind.DEAF in met else reply)

    async def _deaf(self, reply: asyncio.Future):
        """The answer, however often somebody says it is not wanted any more."""
        self.deaf += 1
        try:
            while not reply.done():
                try:
                    await asyncio.shield(reply)
                except asyncio.CancelledError:
                    pass
                except Exception:
                    break
            return reply.result()
        finally:
            self.deaf -= 1


def _done(work) -> tuple[object, Exception | None]:
    """What a coroutine that never waits returns or raises."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value, None
    except DependencyError as error:
        return None, error
    raise AssertionError("a twin waits for nothing; the way to it does")


class FarSource:
    """A candidate source at the end of a wire."""

    def __init__(self, twin, wire: Wire) -> None:
        self.name, self._twin, self._wire = twin.name, twin, wire

    async def retrieve(self, query, user, ask, timeout_s, replica=0):
        return await self._wire.carry(
            lambda: self._twin.retrieve(query, user, ask, timeout_s, replica), timeout_s, replica
        )


class FarReranker:
    """A re-ranker at the end of a wire."""

    def __init__(self, twin, wire: Wire) -> None:
        self._twin, self._wire = twin, wire

    async def rerank(self, query, user, candidates, timeout_s, replica=0):
        return await self._wire.carry(
            lambda: self._twin.rerank(query, user, candidates, timeout_s, replica), timeout_s, replica
        )


class FarReader:
    """A store of shoppers at the end of a wire."""

    def __init__(self, twin, wire: Wire) -> None:
        self.n_numeric, self.n_categorical = twin.n_numeric, twin.n_categorical
        self._twin, self._wire = twin, wire

    async def read(self, query, timeout_s):
        return await self._wire.carry(lambda: self._twin.read(query, timeout_s), timeout_s)


class FarSlates:
    """A slate cache at the end of a wire."""

    def __init__(self, twin, wire: Wire) -> None:
        self._twin, self._wire = twin, wire

    async def get(self, subject, field, timeout_s):
        return await self._wire.carry(lambda: self._twin.get(subject, field, timeout_s), timeout_s)

    async def put(self, subject, field, entry):
        await self._wire.carry(lambda: self._twin.put(subject, field, entry), None)


class FarEvents:
    """An event log at the end of a wire."""

    def __init__(self, twin, wire: Wire) -> None:
        self._twin, self._wire = twin, wire

    async def append(self, events):
        return await self._wire.carry(lambda: self._twin.append(events), None)

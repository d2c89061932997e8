"""
The slate log as a Redis stream, written behind the answers by one task.

The rule: no shopper waits for it. A request leaves what it holds in a queue; what finds the queue full, or Redis away,
is lost and counted, for a sample of a sample is a sample still. What gathers meanwhile is written together: a write, a
reply and a timer for each slate cost as much as the slate.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import numpy as np

from orchestrator.adapters.ending import ended
from orchestrator.adapters.redis_pipeline import RedisPipeline, command
from orchestrator.adapters.slate_messages import made_message, may_be_shown, served_message
from orchestrator.core.model import Asked, Float32, Int32, Query, Slate
from orchestrator.core.sampling import is_sampled
from orchestrator.telemetry import Metrics, log
from protos.feast_layout import ReadPlan
from protos.slate_log import MADE, SERVED, STREAM, STREAM_MAX_LENGTH

MAX_WAITING = 500
"""Slates in the queue. Derived: two seconds of a share of 0.1 at 1,400 requests a second (measured with 64 in flight),
which hold 10 to 20 kB each."""

GATHER_S = 0.05
"""Judged: nobody waits, and at a share of 0.1 of 2,500 requests a second (measured) twelve slates come together."""

MAX_TOGETHER = 64
"""Slates in one write: under a megabyte."""

WRITE_WITHIN_S = 0.5
"""Judged: nobody waits, and a Redis that takes longer is better left alone."""

CLOSE_WITHIN_S = 1.0
"""Judged: what is in the queue at the end takes some milliseconds where Redis answers."""

EFFECT = "slate_log"


Encode = Callable[[], Awaitable[bytes]]
"""Makes the command that adds one slate."""


class RedisSlateLog:
    """
    The SlateLog on Redis. One a process.

    Args:
        plan: whose item columns are read for what may be shown; None where nothing is known of features.
        id_of: the shop's id of an item key.
        share: of computations, in [0, 1], that are written with all answers made of them.
        explored_share: of exploration.
        wall, shop_now: seconds since the epoch; the shop's clock is what features expire by.
    """

    def __init__(
        self,
        pipeline: RedisPipeline,
        plan: ReadPlan | None,
        id_of: Callable[[int], str],
        *,
        share: float,
        explored_share: float,
        wall: Callable[[], float],
        shop_now: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._pipeline, self._plan, self._id_of = pipeline, plan, id_of
        self._share, self._explored_share = share, explored_share
        self._wall, self._shop_now, self._metrics = wall, shop_now, metrics
        self._waiting: asyncio.Queue[Encode] = asyncio.Queue(MAX_WAITING)
        self._writer: asyncio.Task[None] | None = None
        self._is_losing = False

    def start(self) -> None:
        """From now on slates are written; those of before, a warm-up's, are nobody's."""
        self._writer = asyncio.create_task(self._keep_writing(), name="slate_log")

    async def close(self) -> None:
        """Write what waits, if that takes no time to speak of, and end."""
        if self._writer is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._waiting.join()
        self._count(self._waiting.qsize())
        writer, self._writer = self._writer, None
        await ended(writer)

    async def drain(self) -> None:
        """Wait until all that was noted is written or lost."""
        await self._waiting.join()

    def served(self, query: Query, slate: Slate) -> None:
        """See the port."""
        if is_sampled(slate.made_as or query.recommendation_id, self._share):
            self._later(partial(self._served, query, slate, self._wall()))

    def made(self, query: Query, asked: Asked, slate: Slate) -> None:
        """See the port."""
        if is_sampled(slate.made_as, self._share):
            self._later(partial(self._made, query, asked, slate, self._wall()))

    def _later(self, encode: Encode) -> None:
        if self._writer is None:
            return
        try:
            self._waiting.put_nowait(encode)
        except asyncio.QueueFull:
            self._lost("too much waits")

    async def _keep_writing(self) -> None:
        while True:
            together = [await self._waiting.get()]
            if self._waiting.qsize() < MAX_TOGETHER:
                await asyncio.sleep(GATHER_S)
            while len(together) < MAX_TOGETHER and not self._waiting.empty():
                together.append(self._waiting.get_nowait())
            try:
                await self._write(together)
            finally:
                for _ in together:
                    self._waiting.task_done()

    async def _write(self, together: Sequence[Encode]) -> None:
        adds: list[bytes] = []
        for encode in together:
            try:
                async with asyncio.timeout(WRITE_WITHIN_S):
                    adds.append(await encode())
            except Exception as error:
                self._lost(repr(error))
            # Other requests have their turn between two encodings of 0.05 ms (measured).
            await asyncio.sleep(0)
        if not adds:
            return
        try:
            async with asyncio.timeout(WRITE_WITHIN_S):
                await self._pipeline.ask(b"".join(adds), len(adds))
            self._is_losing = False
        except Exception as error:
            self._lost(repr(error), len(adds))

    async def _served(self, query: Query, slate: Slate, at_s: float) -> bytes:
        return _add(SERVED, served_message(query, slate, at_s, self._explored_share))

    async def _made(self, query: Query, asked: Asked, slate: Slate, at_s: float) -> bytes:
        numeric, categorical = await self._item_columns(may_be_shown(slate))
        digest = self._plan.digest if self._plan is not None else ""
        return _add(MADE, made_message(query, asked, slate, at_s, digest, numeric, categorical))

    async def _item_columns(self, keys: Int32) -> tuple[Float32, list[list[str]]]:
        """
        Columns of the read plan for *keys* (m,), as the online store has them: (m, numeric), m × categorical.

        The re-ranker reads the same store once a minute and would have to send its rows with every answer; here nobody
        waits, and the two differ by what was written in that minute.
        """
        item = self._plan.item if self._plan is not None else None
        if item is None or not item.fields:
            return np.empty((len(keys), 0), np.float32), [[] for _ in keys]
        reads = [command(b"HMGET", item.redis_key(self._id_of(key)), *item.fields) for key in keys.tolist()]
        found = item.decode(await self._pipeline.ask(b"".join(reads), len(reads)), self._shop_now())
        return found.numeric, [list(row) for row in found.categorical]

    def _lost(self, reason: str, slates: int = 1) -> None:
        self._count(slates)
        if not self._is_losing:
            self._is_losing = True
            log.warning("side_effect_failed", effect=EFFECT, error=reason)

    def _count(self, slates: int) -> None:
        self._metrics.side_effect_failures.labels(EFFECT).inc(slates)

    def __repr__(self) -> str:
        return f"<RedisSlateLog of {self._share:g}, {self._waiting.qsize()} waiting>"


def _add(kind: bytes, message: bytes) -> bytes:
    return command(b"XADD", STREAM, b"MAXLEN", b"~", b"%d" % STREAM_MAX_LENGTH, b"*", kind, message)

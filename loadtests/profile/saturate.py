"""
As much load as is answered: so many requests in flight, the next one when one is back.

A closed loop on purpose: what is asked is where a busy process spends its time, not how long anybody waits.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from orchestrator.doctor.http_client import Client, NoAnswer, post
from orchestrator.doctor.mix import Kind, Mix, Shop, read_answer

PATIENCE_S = 5.0
"""Judged: fifty times the promise; a profiler stops what it samples."""


@dataclass(slots=True)
class Answered:
    """How many answers of which level came; what failed by its name."""

    levels: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def n(self) -> int:
        return self.levels.total()


async def saturate(
    host: str, port: int, shop: Shop, kind: Kind, in_flight: int, stop: asyncio.Event, seed: int = 1
) -> Answered:
    """Keep *in_flight* requests of one kind under way until *stop*, and say what came."""
    client, answered = Client(host, port), Answered()
    # Fresh requests leave out what nobody left out before: another draw every time.
    mix = Mix(shop, random.Random(seed), random.Random(), {kind: 1.0})  # noqa: S311 – no secret

    async def shopper() -> None:
        while not stop.is_set():
            ask = mix.next()
            try:
                reply = await client.ask(post(f"{host}:{port}", "/v1/recommendations", ask.body), PATIENCE_S)
            except NoAnswer as error:
                answered.failed[error.why] += 1
                # Whoever refuses refuses at once: without a pause this would be a storm.
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 0.05)
                continue
            if reply.status != 200:
                answered.failed[str(reply.status)] += 1
                continue
            answered.levels[str(read_answer(ask, reply.body).get("level", "unreadable"))] += 1

    await asyncio.gather(*(shopper() for _ in range(in_flight)))
    client.close()
    return answered

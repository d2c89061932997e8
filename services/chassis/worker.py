"""
One thread that runs the model, so that the event loop stays free for health checks, deadlines and cancellation.

One, because a model of ours is numpy, FAISS or onnxruntime set to one thread: a second caller would only
make both late. More capacity is another replica.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.chassis.telemetry import ServiceMetrics

Answer = TypeVar("Answer")


class DeadlinePassed(Exception):
    """The caller has stopped waiting; the model was not touched."""


class ModelWorker:
    """Runs one call at a time, in the order of arrival, and refuses what has expired when its turn comes."""

    def __init__(self, metrics: ServiceMetrics) -> None:
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def run(self, work: Callable[[], Answer], remaining_s: float | None) -> Answer:
        """
        Run *work* in the model's thread. A cancelled caller's work is dropped if it has not begun.

        Args:
            remaining_s: seconds the caller will still wait; None when it set no deadline.

        Raises:
            DeadlinePassed: *remaining_s* was over on arrival, or before the work's turn came.
        """
        arrived_at = time.monotonic()
        deadline_at = math.inf if remaining_s is None else arrived_at + remaining_s
        if arrived_at >= deadline_at:
            raise DeadlinePassed

        def turn() -> Answer:
            began_at = time.monotonic()
            self._metrics.seconds.labels("queue").observe(began_at - arrived_at)
            if began_at >= deadline_at:
                raise DeadlinePassed
            answer = work()
            self._metrics.seconds.labels("model").observe(time.monotonic() - began_at)
            return answer

        return await asyncio.get_running_loop().run_in_executor(self._thread, turn)

    def close(self) -> None:
        """Let the running call finish, drop the waiting ones."""
        self._thread.shutdown(wait=True, cancel_futures=True)

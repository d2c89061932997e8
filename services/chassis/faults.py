"""
Faults on demand, for tests of what is behind: only where the environment names a file, never over the network.

    TUTTI_FAULTS_FILE=run/faults.json, read again when it changes:

    {"reranking":       {"status": "UNAVAILABLE", "share": 0.1},     of every replica
     "content_based:1": {"answer": "empty"},                         of replica 1; wins over the line without a number
     "reranking:0":     {"delay_ms": 200, "share": 0.02}}

A fault may have a status or an answer, and a delay before it. `share` in [0, 1] is how many of the calls it hits, 1
if absent. A bent answer is the model's own, with one thing wrong:

    empty      no candidates, no scores
    nan        every score is NaN
    duplicate  the first key stands everywhere
    unknown    keys no shop has
    huge       ten times as many of everything

A re-ranker answers scores without keys: there `duplicate` is one score too many, `unknown` one too few.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import structlog

from protos.arrays import Rows, pack_rows, unpack_rows
from protos.tutti.v1 import candidate_generation_pb2, reranking_pb2

Reply = TypeVar("Reply", candidate_generation_pb2.GenerateReply, reranking_pb2.RerankReply)

VARIABLE = "TUTTI_FAULTS_FILE"

LOOK_EVERY_S = 0.05
"""Judged: a test that changes the file waits for a moment; looking at every call would be a system call each."""

FIELDS = {"status", "answer", "delay_ms", "share"}

UNKNOWN_KEY = 2**31 - 1
HUGE = 10


class BadFaults(ValueError):
    """The file does not say faults; the message says what was found and what was expected."""


class Answer(Enum):
    """How a reply is bent; see above."""

    EMPTY = "empty"
    NAN = "nan"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"
    HUGE = "huge"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a share of the calls: a delay, then a status or a bent answer."""

    status: grpc.StatusCode | None = None
    answer: Answer | None = None
    delay_s: float = 0.0
    share: float = 1.0


NO_FAULT = Fault(share=0.0)


class Faults:
    """
    The faults of one process.

    Args:
        path: the file; absent is as good as empty. One that cannot be understood shows no fault and is logged.
        rng: decides which calls are hit.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        replica: int,
        log: structlog.stdlib.BoundLogger,
        rng: random.Random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._keys = path, (f"{name}:{replica}", name)
        self._log, self._rng, self._monotonic = log, rng, monotonic
        self._looked_at = -LOOK_EVERY_S
        self._version: tuple[int, int] | None = None
        self._fault = NO_FAULT
        log.warning("fault injection is possible", file=str(path))

    def __repr__(self) -> str:
        return f"<Faults {self._keys[0]} from {self._path}: {self._fault}>"

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], name: str, replica: int, log: structlog.stdlib.BoundLogger
    ) -> Faults | None:
        """The faults the environment asks for; None, as in service, when it does not."""
        path = environment.get(VARIABLE)
        # Seeded by who it is: a run can be repeated, and replicas do not fail in step.
        return cls(Path(path), name, replica, log, random.Random(f"{name}:{replica}")) if path else None  # noqa: S311

    def draw(self) -> Fault:
        """The fault of the call that arrives now; `NO_FAULT` for one that is spared."""
        now = self._monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._look()
        return self._fault if self._fault.share > 0 and self._rng.random() < self._fault.share else NO_FAULT

    def _look(self) -> None:
        try:
            found = self._path.stat()
            version = (found.st_mtime_ns, found.st_size)
            if version == self._version:
                return
            self._version = version
            document = json.loads(self._path.read_text(encoding="utf-8"))
            self._fault = parse(document, self._keys)
        except FileNotFoundError:
            self._version, self._fault = None, NO_FAULT
            return
        except (OSError, ValueError) as error:
            self._fault = NO_FAULT
            self._log.error("faults cannot be read", file=str(self._path), reason=str(error))
            return
        self._log.warning("faults changed", fault=str(self._fault))


def parse(document: Any, keys: tuple[str, ...]) -> Fault:
    """
    The fault under the first of *keys* that *document* has; `NO_FAULT` without one.

    Raises:
        BadFaults: not a table of faults, or one with unknown fields or values.
    """
    if not isinstance(document, dict):
        raise BadFaults(f"expected {{NAME: fault}}, found {type(document).__name__}")
    entry = next((document[key] for key in keys if key in document), None)
    if entry is None:
        return NO_FAULT
    if not isinstance(entry, dict) or not set(entry) <= FIELDS:
        raise BadFaults(f"a fault has {', '.join(sorted(FIELDS))} and nothing else; found {entry!r}")
    if "status" in entry and "answer" in entry:
        raise BadFaults("a fault has a status or an answer, not both")
    try:
        fault = Fault(
            grpc.StatusCode[entry["status"]] if "status" in entry else None,
            Answer(entry["answer"]) if "answer" in entry else None,
            float(entry.get("delay_ms", 0)) / 1000,
            float(entry.get("share", 1)),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise BadFaults(f"{entry}: {error}") from error
    if not (0 <= fault.share <= 1 and fault.delay_s >= 0) or fault.status is grpc.StatusCode.OK:
        raise BadFaults(f"{entry}: share lies in [0, 1], delay_ms is not negative, status is an error")
    return fault


async def meet(fault: Fault, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """What comes before the model: wait, then end the call if that is the fault."""
    if fault.delay_s:
        await asyncio.sleep(fault.delay_s)
    if fault.status is not None:
        await context.abort(fault.status, "a fault, as told")


def bend(reply: Reply, fault: Fault, queries: int) -> Reply:
    """*reply* as the fault wants it; itself when the fault wants none."""
    if fault.answer is None:
        return reply
    scores = np.frombuffer(reply.scores, "<f4")
    if isinstance(reply, candidate_generation_pb2.GenerateReply):
        rows = unpack_rows(reply.candidates, queries, "candidates")
        bent = _bent_rows(rows, fault.answer)
        reply.candidates.CopyFrom(pack_rows(bent))
        if len(scores) != len(bent.values):
            scores = np.resize(scores, len(bent.values)) if len(scores) else np.zeros(len(bent.values), "<f4")
    else:
        match fault.answer:
            case Answer.EMPTY:
                scores = scores[:0]
            case Answer.HUGE:
                scores = np.tile(scores, HUGE)
            case Answer.DUPLICATE:
                scores = np.append(scores, scores[-1:])
            case Answer.UNKNOWN:
                scores = scores[:-1]
            case Answer.NAN:
                pass  # below
    if fault.answer is Answer.NAN:
        scores = np.full_like(scores, np.nan)
    reply.scores = scores.astype("<f4").tobytes()
    return reply


def _bent_rows(rows: Rows, answer: Answer) -> Rows:
    match answer:
        case Answer.EMPTY:
            return Rows.of([[]] * len(rows))
        case Answer.NAN:
            return rows
        case Answer.DUPLICATE:
            return Rows.of([np.full_like(row, row[0]) if len(row) else row for row in _each(rows)])
        case Answer.UNKNOWN:
            return Rows.of([np.full_like(row, UNKNOWN_KEY) - np.arange(len(row)) for row in _each(rows)])
        case Answer.HUGE:
            return Rows.of([np.tile(row, HUGE) for row in _each(rows)])


def _each(rows: Rows) -> list[Any]:
    return [rows.row(i) for i in range(len(rows))]

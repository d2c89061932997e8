"""
One direction of one proxied connection: bytes that leave later, slower, broken or not at all.

Without toxics nothing is queued: a chunk goes straight through. With them every chunk gets a moment at which it is
due, never before the one in front of it, since TCP keeps order.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from orchestrator.doctor.toxics import Direction, Kind, Toxic, find

HIGH_WATER, LOW_WATER = 256 * 1024, 64 * 1024
"""Bytes waiting in one direction before its sender is paused, and again read. Judged: above any single answer of ours
(a re-ranking batch is about 100 kB), so that pausing only ever happens to a fault."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: close sends RST instead of FIN."""


class Host(Protocol):
    """What a flow leans on: the proxy it belongs to."""

    loop: asyncio.AbstractEventLoop
    rng: random.Random
    passed: dict[Direction, int]

    def reset(self, flow: Flow) -> None:
        """RST the connection that *flow* belongs to."""

    def ended(self, flow: Flow) -> None:
        """*flow* has passed on the end of its stream."""


class Flow:
    """One direction of one connection: what arrives on *source* leaves, sooner or later, on *target*."""

    def __init__(self, host: Host, direction: Direction) -> None:
        self._host, self._direction = host, direction
        self._queue: deque[tuple[float, bytes]] = deque()  # b"" is the end of the stream
        self._waiting = 0
        self._due_at = 0.0
        self._allowance: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self.has_ended = False
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None
        self.toxics: dict[Kind, Toxic] = {}

    def change(self, toxics: Sequence[Toxic]) -> None:
        """Other toxics from now on. Bytes that waited under the old ones leave at once, unless everything hangs."""
        self.toxics = {kind: t for kind in Kind if (t := find(toxics, kind, self._direction)) is not None}
        limit = self.toxics.get(Kind.LIMIT_DATA)
        self._allowance = None if limit is None else limit.bytes
        if not self.toxics:
            self._queue = deque((0.0, chunk) for _, chunk in self._queue)
            self._due_at = 0.0
        self._regulate()
        self._flush()
        if Kind.HALF_CLOSE in self.toxics and self._touches(Kind.HALF_CLOSE):
            self._pass(b"")

    def push(self, chunk: bytes) -> None:
        """A chunk arrived, or b"" for the end of the stream."""
        if self.target is None:
            # asyncio of Python 3.11.2 reads once although reading was paused when the connection was made.
            self._queue.append((0.0, chunk))
            self._waiting += len(chunk)
            return
        if not self.toxics and not self._queue:
            self._pass(chunk)
            return
        if chunk and Kind.RESET in self.toxics and self._touches(Kind.RESET):
            self._host.reset(self)
            return
        if chunk and Kind.CORRUPT in self.toxics and self._touches(Kind.CORRUPT):
            chunk = self._corrupted(chunk)
        for part in self._sliced(chunk):
            self._queue.append((self._due(part), part))
            self._waiting += len(part)
        self._regulate()
        self._flush()

    def flush_and(self, end: bool) -> None:
        """The source is gone for good: what waits still leaves, then the target is closed (*end*) or reset."""
        if self.target is None or self.target.is_closing():
            return
        slow = self.toxics.get(Kind.SLOW_CLOSE)
        wait_s = (slow.ms / 1000 if slow else 0.0) + (max(0.0, self._due_at - self._now()) if self._queue else 0.0)
        if wait_s:
            self._host.loop.call_later(wait_s, self._close, self.target, end)
        else:
            self._close(self.target, end)

    def source_may_go_on(self, is_writable: bool) -> None:
        """The target's buffer is full, or has room again."""
        self._is_paused = not is_writable
        self._regulate()

    def _close(self, target: asyncio.Transport, end: bool) -> None:
        self._flush()
        if target.is_closing():
            return
        if end:
            target.close()
        else:
            reset(target)

    def _due(self, part: bytes) -> float:
        now = self._now()
        at = max(now, self._due_at)
        if part and (latency := self.toxics.get(Kind.LATENCY)) and self._touches(Kind.LATENCY):
            ms = latency.ms + self._host.rng.uniform(-latency.jitter_ms, latency.jitter_ms)
            at = max(at, now + max(0.0, ms) / 1000)
        if band := self.toxics.get(Kind.BANDWIDTH):
            at += len(part) / band.bytes_per_s
        if part and (slicer := self.toxics.get(Kind.SLICER)):
            at += slicer.ms / 1000
        if not part and (slow := self.toxics.get(Kind.SLOW_CLOSE)):
            at += slow.ms / 1000
        self._due_at = at
        return at

    def _sliced(self, chunk: bytes) -> list[bytes]:
        slicer = self.toxics.get(Kind.SLICER)
        if slicer is None or not chunk or not self._touches(Kind.SLICER):
            return [chunk]
        return [chunk[at : at + slicer.bytes] for at in range(0, len(chunk), slicer.bytes)]

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if Kind.HANG in self.toxics or self.target is None:
            return
        now = self._now()
        while self._queue and self._queue[0][0] <= now:
            _, part = self._queue.popleft()
            self._waiting -= len(part)
            self._pass(part)
        if self._queue:
            self._timer = self._host.loop.call_at(self._queue[0][0], self._flush)
        self._regulate()

    def _pass(self, part: bytes) -> None:
        target = self.target
        if target is None or target.is_closing() or self.has_ended:
            return
        if not part:
            self.has_ended = True
            with contextlib.suppress(OSError, RuntimeError):  # the target ended first
                target.write_eof()
            self._host.ended(self)
            return
        if self._allowance is not None:
            part = part[: self._allowance]
            self._allowance -= len(part)
        target.write(part)
        self._host.passed[self._direction] += len(part)
        if self._allowance == 0:
            target.close()

    def _regulate(self) -> None:
        """Read from the source or not: not while it hangs, nor while too much waits."""
        if self.source is None or self.target is None or self.source.is_closing():
            return  # not connected on both sides yet: what was read now would have nowhere to go
        hangs = Kind.HANG in self.toxics
        if hangs or self._is_paused or self._waiting > HIGH_WATER:
            self.source.pause_reading()
        elif self._waiting <= LOW_WATER and not self.source.is_reading():
            self.source.resume_reading()

    def _touches(self, kind: Kind) -> bool:
        share = self.toxics[kind].share
        return share >= 1.0 or self._host.rng.random() < share

    def _corrupted(self, chunk: bytes) -> bytes:
        at = self._host.rng.randrange(len(chunk))
        return chunk[:at] + bytes([chunk[at] ^ 0xFF]) + chunk[at + 1 :]

    def _now(self) -> float:
        return self._host.loop.time()


def reset(transport: asyncio.Transport) -> None:
    """Close with RST: what a peer sees when a process is killed with data unread."""
    held = transport.get_extra_info("socket")
    if held is not None:
        with contextlib.suppress(OSError):  # it is gone already
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()

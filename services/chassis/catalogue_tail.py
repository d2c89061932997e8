"""
The catalogue's changes for a model service: everything that was changed so far, then every change, in one thread.

The orchestrator's mirror does the same for its own arrays (orchestrator/adapters/catalogue_mirror.py); what both must
agree on is in protos/catalogue.py. The rule: nothing that Redis does reaches the model's calls, which go on with what
was known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from protos.catalogue import ITEMS, STREAM, VERSION, Continuity, Entry, ItemState, Unreadable, read_entry, read_state

BLOCK_S = 1.0
"""Longest wait inside Redis for the next change; as the orchestrator's mirror."""

TIMEOUT_S = 3.0
"""Derived: three times the longest wait that is meant; who takes longer is hung."""

BACKOFF_S = (0.05, 1.0)
"""Pause before the next attempt, doubled each time; as the orchestrator's mirror."""

BATCH = 50
"""Changes handed over at once. Derived: encoding an item is some 0.3 ms of Python, and for longer than that a call
should not wait for the interpreter's lock to be passed on."""

PAUSE_S = 0.002
"""Between two batches at least, so that a call gets its turn; after one that took longer, as long as it took, so that
many changes take half of this process at most. Judged."""

log = structlog.get_logger("tutti.catalogue")


class CatalogueTail:
    """
    Hands changes to *take* in the order in which Redis took them. Where some were missed it hands all items again;
    where Redis has forgotten, it calls *begin_anew* before.
    """

    def __init__(
        self, redis_url: str, take: Callable[[Sequence[ItemState]], None], begin_anew: Callable[[], None]
    ) -> None:
        self._client = redis.Redis.from_url(
            redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=BLOCK_S, retry=Retry(NoBackoff(), 0)
        )
        self._hand_over, self._begin_anew = take, begin_anew
        self._continuity: Continuity | None = None
        self._last: Any = b"0-0"
        # The newest change that was handed over, and whether Redis has forgotten it.
        self._had, self._is_anew = 0, False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="catalogue", daemon=True)

    def start(self) -> None:
        """Begin in the background; nothing is waited for."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _follow(self) -> None:
        wait_s, last_s = BACKOFF_S
        is_told = False
        while not self._stop.is_set():
            try:
                self._turn()
                wait_s, is_told = BACKOFF_S[0], False
            except (redis.exceptions.RedisError, OSError) as error:
                if not is_told:
                    log.warning("catalogue_not_followed", reason=str(error), tail=repr(self))
                is_told = True
                self._stop.wait(wait_s)
                wait_s = min(2 * wait_s, last_s)

    def _turn(self) -> None:
        if self._continuity is None:
            self._read_all()
            return
        entries = self._next()
        if not entries and self._continuity.is_lost(int(self._client.get(VERSION) or 0)):  # type: ignore[arg-type]
            self._continuity, self._is_anew = None, True
            return
        states: list[ItemState] = []
        for entry_id, fields in entries:
            entry = _readable(fields)
            if entry is not None:
                if not self._continuity.follows(entry):
                    self._is_anew, self._continuity = self._continuity.has_begun_anew, None
                    break
                self._had = self._continuity.version
                states.append(entry.state)
            self._last = entry_id
        self._take(states)

    def _next(self) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
        found: Any = self._client.xread({STREAM: self._last}, count=500, block=int(BLOCK_S * 1000))
        # redis-py answers [[stream, entries]] with protocol 2 and {stream: [entries]} with protocol 3.
        if isinstance(found, dict):
            return [entry for parts in found.values() for part in parts for entry in part]
        return [entry for _, entries in found or () for entry in entries]

    def _read_all(self) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.xrevrange(STREAM, count=1)
            pipe.get(VERSION)
            newest, counter = pipe.execute()
        version = int(counter or 0)
        if self._is_anew or version < self._had:
            # And not where some were only missed: what is handed again replaces what was, and nothing is without it
            # meanwhile. The hash has deleted items, too.
            self._begin_anew()
        # Until all of it is read: whoever is interrupted here does not know what Redis will have forgotten by then.
        self._is_anew = True
        states: list[ItemState] = []
        n_items = 0
        for item_id, held in self._client.hscan_iter(ITEMS, count=500):
            try:
                states.append(read_state(item_id, held))
            except Unreadable as error:
                log.error("catalogue_item_unreadable", reason=str(error))
            if len(states) >= BATCH:
                n_items += len(states)
                self._take(states)
                states = []
        self._take(states)
        self._had, self._is_anew = version, False
        self._continuity, self._last = Continuity(version), newest[0][0] if newest else b"0-0"
        log.info("catalogue_read", items=n_items + len(states), version=version)

    def _take(self, states: Sequence[ItemState]) -> None:
        for start in range(0, len(states), BATCH):
            began_at = time.monotonic()
            self._handed(states[start : start + BATCH])
            self._stop.wait(max(PAUSE_S, time.monotonic() - began_at))

    def _handed(self, states: Sequence[ItemState]) -> None:
        """Hand over; what the model cannot bear is left out, with its trace, and keeps no other from it."""
        try:
            self._hand_over(states)
        except Exception:
            if len(states) == 1:
                log.exception("catalogue_change_failed", item_id=states[0].item_id[:60])
                return
            for state in states:
                self._handed([state])

    def __repr__(self) -> str:
        return f"<CatalogueTail {'reads anew' if self._continuity is None else repr(self._continuity)}>"


def _readable(fields: dict[bytes, bytes]) -> Entry | None:
    try:
        return read_entry(fields)
    except Unreadable as error:
        log.error("catalogue_entry_unreadable", reason=str(error))
        return None

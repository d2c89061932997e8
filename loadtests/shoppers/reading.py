"""
What an answer is worth: good, refused or failed, and what it shows the shopper.

The rule: whatever comes is read, never trusted; what cannot be read is a failure with a name from a small closed set.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from loadtests.shoppers.session import EVENTS, Shown

OK, ACCEPTED, BUSY = 200, 202, 503


@dataclass(frozen=True, slots=True)
class Read:
    """*failed* is empty for a good answer and for a refusal; *level* only where there is a slate."""

    failed: str = ""
    level: str = ""
    is_refused: bool = False
    shown: Shown | None = None


def read_answer(name: str, status: int, body: bytes | None, retry_after: str | None, error: str = "") -> Read:
    """
    Args:
        name: the request's name; `events` is answered with 202, everything else with a slate.
        status: 0 without an answer, and then *error* says why.
        retry_after: the header's value; a 503 with it is a refusal, one without is a failure.
    """
    if not status:
        return Read(failed=f"no answer: {error or 'unknown'}")
    if status == BUSY and retry_after is not None:
        return Read(is_refused=True)
    if name == EVENTS:
        return _told(body) if status == ACCEPTED else Read(failed=f"status {status}")
    return _slate(body) if status == OK else Read(failed=f"status {status}")


def _told(body: bytes | None) -> Read:
    try:
        answer = orjson.loads(body or b"")
        rejected = len(answer["rejected"])
    except (ValueError, TypeError, KeyError):
        return Read(failed="unreadable")
    return Read(failed="events rejected" if rejected else "")


def _slate(body: bytes | None) -> Read:
    try:
        answer = orjson.loads(body or b"")
        ids = tuple(item["id"] for item in answer["items"])
        quality, recommendation_id = answer["quality"], answer["recommendation_id"]
        level = level_of(quality["level"], quality["rung"], quality["degraded"])
    except (ValueError, TypeError, KeyError):
        return Read(failed="unreadable")
    if not ids:
        return Read(failed="empty slate", level=level)
    if len(set(ids)) != len(ids):
        return Read(failed="an item twice", level=level)
    return Read(level=level, shown=Shown(recommendation_id, ids))


def level_of(level: str, rung: str, degraded: list[str]) -> str:
    """
    `quality.level`, but popular items for a shopper nobody knows count as `full`: nothing was lost on the way.

    Half of all visits are such; taken as they stand they would hide a system that has lost its features.
    """
    return "full" if level == "popular" and rung == "full" and not degraded else level

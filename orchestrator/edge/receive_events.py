"""
Event documents → events for the log, each judged alone: accepted ones go on, rejected ones say why.

Decides only: it is given `now` and touches neither clock nor store.

    timestamp                        the event
    more than 5 minutes ahead        is refused: the clock that made it is wrong
    late                             counts, in its place in the history (core.people)
    older than the history is kept   is logged, counts for the watermark, and is in no list
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson
from pydantic import ValidationError

from orchestrator.core.model import Event
from orchestrator.edge.parse import field_errors
from orchestrator.edge.problems import FieldError
from orchestrator.edge.schemas import EventDocument
from orchestrator.ports import Catalogue
from protos.tutti.v1 import common_pb2

MAX_AHEAD_S = 300
"""A shopper's clock may be this far ahead of ours. Borrowed: the skew Kerberos tolerates (RFC 4120, five minutes)."""

TYPE_CODES = {
    name.removeprefix("EVENT_TYPE_").lower(): code for name, code in common_pb2.EventType.items() if code != 0
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One event that was refused: its place in the batch, the field at fault, what is wrong with it."""

    index: int
    field: str
    message: str

    def document(self) -> dict[str, object]:
        """As the API says it."""
        return {"index": self.index, "field": self.field, "message": self.message}


def judge(
    documents: Sequence[object], catalogue: Catalogue, now_us: int, oldest_us: int = 0
) -> tuple[list[Event], list[Rejected]]:
    """
    Every document either as an event or as a rejection; order is kept in both.

    Args:
        now_us: microseconds since the epoch, UTC: the default moment and the measure of "the future".
        oldest_us: an event of before this moment is logged and stays out of the history, like one without an item.
            The shopper's lists would have ended by now had it come in time.
    """
    events: list[Event] = []
    rejected: list[Rejected] = []
    for index, document in enumerate(documents):
        outcome = _judge(document, catalogue, now_us, oldest_us)
        if isinstance(outcome, FieldError):
            rejected.append(Rejected(index, outcome.field, outcome.message))
        else:
            events.append(outcome)
    return events, rejected


def _judge(document: object, catalogue: Catalogue, now_us: int, oldest_us: int) -> Event | FieldError:
    try:
        event = EventDocument.model_validate(document)
    except ValidationError as error:
        return field_errors(error)[0]
    if event.user_id is None and event.visitor_id is None:
        return FieldError("user_id", "user_id or visitor_id is required: an event is somebody's")
    at_us = now_us if event.timestamp is None else event.timestamp
    if at_us > now_us + MAX_AHEAD_S * 1_000_000:
        ahead_s = (at_us - now_us) / 1e6
        return FieldError("timestamp", f"lies {ahead_s:.0f} s in the future; at most {MAX_AHEAD_S} s are taken")
    return Event(
        event_id=event.event_id,
        subject=f"u:{event.user_id}" if event.user_id is not None else f"v:{event.visitor_id}",
        key=None if event.item_id is None or at_us < oldest_us else catalogue.key_of(event.item_id),
        type_code=TYPE_CODES[event.event_type],
        at_us=at_us,
        body=_canonical(event, at_us, now_us),
    )


def _canonical(event: EventDocument, at_us: int, now_us: int) -> bytes:
    """The event as it will stand in the log: absent fields left out, moments as RFC 3339 in UTC."""
    fields = event.model_dump(exclude_none=True)
    return orjson.dumps({**fields, "timestamp": rfc3339(at_us), "received_at": rfc3339(now_us)})


def rfc3339(at_us: int) -> str:
    """Microseconds since the epoch as the API and the log write a moment."""
    moment = _EPOCH + timedelta(microseconds=at_us)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

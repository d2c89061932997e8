"""
Many items in one call: newline-delimited JSON, one item a line, read and stored while it streams.

Each line is judged alone and is a PUT of its item: a bad one does not hold back the others, and a file may be sent
again. The rule: no more than one chunk of it is ever in memory, and pages get their turn between handfuls of lines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from orchestrator.bootstrap import Running
from orchestrator.edge import schemas
from orchestrator.edge.items import changed
from orchestrator.edge.parse import field_errors
from orchestrator.edge.problems import FieldError, Kind, Problem
from orchestrator.edge.routes import JSON, Handler, running_of
from protos.catalogue import NO_KEY, Wish

NDJSON = "application/x-ndjson"
ADDRESS = "/v1/items:import"

CHUNK_LINES = 100
"""Lines stored in one round trip: one script. Derived: what comes back is applied in one turn of the event loop, some
30 µs each, so that a page waits 3 ms; a round trip more for as many is nothing beside it."""

LINES_A_TURN = 10
"""Lines judged before others get the event loop. Derived: 20 µs each; a slate takes a dozen turns, and each of them may
wait for one of these."""

REST_S = 0.005
"""After every chunk, so that pages are not one half of what this process does. Derived: a chunk is some 9 ms of it, so
an import takes two thirds of a core at most and still 6,000 lines a second; a million are three minutes."""

MAX_REJECTED = 100
"""Rejections that are told, the others are counted. Judged: whoever has more has one mistake many times."""

PROGRESS_EVERY_S = 1.0
"""Judged: as often as a person wants to see that it goes on."""


PATIENCE_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0, 5.0, 5.0)
"""Pauses before the same lines are sent to a store again that did not answer; then the import ends. Judged: half a
minute is a restart of Redis or a machine that is busy with something else; of a million items nobody wants to send
nine hundred thousand again for that. Whoever waits for a single item is told at once."""


@dataclass(slots=True)
class Import:
    """What became of the lines so far."""

    began_at: float = field(default_factory=time.monotonic)
    line: int = 0
    accepted: int = 0
    rejected_count: int = 0
    rejected: list[dict[str, object]] = field(default_factory=list)

    def reject(self, error: FieldError) -> None:
        """Refuse the line that was read last."""
        self.rejected_count += 1
        if len(self.rejected) < MAX_REJECTED:
            self.rejected.append({"line": self.line, "field": error.field, "message": error.message})

    def progress(self) -> dict[str, object]:
        """How far it is."""
        return {"lines": self.line, "accepted": self.accepted, "rejected_count": self.rejected_count}

    def answer(self) -> dict[str, object]:
        """How it ended."""
        took_ms = round((time.monotonic() - self.began_at) * 1000, 3)
        return {
            "accepted": self.accepted,
            "rejected_count": self.rejected_count,
            "rejected": self.rejected,
            "took_ms": took_ms,
        }


async def import_items(request: Request) -> Response:
    """
    Put many items: one JSON object a line, with `item_id`. Asked for `application/x-ndjson`, it answers with a line of
    progress a second while it reads, and the result as the last one.
    """
    running = running_of(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != NDJSON:
        raise Problem(Kind.UNSUPPORTED_MEDIA_TYPE, f"content-type must be {NDJSON}; found {media_type[:80]!r}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(Kind.UNSUPPORTED_MEDIA_TYPE, "a compressed body is not taken; send it as it is")
    done = Import()
    steps = _steps(running, request, done)
    if NDJSON in request.headers.get("accept", ""):
        return _AsItGoes(_told(steps, done), media_type=NDJSON)
    try:
        async for _ in steps:
            pass
    except Problem as problem:
        problem.extra |= done.answer()
        raise
    if not done.accepted and done.rejected_count:
        first = done.rejected[0]
        error = FieldError(f"line {first['line']}: {first['field']}", str(first["message"]))
        raise Problem(Kind.NO_ITEM_ACCEPTED, f"{error.field}: {error.message}", [error], done.answer())
    return Response(orjson.dumps(done.answer()), media_type=JSON)


async def _told(steps: AsyncIterator[None], done: Import) -> AsyncIterator[bytes]:
    """Lines of the answer. What goes wrong after the first is told in the last: the status is long on its way."""
    told_at = done.began_at
    try:
        async for _ in steps:
            if (now := time.monotonic()) - told_at >= PROGRESS_EVERY_S:
                told_at = now
                yield orjson.dumps(done.progress(), option=orjson.OPT_APPEND_NEWLINE)
    except Problem as problem:
        found = {"problem": {"type": f"/docs#{problem.kind.slug}", "detail": problem.detail}}
        yield orjson.dumps({**done.answer(), **found}, option=orjson.OPT_APPEND_NEWLINE)
    else:
        yield orjson.dumps(done.answer(), option=orjson.OPT_APPEND_NEWLINE)


async def _steps(running: Running, request: Request, done: Import) -> AsyncIterator[None]:
    """Read, judge and store; comes up for air after every chunk."""
    wishes: list[Wish] = []
    longest = running.settings.edge.max_body_bytes
    async for line in _lines(request, longest):
        done.line += 1
        if done.line % LINES_A_TURN == 0:
            await asyncio.sleep(0)
        match _judged(running, line, longest):
            case Wish() as wish:
                wishes.append(wish)
            case FieldError() as error:
                done.reject(error)
            case None:
                continue
        if len(wishes) >= CHUNK_LINES:
            await _store(running, wishes, done)
            wishes = []
            yield
            await asyncio.sleep(REST_S)
    if wishes:
        await _store(running, wishes, done)
    yield


async def _store(running: Running, wishes: list[Wish], done: Import) -> None:
    """
    Raises:
        Problem: the store did not answer, however often it was asked. Lines that were taken are taken again unchanged.
    """
    for pause_s in (*PATIENCE_S, None):
        try:
            await changed(running, wishes)
            break
        except Problem:
            if pause_s is None:
                raise
            await asyncio.sleep(pause_s)
    done.accepted += len(wishes)


def _judged(running: Running, line: bytes | None, longest: int) -> Wish | FieldError | None:
    """A line as a wish, or what is wrong with it; None for an empty one."""
    if line is None:
        return FieldError("body", f"a line has at most {longest} bytes")
    if not line.strip():
        return None
    try:
        item = schemas.ItemLine.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        return FieldError("body", f"not JSON: {error.msg} at column {error.colno}")
    except ValidationError as error:
        return field_errors(error)[0]
    key = running.catalogue.key_of(item.item_id)
    document = item.model_dump(exclude_none=True, exclude={"item_id"})
    return Wish(item.item_id, document, NO_KEY if key is None else key)


async def _lines(request: Request, longest: int) -> AsyncIterator[bytes | None]:
    """The body's lines; None for one of more than *longest* bytes, which is skipped to its end."""
    rest, is_too_long = b"", False
    async for chunk in request.stream():
        first, *more = (rest + chunk).split(b"\n")
        for line in more:
            yield None if is_too_long or len(first) > longest else first
            first, is_too_long = line, False
        rest = first
        if len(rest) > longest:
            rest, is_too_long = b"", True
    if rest or is_too_long:
        yield None if is_too_long else rest


class _AsItGoes(StreamingResponse):
    """Sends while the body is still being read: nobody else may wait for messages of the same request meanwhile."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


HANDLERS: dict[tuple[str, str], Handler] = {(ADDRESS, "post"): import_items}
"""Address and method → handler."""

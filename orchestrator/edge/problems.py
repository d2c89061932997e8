"""
Errors as RFC 9457 problem documents; the only place that turns an exception into a status code.

    Problem             an answer that is not the one asked for: kind, detail, the fields at fault
      BadFields         422: fields that are missing, unknown, of the wrong type or out of range

A `Problem` is the caller's error or a state we announce (not ready); anything else that reaches the edge is a
bug: it is logged with its trace and request id and the caller is told nothing of its insides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from orchestrator.edge.exchange import exchange_of

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
"""Fields one document names. Derived: more than fit on a screen help nobody, and a hostile body has thousands."""


class Kind(Enum):
    """Every problem the edge knows: slug (its `type` is /docs#slug), status, title."""

    INVALID_JSON = ("invalid-json", 400, "The body is not JSON")
    BAD_REQUEST = ("bad-request", 400, "The request cannot be read")
    NOT_FOUND = ("not-found", 404, "There is nothing here")
    UNKNOWN_ITEM = ("unknown-item", 404, "This shop has no such item")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "This address does not take this method")
    BODY_TOO_LARGE = ("body-too-large", 413, "The body is too large")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported-media-type", 415, "The body must be JSON")
    INVALID_FIELDS = ("invalid-fields", 422, "Some fields are not acceptable")
    NO_EVENT_ACCEPTED = ("no-event-accepted", 422, "None of the events could be accepted")
    NO_ITEM_ACCEPTED = ("no-item-accepted", 422, "None of the items could be accepted")
    INTERNAL = ("internal-error", 500, "Something went wrong here")
    OVERLOADED = ("overloaded", 503, "Too busy to answer in time")
    NOT_READY = ("not-ready", 503, "Not ready to answer")
    EVENTS_UNAVAILABLE = ("events-unavailable", 503, "Events cannot be stored just now")
    ITEMS_UNAVAILABLE = ("items-unavailable", 503, "Items cannot be changed just now")
    PEOPLE_UNAVAILABLE = ("people-unavailable", 503, "The store does not answer just now")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field at fault: its path in the body (`filter.price_min`, `context.item_ids[3]`) and what is wrong."""

    field: str
    message: str


class Problem(Exception):
    """
    Answer with a problem document.

    extra: further members of the document, as RFC 9457 §3.2 allows.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        errors: Sequence[FieldError] = (),
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


class BadFields(Problem):
    """The body or the query string has fields we cannot accept; the detail names the first."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(Kind.INVALID_FIELDS, f"{first.field}: {first.message}{more}", errors)


def document(problem: Problem, request_id: str) -> bytes:
    """The problem as JSON."""
    body: dict[str, object] = {
        "type": f"/docs#{problem.kind.slug}",
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": problem.detail,
    }
    if problem.errors:
        body["errors"] = [{"field": e.field, "message": e.message} for e in problem.errors[:MAX_ERRORS]]
    return orjson.dumps({**body, **problem.extra, "request_id": request_id})


def response(problem: Problem, request_id: str) -> Response:
    """The problem as an answer."""
    return Response(document(problem, request_id), problem.kind.status, problem.headers, MEDIA_TYPE)


async def on_problem(request: Request, error: Exception) -> Response:
    """Starlette's handler for `Problem`."""
    if not isinstance(error, Problem):
        raise error
    return response(error, exchange_of(request.scope).request_id)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's handler for the router's own refusals: no such path, no such method."""
    if not isinstance(error, HTTPException):
        raise error
    method, path = request.method, request.url.path
    if error.status_code == Kind.NOT_FOUND.status:
        problem = Problem(Kind.NOT_FOUND, f"no such address: {path:.200}; /docs lists what there is")
    elif error.status_code == Kind.METHOD_NOT_ALLOWED.status:
        allowed = _allowed(request)
        problem = Problem(
            Kind.METHOD_NOT_ALLOWED, f"{path:.200} takes {allowed}, not {method:.20}", headers={"allow": allowed}
        )
    else:
        problem = Problem(Kind.BAD_REQUEST, str(error.detail), headers=error.headers)
    return response(problem, exchange_of(request.scope).request_id)


def _allowed(request: Request) -> str:
    """Every method this address takes; the router itself names those of the first handler only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in here for method in route.methods or ()}))

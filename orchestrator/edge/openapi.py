"""
The OpenAPI document: what goes in and out of each address.

Handlers take the bare request (see `routes`), so schemas, parameters and examples are tied to addresses here.
Limits of the settings are written into the schemas, so that the document tells the truth about *this* server.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from orchestrator.core.shedding import Priority
from orchestrator.edge import answers, item_import, items, operations, people, routes, schemas, shelves
from orchestrator.edge.admission import PRIORITY, START, TIMEOUT
from orchestrator.edge.problems import MEDIA_TYPE, Kind
from orchestrator.settings import Edge

TITLE = "tutti"
VERSION = "1"
DESCRIPTION = (
    "Which items should this shopper see here, now? Every answer carries Server-Timing and X-Request-Id; "
    "every error is an RFC 9457 problem document that names the field."
)
_REFERENCE = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Call:
    """What one address takes and gives. *answer* None: plain text. *may_create*: 201 in place of *status*."""

    summary: str
    answer: type[BaseModel] | None
    problems: tuple[Kind, ...]
    status: int = 200
    body: type[BaseModel] | None = None
    body_type: str = routes.JSON
    may_create: bool = False
    examples: tuple[tuple[str, dict[str, Any]], ...] = ()
    parameters: tuple[tuple[str, str, dict[str, Any]], ...] = ()


_BODY = (Kind.INVALID_JSON, Kind.BODY_TOO_LARGE, Kind.UNSUPPORTED_MEDIA_TYPE, Kind.INVALID_FIELDS)
_SLATE = (Kind.BAD_REQUEST, Kind.OVERLOADED)
# 404: an id with a line break makes no address.
_PERSON = (Kind.NOT_FOUND, Kind.INVALID_FIELDS, Kind.PEOPLE_UNAVAILABLE)
_HEADERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        PRIORITY,
        "header",
        {
            "type": "string",
            "enum": [priority.value for priority in reversed(Priority)],
            "default": Priority.CRITICAL.value,
            "description": "what gives way first when it is busy: bulk, then best_effort",
        },
    ),
    (
        TIMEOUT,
        "header",
        {
            "type": "string",
            "pattern": "^-?[0-9]{1,9}(\\.[0-9]{1,6})?$",
            "description": "milliseconds, like budget_ms; the smaller wins; 0 or less: popular, at once",
        },
    ),
    (
        START,
        "header",
        {"type": "string", "description": "set by a proxy: when it got the request; the wait is off the budget"},
    ),
)
_RETRY_AFTER = {"Retry-After": {"description": "whole seconds until to ask again", "schema": {"type": "integer"}}}
_ID = {"type": "string", "minLength": 1, "maxLength": schemas.MAX_ID, "pattern": schemas.NO_CONTROL}

_ABOUT_AN_ITEM: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("item_id", "path", _ID),
    ("count", "query", {"type": "integer", "minimum": 1, "default": 20}),
    ("user_id", "query", _ID),
    ("visitor_id", "query", _ID),
    *_HEADERS,
)

CALLS: dict[tuple[str, str], Call] = {
    ("/v1/recommendations", "post"): Call(
        "Fill a shelf",
        answers.SlateAnswer,
        (*_BODY, *_SLATE),
        parameters=_HEADERS,
        body=schemas.RecommendationRequest,
        examples=(
            ("anonymous", {"placement": "home"}),
            ("shopper", {"placement": "home", "user_id": "12583", "count": 12, "explain": True}),
            ("product page", {"placement": "item", "visitor_id": "v-81", "context": {"item_ids": ["85123A"]}}),
            ("basket", {"placement": "cart", "user_id": "12583", "context": {"cart_item_ids": ["85123A", "22423"]}}),
            (
                "filtered",
                {"placement": "home", "count": 6, "filter": {"price_min": 5, "price_max": 20, "in_stock": True}},
            ),
        ),
    ),
    ("/v1/pages", "post"): Call(
        "Fill the shelves of a page",
        answers.PageAnswer,
        (*_BODY, *_SLATE),
        parameters=_HEADERS,
        body=schemas.PageRequest,
        examples=(
            (
                "product page",
                {
                    "user_id": "12583",
                    "placements": [
                        {"placement": "item", "count": 8, "context": {"item_ids": ["85123A"]}},
                        {"placement": "cart", "count": 4, "context": {"cart_item_ids": ["22423"]}},
                        {"placement": "home", "count": 12, "diversity": "medium"},
                    ],
                },
            ),
        ),
    ),
    ("/v1/rankings", "post"): Call(
        "Order a list for a shopper",
        answers.SlateAnswer,
        (*_BODY, *_SLATE),
        parameters=_HEADERS,
        body=schemas.RankingRequest,
        examples=(("search results", {"item_ids": ["85123A", "22423", "47566"], "user_id": "12583"}),),
    ),
    ("/v1/items/{item_id}/similar", "get"): Call(
        "Items like this one",
        answers.SlateAnswer,
        (Kind.UNKNOWN_ITEM, Kind.INVALID_FIELDS, *_SLATE),
        parameters=_ABOUT_AN_ITEM,
    ),
    ("/v1/items/{item_id}/bought-together", "get"): Call(
        "What is bought with this one",
        answers.SlateAnswer,
        (Kind.UNKNOWN_ITEM, Kind.INVALID_FIELDS, *_SLATE),
        parameters=_ABOUT_AN_ITEM,
    ),
    ("/v1/events", "post"): Call(
        "Tell what shoppers did",
        answers.EventsAnswer,
        (*_BODY, Kind.NO_EVENT_ACCEPTED, Kind.EVENTS_UNAVAILABLE, Kind.OVERLOADED),
        status=202,
        body=schemas.EventsRequest,
        examples=(
            (
                "view",
                {"events": [{"event_id": "e-1", "event_type": "view", "item_id": "85123A", "visitor_id": "v-81"}]},
            ),
        ),
    ),
    ("/v1/items:import", "post"): Call(
        "Put many items",
        answers.ImportAnswer,
        (Kind.BODY_TOO_LARGE, Kind.UNSUPPORTED_MEDIA_TYPE, Kind.NO_ITEM_ACCEPTED, Kind.ITEMS_UNAVAILABLE),
        body=schemas.ItemLine,
        body_type=item_import.NDJSON,
        examples=(("one line", {"item_id": "85123A", "title": "White hanging heart", "price": 2.95}),),
    ),
    ("/v1/items/{item_id}", "get"): Call(
        "An item",
        answers.ItemAnswer,
        (Kind.UNKNOWN_ITEM, Kind.INVALID_FIELDS),
        parameters=(("item_id", "path", _ID),),
    ),
    ("/v1/items/{item_id}", "put"): Call(
        "Make an item what it is",
        answers.ItemAnswer,
        (*_BODY, Kind.ITEMS_UNAVAILABLE),
        body=schemas.ItemDocument,
        may_create=True,
        parameters=(("item_id", "path", _ID),),
        examples=(
            (
                "new item",
                {
                    "title": "White hanging heart",
                    "category": "Home > Decoration",
                    "price": 2.95,
                    "attributes": {"colour": "white"},
                },
            ),
        ),
    ),
    ("/v1/items/{item_id}", "patch"): Call(
        "Change an item",
        answers.ItemAnswer,
        (*_BODY, Kind.UNKNOWN_ITEM, Kind.ITEMS_UNAVAILABLE),
        body=schemas.ItemPatch,
        parameters=(("item_id", "path", _ID),),
        examples=(("sold out", {"in_stock": False}), ("repriced", {"price": 1.95})),
    ),
    ("/v1/items/{item_id}", "delete"): Call(
        "Delete an item",
        None,
        (Kind.INVALID_FIELDS, Kind.ITEMS_UNAVAILABLE),
        status=204,
        parameters=(("item_id", "path", _ID),),
    ),
    ("/v1/identities:merge", "post"): Call(
        "Merge a visitor into a user",
        answers.MergeAnswer,
        (*_BODY, Kind.PEOPLE_UNAVAILABLE),
        body=schemas.MergeRequest,
        examples=(("log-in", {"visitor_id": "v-81", "user_id": "12583"}),),
    ),
    ("/v1/users/{user_id}", "get"): Call(
        "What is held of a user", answers.UserAnswer, _PERSON, parameters=(("user_id", "path", _ID),)
    ),
    ("/v1/users/{user_id}", "delete"): Call(
        "Erase a user", answers.ErasedAnswer, _PERSON, status=202, parameters=(("user_id", "path", _ID),)
    ),
    ("/v1/visitors/{visitor_id}", "get"): Call(
        "What is held of a visitor", answers.VisitorAnswer, _PERSON, parameters=(("visitor_id", "path", _ID),)
    ),
    ("/v1/visitors/{visitor_id}", "delete"): Call(
        "Erase a visitor", answers.ErasedAnswer, _PERSON, status=202, parameters=(("visitor_id", "path", _ID),)
    ),
    ("/livez", "get"): Call("Is it alive?", answers.Liveness, ()),
    ("/readyz", "get"): Call("Is it ready?", answers.Readiness, (Kind.NOT_READY,)),
    ("/metrics", "get"): Call("How is it doing?", None, ()),
}


HANDLERS = {
    **routes.HANDLERS,
    **shelves.HANDLERS,
    **item_import.HANDLERS,
    **items.HANDLERS,
    **people.HANDLERS,
    **operations.HANDLERS,
}
"""Everything that is documented, in the order in which addresses are tried."""


def document(limits: Edge) -> dict[str, Any]:
    """The whole document, with *limits* as its bounds."""
    paths: dict[str, Any] = {}
    for (path, method), handler in HANDLERS.items():
        shown = path.replace(":path", "")
        paths.setdefault(shown, {})[method] = {
            "description": inspect.getdoc(handler),
            **_operation(CALLS[shown, method]),
        }
    for about in ("similar", "bought-together"):
        _bound(paths[f"/v1/items/{{item_id}}/{about}"]["get"], limits)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "description": DESCRIPTION},
        "paths": paths,
        "components": {"schemas": _schemas(limits)},
    }


def _operation(call: Call) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": call.summary}
    if call.parameters:
        operation["parameters"] = [
            {"name": name, "in": place, "required": place == "path", "schema": dict(schema)}
            for name, place, schema in call.parameters
        ]
    if call.body is not None:
        examples = {name: {"value": value} for name, value in call.examples}
        content = {call.body_type: {"schema": _reference(call.body), "examples": examples}}
        operation["requestBody"] = {"required": True, "content": content}
    answers_by_status: dict[str, Any] = {str(call.status): _success(call)}
    if call.may_create:
        answers_by_status["201"] = _success(call) | {"description": "The shop did not have it."}
    for kind in (*call.problems, Kind.INTERNAL):
        content = {MEDIA_TYPE: {"schema": _reference(answers.ProblemDocument)}}
        known = answers_by_status.setdefault(str(kind.status), {"description": kind.title, "content": content})
        if kind.title not in known["description"]:
            known["description"] += f"; {kind.title}"
        if kind.status == Kind.OVERLOADED.status:
            known["headers"] = _RETRY_AFTER
    return {**operation, "responses": answers_by_status}


def _success(call: Call) -> dict[str, Any]:
    if call.status == 204:
        return {"description": "done; or it was so before"}
    if call.answer is None:
        return {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}
    content = {"application/json": {"schema": _reference(call.answer)}}
    return {"description": call.answer.__doc__, "content": content}


def _schemas(limits: Edge) -> dict[str, Any]:
    models = {model for call in CALLS.values() for model in (call.body, call.answer) if model is not None}
    models.add(answers.ProblemDocument)
    in_order = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in in_order], ref_template=_REFERENCE)
    found: dict[str, Any] = definitions["$defs"]
    for shelf in ("RecommendationRequest", "Shelf"):
        found[shelf]["properties"]["count"]["maximum"] = limits.max_count
    found["RankingRequest"]["properties"]["item_ids"]["maxItems"] = limits.max_ranking_items
    found["EventsRequest"]["properties"]["events"]["maxItems"] = limits.max_events
    return found


def _bound(operation: dict[str, Any], limits: Edge) -> None:
    for parameter in operation["parameters"]:
        if parameter["name"] == "count":
            parameter["schema"]["maximum"] = limits.max_count


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}

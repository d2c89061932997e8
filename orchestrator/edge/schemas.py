"""
What a caller may send, field by field: strict types, no unknown fields, every length bounded.

Limits that belong to the settings (how many items, how many events) are checked in `translate` and written into
the OpenAPI document from there; limits here are the format's own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

MAX_ID = 256
NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]+$"
"""Control characters in an id are an encoding accident or an attack on whoever prints it."""

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID, pattern=NO_CONTROL)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_ID, pattern=NO_CONTROL)]
CategoryPath = Annotated[
    str, Field(min_length=1, max_length=1024, pattern=NO_CONTROL, description="path or beginning of one: A > B > C")
]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
EventTypeName = Literal["view", "click", "impression", "add_to_cart", "remove_from_cart", "purchase"]


class Strict(BaseModel):
    """No coercion, no unknown fields: a typo is told, not ignored."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Context(Strict):
    """What the shopper looks at now. Unknown items come back in `missing_item_ids`."""

    item_ids: list[Id] = Field(
        default_factory=list, max_length=100, description="items of the page, the most important last"
    )
    cart_item_ids: list[Id] = Field(default_factory=list, max_length=200, description="the basket, oldest first")
    category: CategoryPath | None = Field(default=None, description="needed by the placement `category`")
    device: Annotated[str, Field(min_length=1, max_length=64, pattern=NO_CONTROL)] | None = None


class Filter(Strict):
    """What may be in the slate; an absent or empty field allows everything."""

    categories: list[CategoryPath] = Field(default_factory=list, max_length=100)
    brands: list[Name] = Field(default_factory=list, max_length=100)
    price_min: Price | None = None
    price_max: Price | None = None
    in_stock: bool | None = None
    attributes: dict[Name, Annotated[list[Name], Field(min_length=1, max_length=100)]] = Field(
        default_factory=dict,
        max_length=20,
        description="name → allowed values; all names must match",
        # Else names that no pattern matches would be allowed with any value.
        json_schema_extra={"additionalProperties": False, "propertyNames": {"minLength": 1, "maxLength": MAX_ID}},
    )

    @field_validator("price_max")
    @classmethod
    def _is_not_below_minimum(cls, price_max: float | None, info: ValidationInfo) -> float | None:
        price_min = info.data.get("price_min")
        if price_max is not None and price_min is not None and price_max < price_min:
            raise PydanticCustomError("price_range", f"must be at least price_min = {price_min:g}")
        return price_max


# Shared, not copied: pydantic deep-copies defaults that are models or lists, which was a fifth of the
# profile of a request that gives neither.
_NO_CONTEXT = Context()
NO_FILTER = Filter()


class Shopper(Strict):
    """Who asks. All absent: an anonymous shopper, who gets what is popular here."""

    user_id: Id | None = Field(default=None, description="the shop's id of a logged-in shopper; wins over visitor_id")
    visitor_id: Id | None = Field(default=None, description="the shop's id of a browser, stable across log-in")
    session_id: Id | None = None


class Shelf(Strict):
    """What a shelf is filled with."""

    # What pydantic cannot say of two fields at once; `translate` holds it.
    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"placement": {"const": "category"}}},
            "then": {
                "required": ["context"],
                "properties": {"context": {"required": ["category"], "properties": {"category": {"type": "string"}}}},
            },
        }
    )

    placement: Literal["home", "item", "cart", "category"]
    context: Context = Field(default_factory=lambda: _NO_CONTEXT)
    count: int = Field(default=20, ge=1, description="a shorter slate is possible when fewer items are allowed")
    filter: Filter = Field(default_factory=lambda: NO_FILTER)
    exclude_item_ids: list[Id] = Field(default_factory=list, max_length=1000)
    diversity: Literal["off", "low", "medium", "high"] = Field(
        default="off", description="how little alike the items are to be; `off` leaves the order as it is"
    )


class RecommendationRequest(Shelf, Shopper):
    """A shelf to fill."""

    explain: bool = Field(default=False, description="adds `reason` to every item, bypasses the cache")
    budget_ms: float | None = Field(
        default=None, ge=5, le=10_000, allow_inf_nan=False, description="may only lower the service's own budget"
    )


MAX_SHELVES = 10
"""Shelves of a page. Measured: ten of twenty items took 57 ms at the median over 50,000 items, on two cores that others
used, too (docs/performance.md); twice as many would not be made within the 100 ms of an answer."""


class PageRequest(Shopper):
    """The shelves of one page, for one shopper."""

    placements: list[Shelf] = Field(
        min_length=1, max_length=MAX_SHELVES, description="from the top; who stands further up chooses first"
    )
    explain: bool = Field(default=False, description="adds `reason` to every item of every slate, bypasses the cache")
    budget_ms: float | None = Field(
        default=None, ge=5, le=10_000, allow_inf_nan=False, description="for all of them; as of one slate"
    )


class RankingRequest(Shopper):
    """The caller's own list, to be put in personal order."""

    item_ids: list[Id] = Field(min_length=1)
    context: Context = Field(default_factory=lambda: _NO_CONTEXT)
    explain: bool = False
    budget_ms: float | None = Field(default=None, ge=5, le=10_000, allow_inf_nan=False)


class SimilarParameters(Strict):
    """Query string of /v1/items/{item_id}/similar."""

    count: int = Field(default=20, ge=1)
    user_id: Id | None = None
    visitor_id: Id | None = None


class ItemAddress(Strict):
    """The item of /v1/items/{item_id}."""

    item_id: Id


Title = Annotated[str, Field(min_length=1, max_length=1024, pattern=NO_CONTROL)]
Description = Annotated[str, Field(max_length=20_000)]
AttributeValue = Annotated[str, Field(max_length=1024)] | bool | int | float
# Else names that no pattern matches would be allowed with any value.
_NAMES: dict[str, Any] = {"additionalProperties": False, "propertyNames": {"minLength": 1, "maxLength": MAX_ID}}
Attributes = Annotated[dict[Name, AttributeValue], Field(json_schema_extra=_NAMES)]
AttributeChanges = Annotated[dict[Name, AttributeValue | None], Field(json_schema_extra=_NAMES)]


class ItemDocument(Strict):
    """An item, whole; a field that is left out is not known of it."""

    title: Title
    description: Description | None = None
    category: CategoryPath | None = Field(default=None, description="full path: A > B > C")
    brand: Name | None = None
    price: Price | None = None
    in_stock: bool | None = Field(default=None, description="not known counts as yes")
    attributes: Attributes | None = Field(
        default=None,
        max_length=100,
        description="filters compare values as text; `parent` names what it is a variant of",
    )


class ItemPatch(Strict):
    """What changes of an item, as RFC 7396 has it: null removes a field, attributes are merged name by name."""

    title: Annotated[
        Title | None, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1024, "pattern": NO_CONTROL})
    ] = None
    description: Description | None = None
    category: CategoryPath | None = None
    brand: Name | None = None
    price: Price | None = None
    in_stock: bool | None = None
    attributes: AttributeChanges | None = Field(default=None, max_length=100)

    @field_validator("title")
    @classmethod
    def _stays(cls, title: str | None) -> str:
        if title is None:
            raise PydanticCustomError("title", "must not be removed: every item has one")
        return title


class ItemLine(ItemDocument):
    """One line of an import."""

    item_id: Id


def _to_microseconds(value: object) -> int | None:
    """An RFC 3339 moment or seconds since the epoch → microseconds since the epoch, UTC."""
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is None:
        raise PydanticCustomError(
            "timestamp", "should be a moment with its zone, 2026-03-01T12:00:00Z, or seconds since 1970"
        )
    if seconds < 0:
        raise PydanticCustomError("timestamp", "must not lie before 1970")
    if seconds >= MILLISECONDS_FROM:
        raise PydanticCustomError("timestamp", "lies in the far future; numbers are seconds, not milliseconds")
    return round(seconds * 1_000_000)


def _seconds(value: object) -> float | None:
    """Seconds since the epoch; None for what is no moment, or one without a time zone."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.timestamp() if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


MILLISECONDS_FROM = 1e11
"""Seconds from here on (the year 5138) are milliseconds by mistake: today's are 1.7e12."""

Timestamp = Annotated[
    int,
    BeforeValidator(_to_microseconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "number", "minimum": 0, "exclusiveMaximum": MILLISECONDS_FROM},
            ]
        },
        mode="validation",
    ),
]


class EventDocument(Shopper):
    """What a shopper did; user_id or visitor_id is needed. Sending the same event_id again changes nothing."""

    # `receive_events` holds it.
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}} for name in ("user_id", "visitor_id")
            ]
        }
    )

    event_id: Id = Field(description="yours, unique: makes a repeated call harmless")
    event_type: EventTypeName
    item_id: Id | None = Field(default=None, description="an item we do not have is logged, not put into the history")
    timestamp: Timestamp | None = Field(default=None, description="RFC 3339, or seconds since 1970; default: now")
    quantity: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)
    price: Price | None = Field(default=None, description="of one piece")
    recommendation_id: Id | None = Field(default=None, description="of the slate the shopper acted upon")
    position: int | None = Field(default=None, ge=0, le=10_000, description="rank in that slate")


class EventsRequest(Strict):
    """A batch of events; each stands alone, a bad one does not hold back the others."""

    events: list[EventDocument] = Field(min_length=1)


class MergeRequest(Strict):
    """A visitor who turned out to be a user."""

    visitor_id: Id
    user_id: Id


class UserPath(Strict):
    """The path of /v1/users/{user_id}."""

    user_id: Id


class VisitorPath(Strict):
    """The path of /v1/visitors/{visitor_id}."""

    visitor_id: Id

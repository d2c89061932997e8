"""
The shapes of answers, for the OpenAPI document only: nothing is built from these on the way of a request.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.edge.schemas import ItemDocument


class Answer(BaseModel):
    """Closed, so that a test finds a field that is sent but not documented."""

    model_config = ConfigDict(extra="forbid")


class Properties(Answer):
    """What a page shows of the item; absent where the shop does not say."""

    model_config = ConfigDict(extra="allow")
    title: str | None = None
    category: str | None = None
    brand: str | None = None
    price: float | None = None


class Reason(Answer):
    """Why the item is here."""

    code: Literal["several_sources", "one_source", "popular", "pinned", "listed"]
    ranks: dict[str, int] = Field(description="list (a source, or `fused`) → rank from 1")
    rules: list[str] = Field(
        description="names of the shop's rules that moved or pinned it; `fatigue`: shown before and not touched"
    )


class Item(Answer):
    """One slot."""

    id: str
    rank: int = Field(ge=1)
    score: float | None = Field(description="of the last stage that scored; comparable inside one slate only")
    sources: list[str] = Field(
        description="who proposed it, its best rank first; `popular` fills what they left open, `pinned` was put there"
    )
    properties: Properties
    propensity: float | None = Field(
        default=None, description="with exploration only: probability that this item is shown in this slot; absent is 1"
    )
    reason: Reason | None = Field(default=None, description="with `explain` only")


class SourceQuality(Answer):
    """What one candidate source did for this slate."""

    name: str
    status: Literal["ok", "timeout", "error", "open", "shed", "skipped", "cached"]
    ms: float
    candidates: int
    kept: int = Field(description="items of the slate it proposed")


class Quality(Answer):
    """How good the answer is, honestly."""

    level: Literal["full", "partial", "stale", "popular"]
    rung: Literal["full", "lean", "narrow", "no_rerank", "stale", "popular"] = Field(
        description="step of the degradation ladder this answer stands on; `full` for a shopper nobody knows yet"
    )
    sources: list[SourceQuality]
    degraded: list[str] = Field(
        description="what is missing: a source, `user`, `rerank`, `cache`; all of it when `admission` is named"
    )
    from_cache: bool


class SlateAnswer(Answer):
    """The ordered answer. Shorter than asked when fewer items are allowed."""

    recommendation_id: str = Field(description="send it back with the events this slate leads to")
    items: list[Item]
    model_versions: dict[str, str]
    quality: Quality
    watermark: int = Field(description="number of this shopper's events that the slate reflects")
    missing_item_ids: list[str] = Field(description="ids you sent that this shop does not have")
    took_ms: float


class PageAnswer(Answer):
    """A slate for each placement, in the order asked for; no item is in two of them."""

    slates: list[SlateAnswer]
    took_ms: float


class RejectedEvent(Answer):
    """An event that was refused."""

    index: int
    field: str
    message: str


class EventsAnswer(Answer):
    """What became of the batch."""

    accepted: int
    duplicates: int = Field(description="seen before, changed nothing")
    rejected: list[RejectedEvent]
    watermark: int | None = Field(description="the shopper's; null when the batch was about several")


class ItemAnswer(Answer):
    """An item as it is now."""

    item_id: str
    version: int = Field(description="number of its last change; 0: as the data directory has it")
    state: Literal["known", "waiting"] = Field(description="`waiting`: new, is recommendable in a moment")
    item: ItemDocument


class RejectedLine(Answer):
    """A line of an import that was refused."""

    line: int = Field(ge=1)
    field: str
    message: str


class ImportAnswer(Answer):
    """What became of an import."""

    accepted: int
    rejected_count: int
    rejected: list[RejectedLine] = Field(description="the first of them")
    took_ms: float


class MergeAnswer(Answer):
    """What the merge did."""

    is_new: bool = Field(description="false: this visitor belonged to this user already, nothing was changed")
    moved: int = Field(description="entries of the visitor's history and impressions that are the user's now")
    watermark: int = Field(description="the user's, afterwards")


class HeldEvent(Answer):
    """One entry of a history."""

    item_id: str | None = Field(description="null: an item this process does not know yet")
    event_type: Literal["view", "click", "impression", "add_to_cart", "remove_from_cart", "purchase"] | None
    timestamp: str


class RememberedSlate(Answer):
    """A slate in the cache; which placement it is for is kept as a digest only."""

    made_at: str
    item_ids: list[str | None]


class Held(Answer):
    """All that the online store holds of one person."""

    features: dict[str, Any] = Field(description="view__feature → value, of users; what the serving model reads")
    history: list[HeldEvent] = Field(description="what they did, newest first, 200 at most")
    shown: list[HeldEvent] = Field(description="what they were shown, newest first, 200 at most")
    watermark: int = Field(description="events accepted")
    visitor_ids: list[str] = Field(description="of a user: visitors merged into them, the latest last")
    merged_into: str | None = Field(description="of a visitor: the user they were merged into")
    slates: list[RememberedSlate]
    exported_at: str


class UserAnswer(Held):
    """All that the online store holds of a user. The event log is files: docs/api.md says how to ask it."""

    user_id: str


class VisitorAnswer(Held):
    """All that the online store holds of a visitor."""

    visitor_id: str


class ErasedNumbers(Answer):
    """What was found and is gone."""

    features: int = Field(description="1 when there were any")
    history: int
    shown: int
    slates: int
    watermark: int
    identities: int = Field(description="visitors that were theirs, or the user a visitor was merged into")


class ErasedAnswer(Answer):
    """What is gone with this answer, and what follows."""

    erased: ErasedNumbers
    redaction: str = Field(description="names the work that is left, in the log of ingestion")
    later: list[Literal["event_stream", "event_log", "training_data"]]


class FieldProblem(Answer):
    """A field at fault."""

    field: str
    message: str


class ProblemDocument(Answer):
    """RFC 9457."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []
    request_id: str


class Liveness(Answer):
    """The process answers."""

    status: Literal["alive"]


class Readiness(Answer):
    """Ready, and how the dependencies are."""

    status: Literal["ready"]
    checks: dict[str, str]

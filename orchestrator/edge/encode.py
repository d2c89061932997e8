"""
Slate → the bytes of the answer, with orjson and no models in between.

The shape is written a second time in `answers`, for the OpenAPI document; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import orjson

from orchestrator.core.model import Query, Slate, SlateItem, StageList
from orchestrator.core.selection import PINNED, POPULAR
from orchestrator.ports import Catalogue

_SOURCE_PREFIX = "source:"
"""Lists behind a slate that are a source's own proposals carry this before the source's name."""

Ranks = Mapping[str, Mapping[int, int]]


def slate_body(
    query: Query,
    slate: Slate,
    catalogue: Catalogue,
    missing: Iterable[str],
    took_ms: float,
    ranks: Ranks | None = None,
) -> bytes:
    """
    The answer of every endpoint that answers with items.

    missing: ids the caller sent that this shop does not have.
    ranks: list name → key → rank from 1; given when the caller asked to explain.
    """
    items = []
    touched = dict(slate.touched)
    for rank, item in enumerate(slate.items, 1):
        document: dict[str, object] = {
            "id": catalogue.id_of(item.key),
            "rank": rank,
            "score": item.score,
            "sources": item.sources,
            "properties": catalogue.properties(item.key),
        }
        if item.propensity < 1:
            document["propensity"] = item.propensity
        if ranks is not None:
            document["reason"] = reason(item, ranks, touched.get(item.key, ()))
        items.append(document)
    sources = [
        {"name": s.name, "status": s.status, "ms": round(s.took_ms, 3), "candidates": s.candidates, "kept": s.kept}
        for s in slate.sources
    ]
    answer = {
        "recommendation_id": query.recommendation_id,
        "items": items,
        "model_versions": dict(slate.model_versions),
        "quality": {
            "level": slate.level.value,
            "rung": slate.rung.name.lower(),
            "sources": sources,
            "degraded": slate.degraded,
            "from_cache": slate.from_cache,
        },
        "watermark": slate.watermark,
        "missing_item_ids": list(missing),
        "took_ms": took_ms,
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def ranks_of(lists: Sequence[StageList]) -> Ranks:
    """Where each list behind a slate had each item: list name → key → rank from 1."""
    return {
        one.stage.removeprefix(_SOURCE_PREFIX): {key: rank for rank, key in enumerate(one.keys.tolist(), 1)}
        for one in lists
    }


def reason(item: SlateItem, ranks: Ranks, touched_by: Sequence[str] = ()) -> dict[str, object]:
    """
    Why *item* is in the slate: a short code, its rank in every list that had it, and which rules touched it.

    Codes: `several_sources`, `one_source`, `popular` (fills what models left open), `pinned` (a rule put it there and
    no source proposed it), `listed` (the caller's own list had it and no source scored it).
    """
    if item.sources in ((POPULAR,), (PINNED,)):
        code = item.sources[0]
    elif not item.sources:
        code = "listed"
    else:
        code = "several_sources" if len(item.sources) > 1 else "one_source"
    found_at = {name: keys[item.key] for name, keys in ranks.items() if item.key in keys}
    return {"code": code, "ranks": found_at, "rules": list(touched_by)}

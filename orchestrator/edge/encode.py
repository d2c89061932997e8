"""
Slate → the bytes of the answer, with orjson and no models in between.

The shape is written a second time in `answers`, for the OpenAPI document; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import orjson

from orchestrator.core.model import RUNG_NAMES, Query, Slate, SlateItem, StageList
from orchestrator.core.selection import PINNED, POPULAR
from orchestrator.ports import Catalogue

_SOURCE_PREFIX = "source:"
"""Lists behind a slate that are a source's own proposals carry this before the source's name."""

MAX_SAID = 50_000
"""Items whose words are held. Judged: 20 MB at most; a larger shop shows few of its items most of the time."""

Ranks = Mapping[str, Mapping[int, int]]


def slate_body(
    query: Query,
    slate: Slate,
    words: ItemWords,
    missing: Iterable[str],
    took_ms: float,
    ranks: Ranks | None = None,
) -> bytes:
    """
    The answer of every endpoint that answers with items.

    missing: ids the caller sent that this shop does not have.
    ranks: list name → key → rank from 1; given when the caller asked to explain.
    """
    reasons = None
    if ranks is not None:
        touched = dict(slate.touched)
        reasons = [reason(item, ranks, touched.get(item.key, ())) for item in slate.items]
    sources = [
        {"name": s.name, "status": s.status, "ms": round(s.took_ms, 3), "candidates": s.candidates, "kept": s.kept}
        for s in slate.sources
    ]
    answer = {
        "recommendation_id": query.recommendation_id,
        "items": orjson.Fragment(words.items(slate, reasons)),
        "model_versions": dict(slate.model_versions),
        "quality": {
            "level": slate.level._value_,
            "rung": RUNG_NAMES[slate.rung],
            "sources": sources,
            "degraded": slate.degraded,
            "from_cache": slate.from_cache,
        },
        "watermark": slate.watermark,
        "missing_item_ids": list(missing),
        "took_ms": took_ms,
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


class ItemWords:
    """
    What answers say of items whatever slate they are in, as JSON: made once, and all anew when an item has changed.

    Slates are remembered with keys only, so that a price or a title is always that of now.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._n_changes = -1
        self._said: dict[int, tuple[bytes, bytes]] = {}
        self._sources: dict[tuple[str, ...], bytes] = {}

    def items(self, slate: Slate, reasons: Sequence[Mapping[str, object]] | None = None) -> bytes:
        """The slots of *slate*, as a JSON list; with *reasons*, one for each."""
        said = self._current()
        parts = [b"["]
        # One call for all of them; no number has a comma in it.
        scores = _json([item.score for item in slate.items])[1:-1].split(b",")
        for rank, (key, _, sources, propensity) in enumerate(slate.items, 1):
            identity, properties = said.get(key) or self._say(key)
            by = self._sources.get(sources) or self._say_sources(sources)
            parts += (identity, b'%d,"score":' % rank, scores[rank - 1], by, properties, b"},")
            if propensity < 1:
                parts[-1:] = (b',"propensity":', _json(propensity), b"},")
            if reasons is not None:
                parts[-1:] = (b',"reason":', _json(reasons[rank - 1]), b"},")
        parts[-1] = b"}]" if slate.items else b"[]"
        return b"".join(parts)

    def _current(self) -> dict[int, tuple[bytes, bytes]]:
        now = self.catalogue.n_changes
        if now != self._n_changes or len(self._said) >= MAX_SAID:
            self._n_changes, self._said = now, {}
        return self._said

    def _say(self, key: int) -> tuple[bytes, bytes]:
        identity = b'{"id":%b,"rank":' % orjson.dumps(self.catalogue.id_of(key))
        said = self._said[key] = (identity, _json(self.catalogue.properties(key)))
        return said

    def _say_sources(self, sources: tuple[str, ...]) -> bytes:
        said = self._sources[sources] = b',"sources":%b,"properties":' % orjson.dumps(sources)
        return said

    def __repr__(self) -> str:
        return f"<ItemWords of {len(self._said)}, {self._n_changes} changes>"


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


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

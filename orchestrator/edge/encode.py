"""
Slate → the bytes of the answer, with orjson and no models in between.

The shape is written a second time in `answers`, for the OpenAPI document; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import orjson

from orchestrator.core.model import RUNG_NAMES, Level, Query, Slate, SlateItem, StageList
from orchestrator.core.report import keys_of
from orchestrator.core.selection import PINNED, POPULAR
from orchestrator.core.unread import said_by
from orchestrator.core.wording import json_of, say_pairs, say_slots, say_sources
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
    # Joined and not encoded: all but a few numbers of a remembered slate is text already.
    return b"".join(
        (
            b'{"recommendation_id":',
            orjson.dumps(query.recommendation_id),
            b',"items":',
            words.items(slate, reasons),
            b',"model_versions":',
            said_by(slate.model_versions, say_pairs),
            b',"quality":{"level":"',
            _LEVELS[slate.level],
            b'","rung":"',
            _RUNGS[slate.rung],
            b'","sources":',
            said_by(slate.sources, say_sources),
            b',"degraded":',
            orjson.dumps(slate.degraded),
            b',"from_cache":true},"watermark":' if slate.from_cache else b',"from_cache":false},"watermark":',
            b"%d" % slate.watermark,
            b',"missing_item_ids":',
            orjson.dumps(list(missing)),
            b',"took_ms":',
            orjson.dumps(took_ms),
            b"}",
        )
    )


_LEVELS = {level: level.value.encode() for level in Level}
_RUNGS = {rung: name.encode() for rung, name in RUNG_NAMES.items()}


class ItemWords:
    """
    What answers say of items whatever slate they are in, as JSON: made once, and anew when the item has changed.

    Slates are remembered with keys only, so that a price or a title is always that of now.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._n_changes = catalogue.n_changes
        self._said = _Said(catalogue)

    def items(self, slate: Slate, reasons: Sequence[Mapping[str, object]] | None = None) -> bytes:
        """The slots of *slate*, as a JSON list; with *reasons*, one for each."""
        said = said_by(slate.items, say_slots) if reasons is None else say_slots(slate.items, reasons)
        if not slate.items:
            return said
        return said % tuple(chain.from_iterable(map(self._current().__getitem__, keys_of(slate.items).tolist())))

    def _current(self) -> _Said:
        now, said = self.catalogue.n_changes, self._said
        if now != self._n_changes:
            changed = self.catalogue.changed_since(self._n_changes)
            self._n_changes = now
            if changed is None:
                said.clear()
            else:
                for key in changed:
                    said.pop(key, None)
        if len(said) >= MAX_SAID:
            said.clear()
        return said

    def __repr__(self) -> str:
        return f"<ItemWords of {len(self._said)}, {self._n_changes} changes>"


class _Said(dict[int, tuple[bytes, bytes]]):
    """Key → what fills the two gaps of its slot (`wording`); looking for one that is not there makes it."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__()
        self._catalogue = catalogue

    def __missing__(self, key: int) -> tuple[bytes, bytes]:
        identity = b'{"id":%b,"rank":' % orjson.dumps(self._catalogue.id_of(key))
        said = self[key] = (identity, json_of(self._catalogue.properties(key)))
        return said


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

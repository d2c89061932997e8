"""
What an answer says of a slate whoever asks and whenever: JSON text, made once, stored with the slate, and read again.

Nothing here knows what an item is called or costs today: a slot is said with two gaps (`%b`) for that, filled by
whoever answers. The rule: of each kind there is one that says and one that reads, and reading what was said gives what
it was said of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from orchestrator.core.model import Int32, SlateItem, SourceReport

DECIMALS = 3
"""Of milliseconds. What reports them rounds them so (`core.report`)."""

_IDENTITY, _PROPERTIES = b'{"rank":', b"{}"
"""What fills the gaps where only the slots are wanted."""


def json_of(value: object) -> bytes:
    """*value* as JSON; numpy's numbers are numbers."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def say_slots(items: Sequence[SlateItem], reasons: Sequence[Mapping[str, object]] | None = None) -> bytes:
    """
    A JSON list with two gaps for each of *items*: what begins it, up to and with `"rank":`, and its properties.

    reasons: one for each item, where the caller asked to explain.
    """
    if not items:
        return b"[]"
    # One call for all of them; no number has a comma in it.
    scores = json_of([item.score for item in items])[1:-1].split(b",")
    sources = {item.sources: b',"sources":' + _escaped(item.sources) + b',"properties":%b' for item in items}
    slots = []
    for rank, item in enumerate(items, 1):
        slot = b'%%b%d,"score":' % rank + scores[rank - 1] + sources[item.sources]
        if item.propensity < 1:
            slot += b',"propensity":' + json_of(item.propensity)
        if reasons is not None:
            slot += b',"reason":' + _escaped(reasons[rank - 1])
        slots.append(slot)
    return b"[" + b"},".join(slots) + b"}]"


def read_slots(said: bytes, keys: Int32) -> tuple[SlateItem, ...]:
    """The slots of `say_slots` without reasons; *keys* (n,) are not in the text."""
    found = orjson.loads(said % ((_IDENTITY, _PROPERTIES) * len(keys)))
    proposers: dict[tuple[str, ...], tuple[str, ...]] = {}
    slots = []
    for key, one in zip(keys.tolist(), found, strict=True):
        sources = tuple(one["sources"])
        # JSON has no word for what is no number.
        score = float("nan") if one["score"] is None else float(one["score"])
        slots.append(SlateItem(key, score, proposers.setdefault(sources, sources), float(one.get("propensity", 1.0))))
    return tuple(slots)


def say_sources(sources: Sequence[SourceReport]) -> bytes:
    """A JSON list."""
    return json_of(
        [
            {
                "name": one.name,
                "status": one.status,
                "ms": round(one.took_ms, DECIMALS),
                "candidates": one.candidates,
                "kept": one.kept,
            }
            for one in sources
        ]
    )


def read_sources(said: bytes) -> tuple[SourceReport, ...]:
    """What `say_sources` said, to the microsecond."""
    return tuple(
        [
            SourceReport(one["name"], one["status"], float(one["ms"]), one["candidates"], one["kept"])
            for one in orjson.loads(said)
        ]
    )


def say_pairs(pairs: Sequence[tuple[str, object]]) -> bytes:
    """A JSON object: name → value; no name twice."""
    return json_of(dict(pairs))


def read_pairs(said: bytes) -> tuple[tuple[str, Any], ...]:
    """What `say_pairs` said, in its order."""
    return tuple(orjson.loads(said).items())


def _escaped(value: object) -> bytes:
    return json_of(value).replace(b"%", b"%%")

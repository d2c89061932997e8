"""
What a fault proxy can do to a connection, as values, and how they travel on the control socket. Pure.

A toxic acts on one direction of the bytes (`down`: from the service to its caller) or on whole connections.
Its *share* is the part of chunks, or of connections, that it touches; chance is the proxy's seeded generator.

    ToxicError   a command names no toxic, or gives a number that cannot be; the message says which and what is known
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class ToxicError(ValueError):
    """A toxic that does not exist or cannot be; the message is sent back over the control socket."""


class Kind(Enum):
    """Names as on the wire. The first group acts on bytes, the second on connections."""

    LATENCY = "latency"  # `ms`, `jitter_ms`: each chunk arrives later, order kept
    BANDWIDTH = "bandwidth"  # `bytes_per_s`
    HANG = "hang"  # nothing passes, connections stay: what SIGSTOP looks like, for one direction
    SLICER = "slicer"  # `bytes` at a time, `ms` between: slow drip
    LIMIT_DATA = "limit_data"  # after `bytes` the connection is closed: a truncated answer
    CORRUPT = "corrupt"  # one byte of a chunk is flipped
    RESET = "reset"  # RST when a chunk passes; with `now`, the open ones at once
    HALF_CLOSE = "half_close"  # the receiver is told that no more will come; the other direction stays open
    SLOW_CLOSE = "slow_close"  # `ms` until the end of a connection is passed on

    REFUSE = "refuse"  # nobody listens: ECONNREFUSED; open connections stay


class Direction(Enum):
    """Which way bytes go: `up` to the service, `down` back to its caller."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Toxic:
    """
    One thing to do to one direction.

    Args:
        share: of chunks it touches (of new connections for `half_close`), in [0, 1].
        ms: delay (latency), pause between slices (slicer), wait before closing (slow_close).
        jitter_ms: latency is uniform in `ms ± jitter_ms`, not below 0.
        bytes: slice (slicer) or allowance (limit_data).
        bytes_per_s: bandwidth.
        now: for reset: also every connection that is open.
    """

    kind: Kind
    direction: Direction = Direction.DOWN
    share: float = 1.0
    ms: float = 0.0
    jitter_ms: float = 0.0
    bytes: int = 0
    bytes_per_s: float = 0.0
    now: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ToxicError(f"{self.kind.value}.share = {self.share!r} is no share; give one in [0, 1]")
        if self.ms < 0 or self.jitter_ms < 0:
            raise ToxicError(f"{self.kind.value}: ms and jitter_ms must not be negative")
        if self.kind is Kind.BANDWIDTH and self.bytes_per_s <= 0:
            raise ToxicError("bandwidth needs bytes_per_s above 0; to let nothing through use hang")
        if self.kind is Kind.SLICER and self.bytes < 1:
            raise ToxicError("slicer needs bytes, at least 1 at a time")

    def document(self) -> dict[str, Any]:
        """As it travels: the kind and what differs from the defaults."""
        plain = {k: v.value if isinstance(v, Enum) else v for k, v in asdict(self).items()}
        return {k: v for k, v in plain.items() if k in ("kind", "direction") or v != _DEFAULTS[k]}


_DEFAULTS: Mapping[str, Any] = {"share": 1.0, "ms": 0.0, "jitter_ms": 0.0, "bytes": 0, "bytes_per_s": 0.0, "now": False}


def parse(documents: object) -> tuple[Toxic, ...]:
    """
    The toxics of a `set` command.

    Raises:
        ToxicError: not a list of objects, an unknown kind, direction or field, a number out of range.
    """
    if not isinstance(documents, Sequence) or isinstance(documents, str):
        raise ToxicError('toxics should be a list: [{"kind": "latency", "ms": 50}]')
    return tuple(_one(document) for document in documents)


def both_ways(toxic: Toxic) -> tuple[Toxic, Toxic]:
    """*toxic* on either direction."""
    fields = {name: getattr(toxic, name) for name in _DEFAULTS}
    return Toxic(toxic.kind, Direction.UP, **fields), Toxic(toxic.kind, Direction.DOWN, **fields)


def find(toxics: Iterable[Toxic], kind: Kind, direction: Direction) -> Toxic | None:
    """The last of *kind* in *direction*, which overrules those before it."""
    found = None
    for toxic in toxics:
        if toxic.kind is kind and toxic.direction is direction:
            found = toxic
    return found


def _one(document: object) -> Toxic:
    if not isinstance(document, Mapping):
        raise ToxicError(f"a toxic should be an object, found {document!r:.60}")
    fields = dict(document)
    try:
        kind = Kind(fields.pop("kind", None))
        direction = Direction(fields.pop("direction", "down"))
    except ValueError as error:
        known = ", ".join(one.value for one in Kind)
        raise ToxicError(f"{error}; kinds: {known}; directions: up, down") from None
    for name, value in fields.items():
        if name not in _DEFAULTS:
            raise ToxicError(f"{kind.value} has no {name!r}; fields: {', '.join(_DEFAULTS)}")
        wanted = bool if name == "now" else (int, float)
        if not isinstance(value, wanted) or (name != "now" and isinstance(value, bool)):
            raise ToxicError(f"{kind.value}.{name} = {value!r:.40} is of the wrong type")
    return Toxic(kind, direction, **fields)

"""
What may be moved, how far, and why: every search space in one place.

The rule: a default is written where it is used, and stands in its own range; it is what every search begins with.
Ranges are judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.chassis.affinity import HALF_LIVES_D
from services.training.sources import Fusion, service

if TYPE_CHECKING:
    import optuna

Value = float | int | str
Space = tuple["Axis", ...]

_HALF_LIVES = (7.0, 14.0, 30.0, 60.0, 90.0, 180.0, 365.0)
"""Days. A week is the shortest rhythm of a shop, a year the longest; steps, because neighbours make no difference, and
equal half-lives are computed once."""


@dataclass(frozen=True, slots=True)
class Axis:
    """
    One parameter: `steps` in order, or everything from `low` to `high`.

    name  its path in the model's `Parameters`, parts joined by dots
    why   why it is worth moving, and why so far
    """

    name: str
    default: Value
    why: str
    steps: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False

    def suggest(self, trial: optuna.Trial) -> Value:
        """A value for *trial*; steps are numbered, so that the search knows which are neighbours."""
        if self.steps:
            return self.decoded(trial.suggest_int(self.name, 0, len(self.steps) - 1))
        return self.decoded(trial.suggest_float(self.name, self.low, self.high, log=self.is_log))

    def decoded(self, code: float) -> Value:
        """What is meant by what Optuna keeps; four digits, which no model can tell from more."""
        return self.steps[int(code)] if self.steps else float(f"{code:.4g}")

    def coded(self, value: Value) -> float | None:
        """What Optuna keeps where *value* is meant; None for a value outside."""
        if self.steps:
            return self.steps.index(value) if value in self.steps else None
        return float(value) if self.low <= float(value) <= self.high else None

    @property
    def range(self) -> str:
        """For people."""
        if self.steps:
            return ", ".join(_said(step) for step in self.steps)
        return f"{_said(self.low)} … {_said(self.high)}{', logarithmic' if self.is_log else ''}"


def of(name: str) -> Space:
    """The space of a model service: its own (`train.space`), ours for those we know, otherwise empty."""
    known = {"collaborative_filtering": _collaborative_filtering, "content_based": _content_based}
    if name == "reranking":
        return _reranking()
    own = getattr(service(name, "train"), "space", known.get(name, tuple))
    return tuple(own())


def of_fusion(sources: Sequence[str], fusion: Fusion) -> Space:
    """Weights beside that of the first source, and the method; what somebody wrote into their settings stays."""
    why = "beside the first source's: 0 gives it no say, above that one's it decides"
    free = [name for name in sources[1:] if name not in fusion.written]
    weights = [_real(f"weights.{name}", fusion.weights[name], 0.0, 1.5, why) for name in free]
    if fusion.method_is_written or len(sources) < 2:
        return tuple(weights)
    by = _ladder("method", fusion.method, ("z_score", "reciprocal_rank"), "scores, or places alone")
    return (*weights, by)


def defaults(space: Space) -> dict[str, Value]:
    """What every search begins with."""
    return {axis.name: axis.default for axis in space}


def nested(values: Mapping[str, Value]) -> dict[str, Any]:
    """Dotted names as the tables they stand for: {"a.b": 1} → {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        here = tree
        for part in path:
            here = here.setdefault(part, {})
        here[last] = value
    return tree


def flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Value]:
    """The other way round."""
    values: dict[str, Value] = {}
    for name, value in tree.items():
        values |= flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return values


def _collaborative_filtering() -> Space:
    from services.training import affinity

    own, close = service("collaborative_filtering", "train").Parameters(), affinity.Parameters()
    learnt = "how long an event teaches"
    history = "how long a shopper's own event counts"
    return (
        # Of nine trials on the embedded shop those with 128 took several times as long, and the best had 32.
        _ladder("dimensions", own.dimensions, (16, 32, 64), "more tell more tastes apart, and cost their square"),
        _ladder("sweeps", own.sweeps, (4, 6, 10), "few leave the factors unfinished"),
        _real(
            "unobserved_weight",
            own.unobserved_weight,
            0.02,
            3.0,
            "what not looking says; a view says 1",
            is_log=True,
        ),
        _real("regularisation", own.regularisation, 3e-4, 0.1, "against few events", is_log=True),
        _ladder("frequency_exponent", own.frequency_exponent, (0.5, 0.75, 1.0), "how much more of it for who did much"),
        _ladder("half_life_days", own.half_life_days, _HALF_LIVES, "of the events that make factors"),
        _ladder("affinity.cosine_d", close.cosine_d, _HALF_LIVES, learnt),
        _ladder("affinity.linear_d", close.linear_d, _HALF_LIVES, learnt),
        _ladder("affinity.basket_d", close.basket_d, _HALF_LIVES[2:], learnt),
        _ladder("affinity.likeness_d", close.likeness_d, _HALF_LIVES[2:], learnt),
        _ladder("affinity.wants_d", close.wants_d, _HALF_LIVES[:5], "what those alike wanted lately"),
        _ladder("affinity.trending_d", close.trending_d, (3.0, *_HALF_LIVES[:3]), "what everybody wants lately"),
        _real("affinity.shrink", close.shrink, 0.3, 50.0, "what two in common are worth", is_log=True),
        _real("affinity.basket_shrink", close.basket_shrink, 0.5, 50.0, "the same of sessions", is_log=True),
        _real(
            "affinity.linear_ridge", close.linear_ridge, 2.0, 300.0, "grows with the events an item has", is_log=True
        ),
        _ladder("affinity.most_peers", close.most_peers, (50, 100, 200, 400), "few are noise, many are everybody"),
        *(
            _ladder(f"affinity.history_d.{name}", HALF_LIVES_D[name], _HALF_LIVES, history)
            for name in ("own", "cosine", "linear", "peers")
        ),
    )


def _content_based() -> Space:
    own = service("content_based", "train").Parameters()
    share = "share of an item's squared length, beside those of the other blocks"
    return (
        _real("text_weight", own.text_weight, 0.1, 1.0, share),
        _real("category_weight", own.category_weight, 0.0, 1.0, share),
        _real("brand_weight", own.brand_weight, 0.0, 0.5, share),
        _real("price_weight", own.price_weight, 0.0, 0.5, share),
        _ladder("half_life_days", own.half_life_days, (3.0, *_HALF_LIVES[:5]), "how long a shopper's own event counts"),
    )


def _reranking() -> Space:
    own = service("reranking", "train", "reranker").Parameters()
    trees = own.trees
    return (
        _real("learning_rate", own.learning_rate, 5e-4, 8e-3, "of the network", is_log=True),
        _ladder("epochs", own.epochs, (3, 5, 8, 12), "few leave it unfinished, many learn by heart"),
        _real("dropout", own.dropout, 0.0, 0.4, "against learning by heart"),
        _real("weight_decay", own.weight_decay, 1e-5, 1e-2, "the same", is_log=True),
        _ladder("negatives", own.negatives, (40, 80, 160), "lists as long as in service, at their price"),
        _ladder("trees.trees", trees.trees, (75, 150, 300), "with their learning rate: how far boosting goes"),
        _ladder("trees.leaves", trees.leaves, (7, 15, 31), "how many things may come together"),
        _real("trees.learning_rate", trees.learning_rate, 0.03, 0.2, "how far one tree goes", is_log=True),
        _ladder("trees.min_rows_a_leaf", trees.min_rows_a_leaf, (20, 50, 100, 200), "against learning by heart"),
        _ladder("trees.column_share", trees.column_share, (0.25, 0.5, 0.75), "the same"),
    )


def _ladder(name: str, default: Value, steps: Sequence[Value], why: str) -> Axis:
    """Steps with the default among them; numbers in their order, words with the default first."""
    if isinstance(default, str):
        return Axis(name, default, why, (default, *(step for step in steps if step != default)))
    numbers = sorted({default, *(step for step in steps if not isinstance(step, str))})
    return Axis(name, default, why, tuple(numbers))


def _real(name: str, default: float, low: float, high: float, why: str, is_log: bool = False) -> Axis:
    return Axis(name, default, why, low=min(low, default), high=max(high, default), is_log=is_log)


def _said(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"

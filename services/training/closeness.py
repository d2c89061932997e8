"""
How close one shop's data is to another's: the shape of the demand, and which method beats which on it.

Rule: everything is computed from a canonical data directory in the same way, whoever made it, so that two columns of
the table can be compared. `python -m services.training.closeness DIR [DIR …]` prints them side by side.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from services.training import baselines
from services.training.baselines import DAY_US, Interactions, Scorer
from services.training.metrics import gini

EVENT_WEIGHTS: Mapping[str, float] = {"view": 1.0, "click": 1.0, "add_to_cart": 3.0, "purchase": 5.0}
"""
What an event is worth to the methods here. Chosen by rank of commitment; other types (impressions, removals)
are left out.
"""

TEST_DAYS = 28.0
"""Length of the judged window: that of the reference protocol."""

HALF_LIVES = (30.0, 60.0)
EASE_L2 = (5.0, 30.0, 100.0)
"""What is tried for item-kNN and EASE. Measured: sparse shops want 5, Online Retail 30 to 100."""

BATCH = 256
"""Users scored at once: 256 × 10,000 items are 10 MB."""


def statistics(data: Path) -> dict[str, float]:
    """
    Figures of the data in *data*, in the order in which they are printed; NaN where the data cannot say.

    Demand is purchase lines: one event per item of an order. An order is a user's session (without session ids: a
    user's moment). Shares are in [0, 1], gaps in days, prices in the data's currency.
    """
    events = pq.read_table(data / "events.parquet").to_pandas()
    lines = events[events["event_type"] == "purchase"]
    catalogue = pq.read_table(data / "items.parquet", columns=["item_id"]).to_pandas()
    orders = _orders(lines)
    sold = lines["item_id"].value_counts().to_numpy()
    per_user = lines["user_id"].value_counts().to_numpy()
    basket = orders["lines"].to_numpy()
    per_buyer = orders.groupby("user_id").size().to_numpy()
    gaps = (
        orders.sort_values(["user_id", "at"]).groupby("user_id")["at"].diff().dropna().dt.total_seconds().to_numpy()
        / 86_400
    )
    months = max((events["timestamp"].max() - events["timestamp"].min()).days / 30.4, 1e-9)
    first_seen = events.groupby("item_id")["timestamp"].min()
    late = int((first_seen > events["timestamp"].min() + pd.Timedelta(days=31)).sum())
    funnel = events["event_type"].value_counts()
    views = int(funnel.get("view", 0))
    price = lines["price"].dropna().to_numpy()
    figures = {
        "events": float(len(events)),
        "users": float(events["user_id"].nunique()),
        "buyers": float(len(per_user)),
        "items in the catalogue": float(len(catalogue)),
        "items sold at least once": float(len(sold)),
        "purchase lines": float(len(lines)),
        "orders": float(len(orders)),
        "lines an item sold": float(len(lines)) / max(len(sold), 1),
        "popularity Gini, items sold": gini(sold),
        "popularity Gini, all events": gini(events["item_id"].value_counts().to_numpy()),
        "top 1 % of items: share of lines": top_share(sold, 0.01),
        "top 10 % of items: share of lines": top_share(sold, 0.10),
        "activity Gini (lines a buyer)": gini(per_user),
        "repeat share of lines": _repeat_share(lines),
        "basket: median": _quantile(basket, 0.5),
        "basket: mean": float(basket.mean()) if len(basket) else np.nan,
        "basket: p90": _quantile(basket, 0.9),
        "orders a buyer: median": _quantile(per_buyer, 0.5),
        "orders a buyer: mean": float(per_buyer.mean()) if len(per_buyer) else np.nan,
        "buyers with one order": float((per_buyer == 1).mean()) if len(per_buyer) else np.nan,
        "days between orders: median": _quantile(gaps, 0.5),
        "new items a month, share of catalogue": late / max(months - 1, 1e-9) / max(len(catalogue), 1),
    }
    figures |= {f"price of a line: p{round(100 * q)}": _quantile(price, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    for kind, name in (("add_to_cart", "carts"), ("purchase", "purchases"), ("remove_from_cart", "removals")):
        figures[f"{name} per 100 views"] = 100 * int(funnel.get(kind, 0)) / views if views else np.nan
    return figures


@dataclass(frozen=True, slots=True)
class Judged:
    """
    One method on one protocol: means over the judged users, with the values a user for paired comparison.

    users    (q,) int64 the judged users
    ndcg     (q,) float64 ndcg@10, ideal truncated at 10
    recall   (q,) float64 hits in 20 / min(20, truth)
    """

    users: NDArray[np.int64]
    ndcg: NDArray[np.float64]
    recall: NDArray[np.float64]

    def mean(self) -> float:
        """Mean ndcg@10; 0 when nobody was judged."""
        return float(self.ndcg.mean()) if len(self.ndcg) else 0.0

    def __repr__(self) -> str:
        return f"<Judged ndcg@10 {self.mean():.4f}, {len(self.users)} users>"


@dataclass(frozen=True, slots=True)
class Split:
    """Global temporal split: everything before the moment is known, purchases after it are the truth."""

    known: Interactions
    bought: Interactions
    texts: list[str]
    truth: dict[int, NDArray[np.int64]]
    touched: dict[int, NDArray[np.int64]]


def split(data: Path, test_days: float = TEST_DAYS, unseen_days: float = 0.0) -> Split:
    """
    Cut *data* so that *test_days* days are the truth: the last ones, once the last *unseen_days* are thrown away.

    Items are rows of items.parquet. `known` holds all weighted events before the cut, `bought` its purchases only;
    `truth` the purchased items after the cut of users with an event before it.
    """
    events = pq.read_table(
        data / "events.parquet", columns=["user_id", "item_id", "event_type", "timestamp"]
    ).to_pandas()
    catalogue = pq.read_table(data / "items.parquet", columns=["item_id", "title"]).to_pandas()
    events = events[events["event_type"].isin(list(EVENT_WEIGHTS))]
    row_of = pd.Series(np.arange(len(catalogue)), index=catalogue["item_id"])
    users = pd.factorize(events["user_id"], sort=True)[0].astype(np.int64)
    items = row_of.reindex(events["item_id"]).to_numpy(np.int64)
    at = events["timestamp"].astype("datetime64[us, UTC]").astype("int64").to_numpy()
    # Whole days: the window ends at the midnight after the last event.
    until = (int(at.max()) // DAY_US + 1) * DAY_US - int(unseen_days * DAY_US)
    cut = until - int(test_days * DAY_US)
    weights = events["event_type"].map(EVENT_WEIGHTS).to_numpy(np.float32)
    bought = (events["event_type"] == "purchase").to_numpy()
    all_events = Interactions(users, items, weights, at, int(users.max()) + 1, len(catalogue), cut)
    known = all_events.only(at < cut)
    after = all_events.only((at >= cut) & (at < until) & bought)
    touched = _items_by_user(known)
    truth = {user: wanted for user, wanted in _items_by_user(after).items() if user in touched}
    return Split(known, all_events.only((at < cut) & bought), list(catalogue["title"].fillna("")), truth, touched)


def judge(parts: Split, scorer: Scorer, rebuy: bool) -> Judged:
    """
    Rank the whole catalogue for every judged user.

    Discovery (*rebuy* False): truth = items the user had not touched, which alone may be ranked. Re-buy: truth = all
    items bought, nothing is removed.
    """
    users, ndcg, recall = [], [], []
    everybody = np.array(sorted(parts.truth), np.int64)
    discount = 1 / np.log2(np.arange(2, 12))
    for start in range(0, len(everybody), BATCH):
        batch = everybody[start : start + BATCH]
        for user, row in zip(batch, scorer(batch), strict=True):
            truth = parts.truth[int(user)]
            if not rebuy:
                truth = np.setdiff1d(truth, parts.touched[int(user)])
                row[parts.touched[int(user)]] = -np.inf
            if not len(truth):
                continue
            hits = np.isin(_best(row, 20), truth)
            users.append(int(user))
            ndcg.append(float((hits[:10] * discount[: len(hits[:10])]).sum() / discount[: min(10, len(truth))].sum()))
            recall.append(float(hits.sum() / min(20, len(truth))))
    return Judged(np.array(users, np.int64), np.array(ndcg), np.array(recall))


def compare_methods(data: Path, test_days: float = TEST_DAYS) -> dict[str, dict[str, Judged]]:
    """
    Method → protocol ("discovery", "re-buy") → result on the last window.

    item-kNN and EASE take the parameters of GRID that do best in discovery on the window before the last one.
    """
    before, last = split(data, test_days, unseen_days=test_days), split(data, test_days)
    fits: dict[str, list[Callable[[Split], Scorer]]] = {
        "popularity": [lambda parts: baselines.popularity(parts.known)],
        "recent popularity (7 d)": [lambda parts: baselines.recent_popularity(parts.known)],
        "content (TF-IDF titles)": [lambda parts: baselines.content(parts.known, parts.texts)],
        "item-kNN, decayed": [partial(_knn, half_life) for half_life in HALF_LIVES],
        "EASE, decayed": [partial(_ease, half_life, l2) for half_life in HALF_LIVES for l2 in EASE_L2],
        "repeat (personal, decayed)": [lambda parts: baselines.repeat(parts.bought)],
    }
    results = {}
    for name, choices in fits.items():
        best = (
            max(choices, key=lambda fit: judge(before, fit(before), rebuy=False).mean())
            if len(choices) > 1
            else choices[0]
        )
        scorer = best(last)
        results[name] = {"discovery": judge(last, scorer, rebuy=False), "re-buy": judge(last, scorer, rebuy=True)}
    return results


def _knn(half_life_days: float, parts: Split) -> Scorer:
    return baselines.item_knn(parts.known, half_life_days)


def _ease(half_life_days: float, l2: float, parts: Split) -> Scorer:
    return baselines.ease(parts.known, half_life_days, l2)


def side_by_side(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table: one row a figure, one column a shop; figures one shop lacks are dashes."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    head = "| | " + " | ".join(columns) + " |"
    rule = "|---|" + "---:|" * len(columns)
    rows = [
        "| " + " | ".join([name, *(_show(column.get(name, np.nan)) for column in columns.values())]) + " |"
        for name in names
    ]
    return "\n".join([head, rule, *rows])


def method_figures(results: Mapping[str, Mapping[str, Judged]]) -> dict[str, float]:
    """Means of `compare_methods` as rows for `side_by_side`."""
    return {
        f"{protocol}: {method}, {metric}": float(getattr(judged[protocol], metric.split("@")[0]).mean())
        for protocol in ("discovery", "re-buy")
        for method, judged in results.items()
        for metric in ("ndcg@10", "recall@20")
    }


def top_share(counts: NDArray[np.int64], share: float) -> float:
    """Part of the total that the largest *share* of the counts holds (at least one of them)."""
    if not len(counts):
        return float("nan")
    ordered = np.sort(counts)[::-1]
    return float(ordered[: max(1, round(share * len(ordered)))].sum() / ordered.sum())


def _orders(lines: pd.DataFrame) -> pd.DataFrame:
    key = lines["session_id"] if lines["session_id"].notna().all() else lines["timestamp"].astype(str)
    grouped = lines.assign(order=key).groupby(["user_id", "order"], sort=True)
    return grouped.agg(lines=("item_id", "size"), at=("timestamp", "min")).reset_index()


def _repeat_share(lines: pd.DataFrame) -> float:
    """Lines whose item the same user had bought in an earlier order (an earlier moment)."""
    if not len(lines):
        return float("nan")
    first = lines.groupby(["user_id", "item_id"])["timestamp"].transform("min")
    return float((lines["timestamp"] > first).mean())


def _items_by_user(events: Interactions) -> dict[int, NDArray[np.int64]]:
    pairs = np.unique(events.users * events.n_items + events.items)
    users, starts = np.unique(pairs // events.n_items, return_index=True)
    return dict(zip(users.tolist(), np.split(pairs % events.n_items, starts[1:]), strict=True))


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of the *k* largest finite scores, best first; ties go by position."""
    order = np.argsort(-scores, kind="stable")[:k]
    return order[np.isfinite(scores[order])]


def _quantile(values: NDArray[Any], q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else float("nan")


def _show(value: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def main(arguments: Sequence[str]) -> int:
    """Print the table of the data directories named in *arguments*."""
    if not arguments:
        sys.stderr.write("usage: python -m services.training.closeness DIR [DIR …]\n")
        return 2
    columns = {
        Path(name).name: statistics(Path(name)) | method_figures(compare_methods(Path(name))) for name in arguments
    }
    sys.stdout.write(side_by_side(columns) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

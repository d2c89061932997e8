"""Statistics and simple methods on data one can check by hand; the order of methods on the embedded shop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from services.training import baselines, closeness
from services.training.baselines import DAY_US, Interactions
from services.training.metrics import gini
from services.training.synthetic import build


def interactions(rows: list[tuple[int, int, float, float]], n_users: int, n_items: int) -> Interactions:
    """Rows of (user, item, weight, age in days)."""
    users, items, weights, ages = (np.array(column) for column in zip(*rows, strict=True))
    now = 1_000 * DAY_US
    return Interactions(
        users.astype(np.int64), items.astype(np.int64), weights.astype(np.float32),
        (now - ages * DAY_US).astype(np.int64), n_users, n_items, now,
    )  # fmt: skip


def write_shop(directory: Path, rows: list[tuple[str, str, str, str]], titles: dict[str, str]) -> Path:
    """Rows of (user, item, type, moment)."""
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "timestamp"])
    events["timestamp"] = pd.to_datetime(events["timestamp"], utc=True).astype("datetime64[us, UTC]")
    events = events.assign(event_id=[f"e{i}" for i in range(len(events))], session_id=None, quantity=1.0, price=2.0)
    directory.mkdir(parents=True, exist_ok=True)
    events.to_parquet(directory / "events.parquet")
    pd.DataFrame({"item_id": list(titles), "title": list(titles.values())}).to_parquet(directory / "items.parquet")
    return directory


def test_gini_is_zero_for_equals_and_large_for_a_monopoly() -> None:
    assert gini(np.array([5, 5, 5, 5])) == pytest.approx(0.0)
    assert gini(np.array([1, 3])) == pytest.approx(0.25)
    assert gini(np.array([1] * 99 + [9_901])) > 0.97


def test_statistics_count_orders_repeats_and_the_funnel(tmp_path: Path) -> None:
    data = write_shop(
        tmp_path,
        [
            ("a", "x", "view", "2026-01-01T10:00"),
            ("a", "x", "add_to_cart", "2026-01-01T10:01"),
            ("a", "x", "purchase", "2026-01-01T10:05"),
            ("a", "y", "purchase", "2026-01-01T10:05"),
            ("b", "x", "view", "2026-01-05T10:00"),
            ("a", "x", "purchase", "2026-01-11T10:05"),
            ("b", "y", "purchase", "2026-02-20T10:05"),
        ],
        {"x": "X", "y": "Y", "z": "Z"},
    )

    figures = closeness.statistics(data)

    assert (figures["orders"], figures["purchase lines"], figures["buyers"]) == (3, 4, 2)
    assert figures["repeat share of lines"] == pytest.approx(0.25)
    assert figures["days between orders: median"] == pytest.approx(10.0)
    assert figures["buyers with one order"] == pytest.approx(0.5)
    assert figures["carts per 100 views"] == pytest.approx(50.0)


def test_a_split_keeps_the_future_out_of_what_is_known(tmp_path: Path) -> None:
    rows = [
        ("a", "x", "purchase", "2026-01-01"),
        ("a", "y", "purchase", "2026-01-20"),
        ("new", "y", "purchase", "2026-01-20"),
    ]
    data = write_shop(tmp_path, rows, {"x": "X", "y": "Y"})

    parts = closeness.split(data, test_days=7)

    assert len(parts.known) == 1
    assert {user: truth.tolist() for user, truth in parts.truth.items()} == {0: [1]}


def test_discovery_removes_what_was_touched_and_re_buy_removes_nothing(tmp_path: Path) -> None:
    rows = [
        ("a", "x", "purchase", "2026-01-01"),
        ("a", "x", "purchase", "2026-01-20"),
        ("a", "y", "purchase", "2026-01-20"),
    ]
    parts = closeness.split(write_shop(tmp_path, rows, {"x": "X", "y": "Y"}), test_days=7)

    def prefers_x(users: np.ndarray) -> np.ndarray:
        return np.tile(np.array([2.0, 1.0], np.float32), (len(users), 1))

    discovery = closeness.judge(parts, prefers_x, rebuy=False)
    rebuy = closeness.judge(parts, prefers_x, rebuy=True)

    assert (discovery.ndcg.tolist(), discovery.recall.tolist()) == ([1.0], [1.0])
    assert (rebuy.ndcg.tolist(), rebuy.recall.tolist()) == ([1.0], [1.0])


def test_old_events_fade_by_half_in_a_half_life() -> None:
    events = interactions([(0, 0, 5.0, 0.0), (0, 1, 5.0, 30.0), (0, 1, 1.0, 0.0), (0, 2, 5.0, 60.0)], 1, 3)

    row = events.matrix(half_life_days=30.0).toarray()[0]

    assert row.tolist() == pytest.approx([1.0, 0.5, 0.25])


def test_recent_popularity_prefers_this_week_and_popularity_the_whole_past() -> None:
    events = interactions([(u, 0, 1.0, 90.0) for u in range(5)] + [(u, 1, 1.0, 1.0) for u in range(2)], 5, 3)
    everybody = np.arange(2)

    assert baselines.popularity(events)(everybody).argmax(axis=1).tolist() == [0, 0]
    assert baselines.recent_popularity(events)(everybody).argmax(axis=1).tolist() == [1, 1]


@pytest.mark.parametrize("method", [baselines.item_knn, baselines.ease])
def test_neighbours_of_what_one_bought_come_first(method: object) -> None:
    together = [(u, item, 1.0, 1.0) for u in range(6) for item in (0, 1)]
    apart = [(u, item, 1.0, 1.0) for u in range(6, 20) for item in (2, 3)]
    events = interactions([*together, *apart, (20, 0, 1.0, 1.0)], 21, 4)

    scores = method(events)(np.array([20]))[0]  # type: ignore[operator]

    assert scores[1] == max(scores[1:])
    assert scores[1] > 0


def test_content_finds_what_is_called_alike() -> None:
    texts = ["Fern Teapot", "Fern Mug", "Anchor Mug", "Stag Cushion"]
    events = interactions([(0, 0, 1.0, 1.0)], 1, 4)

    assert baselines.content(events, texts)(np.array([0]))[0, 1:].argmax() == 0


def test_repeat_puts_the_shoppers_own_things_first_and_then_the_popular() -> None:
    events = interactions([(0, 2, 1.0, 50.0), (1, 1, 1.0, 1.0), (2, 1, 1.0, 1.0), (1, 0, 1.0, 1.0)], 3, 4)

    assert np.argsort(-baselines.repeat(events)(np.array([0]))[0], kind="stable").tolist() == [2, 1, 0, 3]


def test_ease_refuses_a_catalogue_whose_square_does_not_fit() -> None:
    events = interactions([(0, 0, 1.0, 1.0)], 1, baselines.EASE_LIMIT + 1)

    with pytest.raises(ValueError, match="item_knn"):
        baselines.ease(events)


def test_methods_come_in_the_order_known_from_real_shops(tmp_path: Path) -> None:
    build(tmp_path)
    parts = closeness.split(tmp_path)
    methods = {
        "popularity": baselines.popularity(parts.known),
        "content": baselines.content(parts.known, parts.texts),
        "item-kNN": baselines.item_knn(parts.known, 60.0),
        "EASE": baselines.ease(parts.known, 60.0, 5.0),
        "repeat": baselines.repeat(parts.bought),
    }

    found = {name: closeness.judge(parts, scorer, rebuy=False).recall.mean() for name, scorer in methods.items()}
    again = {name: closeness.judge(parts, scorer, rebuy=True).mean() for name, scorer in methods.items()}

    assert 1.5 * found["popularity"] < found["content"] < min(found["item-kNN"], found["EASE"])
    assert 2.5 * again["popularity"] < again["item-kNN"] < again["EASE"] < again["repeat"]


def test_the_table_has_a_row_a_figure_and_a_dash_where_a_shop_cannot_say() -> None:
    table = closeness.side_by_side({"one": {"Gini": 0.5, "lines": 12_345.0}, "two": {"Gini": float("nan")}})

    assert table.splitlines()[2:] == ["| Gini | 0.500 | – |", "| lines | 12,345 | – |"]


def test_without_a_directory_the_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert closeness.main([]) == 2
    assert "usage" in capsys.readouterr().err

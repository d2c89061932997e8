"""What a users file of `tutti recommend` asks for, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import settings as tree
from orchestrator.cli.asked import Asked, read_asked
from orchestrator.cli.recommend import other_fusions
from orchestrator.core.model import Placement, StageList


class Shop:
    """A catalogue that knows the items a to c."""

    def key_of(self, item_id):
        return {"a": 0, "b": 1, "c": 2}.get(item_id)


def a_file(tmp_path, **columns):
    path = tmp_path / "users.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_bare_users_are_asked_for_once_each_on_the_home_page(tmp_path):
    asked = read_asked(a_file(tmp_path, user_id=["u", "v", "u", None]))

    assert not asked.has_pages
    assert asked.rows == [Asked(0, "u"), Asked(1, "v")]


def test_a_file_with_pages_asks_row_by_row_and_keeps_repeated_and_unknown_users(tmp_path):
    path = a_file(
        tmp_path,
        user_id=["u", "u", None],
        placement=["item", "cart", "category"],
        context_item_ids=[["a"], [], None],
        cart_item_ids=[None, ["b", "c"], []],
        category=[None, None, "Home > Kitchen"],
    )

    asked = read_asked(path)

    assert asked.has_pages
    assert asked.user_ids() == ["u"]
    assert asked.rows == [
        Asked(0, "u", Placement.ITEM, ("a",)),
        Asked(1, "u", Placement.CART, (), ("b", "c")),
        Asked(2, None, Placement.CATEGORY, category="Home > Kitchen"),
    ]


def test_in_csv_item_ids_stand_between_bars(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("user_id,placement,context_item_ids\nu,item,a|b\nv,,\n")

    rows = read_asked(path).rows

    assert rows == [Asked(0, "u", Placement.ITEM, ("a", "b")), Asked(1, "v")]


def test_items_the_shop_does_not_have_are_ignored_in_the_context():
    query = Asked(3, "u", Placement.CART, ("nowhere",), ("b", "nowhere", "b", "a")).query(Shop(), 20, None)

    assert (query.placement, query.context_keys, query.cart_keys) == (Placement.CART, (), (1, 0))
    assert (query.count, query.user_id, query.exclude_seen) == (20, "u", False)


def test_what_was_seen_is_left_out_only_where_that_was_asked():
    assert Asked(0, "u").query(Shop(), 20, (2,)).exclude_keys == (2,)
    assert Asked(0, "u").query(Shop(), 20, ()).exclude_seen
    assert not Asked(0, None).query(Shop(), 20, None).exclude_seen


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"item_id": ["a"]}, "no column user_id"),
        ({"user_id": pa.array([None], pa.string())}, "no users"),
        ({"user_id": ["u"], "placement": ["nowhere"]}, "expected one of home, item, cart, category"),
        ({"user_id": ["u"], "placement": ["category"]}, "without naming it in column category"),
        ({"user_id": pa.array([], pa.string()), "placement": pa.array([], pa.string())}, "no row"),
    ],
)
def test_an_unusable_file_is_refused_by_what_is_wrong_with_it(tmp_path, columns, words):
    with pytest.raises(ValueError, match=words):
        read_asked(a_file(tmp_path, **columns))


def test_the_fusions_that_are_not_configured_are_shown_beside_the_one_that_is():
    settings = tree.load(None, {})
    lists = [
        StageList("source:collaborative_filtering", np.array([4, 5], np.int32), np.array([2.0, 1.0])),
        StageList("source:content_based", np.array([5, 6], np.int32), np.array([9.0, 1.0])),
        StageList("fused", np.array([5], np.int32), np.array([1.0])),
    ]

    others = {one.stage: sorted(one.keys.tolist()) for one in other_fusions(settings, lists)}

    assert others == {"fused:reciprocal_rank": [4, 5, 6]}
    assert other_fusions(settings, []) == []

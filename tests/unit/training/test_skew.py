"""Features as served beside Feast's: a planted skew is found and named, and what is the same is not."""

import json

import numpy as np
import pytest

from protos.feast_layout import EntityPlan, ReadPlan, ViewPlan
from protos.slate_log import made_row
from services.training import skew
from services.training.skew import EXAMPLES, compare
from services.training.slate_log import _made
from tests.support.builders import a_user, changed
from tests.support.slate_log import AT_S, a_made

USER = EntityPlan("p", "user_id", "STRING", (ViewPlan("taste", 0.0, (("spend", "DOUBLE"), ("brand", "STRING"))),))
ITEM = EntityPlan("p", "item_id", "STRING", (ViewPlan("facts", 0.0, (("price", "DOUBLE"), ("maker", "STRING"))),))
PLAN = ReadPlan("reranking_v1", USER, ITEM)
ITEMS = [f"i{key}" for key in range(10)]


def some_made(n=200, stale=0):
    """*n* computations of as many users; the first *stale* were served a spend of before."""
    made = {}
    for number in range(n):
        spend = number - 5 if number < stale else number
        user = changed(a_user(numeric=(spend,), categorical=("acme",)), as_of_us=int(AT_S * 1e6) + number)
        row = made_row(a_made(f"r{number}", user=user, digest=PLAN.digest, user_id=f"u{number}"))
        made[f"r{number}"] = _made(row, row["as_of"])
    return made


def joined(frame):
    """What Feast would say: the user's number as spend, the item's key as price."""
    keys = frame["item_id"].str[1:].astype(int)
    return frame.assign(
        taste__spend=frame["user_id"].str[1:].astype(float),
        taste__brand="acme",
        facts__price=keys / 10,
        facts__maker="brand" + (keys % 2).astype(str),
    )


def by_name(found):
    return {one.feature: one for one in found}


def test_what_is_the_same_on_both_sides_is_not_skewed():
    found = skew.report(some_made(), PLAN, ITEMS, joined)

    assert {one.feature: (one.rows, one.differs) for one in found} == {
        "taste__spend": (200, 0.0),
        "taste__brand": (200, 0.0),
        "facts__price": (400, 0.0),
        "facts__maker": (400, 0.0),
    }


def test_a_planted_skew_is_found_and_named_with_examples():
    found = by_name(skew.report(some_made(stale=50), PLAN, ITEMS, joined))

    assert [name for name, one in found.items() if one.is_skewed] == ["taste__spend"]
    assert found["taste__spend"].differs == 0.25
    assert len(found["taste__spend"].examples) == EXAMPLES
    whose, served, should_be = found["taste__spend"].examples[0]
    assert should_be - served == 5
    assert whose == f"u{should_be:.0f}"


def test_an_item_column_that_feast_does_not_have_yet_is_missing_there():
    def without_prices(frame):
        return joined(frame).assign(facts__price=np.nan)

    price = by_name(skew.report(some_made(), PLAN, ITEMS, without_prices))["facts__price"]

    assert (price.missing_served, price.missing_joined, price.differs) == (0.0, 1.0, 1.0)
    assert price.examples[0][2] is None


def test_slates_of_another_plan_and_of_shoppers_nobody_read_are_not_compared():
    other = changed(next(iter(some_made(1).values())), as_of_us=0)

    assert skew.report({"r": other}, PLAN, ITEMS, joined) == []
    assert skew.report(some_made(), ReadPlan("other", USER, ITEM), ITEMS, joined) == []


@pytest.mark.parametrize(
    ("served", "should_be", "differs"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 1000.0], [1.0005, 1000.5], 0.0),
        ([1.0, 2.0], [1.01, 2.0], 0.5),
        ([np.nan, np.nan], [np.nan, 0.0], 0.5),
        ([0.0, 1e-9], [0.0, 0.0], 0.0),
    ],
)
def test_numbers_differ_beyond_a_thousandth_or_where_one_is_missing(served, should_be, differs):
    assert compare("f", ["a", "b"], np.array(served), np.array(should_be)).differs == differs


def test_words_differ_when_they_are_not_the_same():
    found = compare("f", ["a", "b", "c"], np.array(["x", "", "y"], object), np.array(["x", "", "z"], object))

    assert (round(found.differs, 3), round(found.missing_served, 3)) == (0.333, 0.333)
    assert found.examples == (("c", "y", "z"),)


def test_the_report_is_json_and_a_table(tmp_path):
    found = skew.report(some_made(stale=50), PLAN, ITEMS, joined)

    skew.write(tmp_path / skew.FILE, found)

    said = json.loads((tmp_path / skew.FILE).read_text())
    assert [one["feature"] for one in said["features"] if one["is_skewed"]] == ["taste__spend"]
    assert skew.lines(found)[0][:3] == ("taste__spend", "200", "25.0%")

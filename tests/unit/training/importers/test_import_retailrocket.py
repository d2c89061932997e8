"""RetailRocket: funnel events, category paths, the latest of changing properties."""

from __future__ import annotations

import pytest

from services.training.importers import DatasetError

EVENTS = """timestamp,visitorid,event,itemid,transactionid
1433221332117,257597,view,355908,
1433221332117,257597,view,355908,
1433224214164,992329,addtocart,248676,
1433221999827,111016,transaction,318965,4000
"""
PROPERTIES_1 = """timestamp,itemid,property,value
1435460400000,355908,categoryid,9
1441508400000,355908,categoryid,1338
1441508400000,355908,available,1
1439089200000,248676,888,1116713 960601 n277.200
"""
PROPERTIES_2 = """timestamp,itemid,property,value
1431831600000,355908,available,0
1431831600000,318965,available,0
1431831600000,777,categoryid,5
"""
TREE = "categoryid,parentid\n1338,1278\n1278,140\n140,\n9,140\n"
FOLDER = {
    "events.csv": EVENTS,
    "item_properties_part1.csv": PROPERTIES_1,
    "item_properties_part2.csv": PROPERTIES_2,
    "category_tree.csv": TREE,
}


def test_the_three_kinds_of_event_are_translated_and_repeats_dropped(write, imported):
    shop = imported("retailrocket", write(FOLDER))

    assert shop.columns("event_id", "user_id", "item_id", "event_type", "session_id") == [
        ("retailrocket-1", "257597", "355908", "view", None),
        ("retailrocket-4", "111016", "318965", "purchase", "4000"),
        ("retailrocket-3", "992329", "248676", "add_to_cart", None),
    ]
    assert shop.report.rows_dropped == {"exact duplicate": 1}


def test_an_items_latest_properties_count_whatever_file_they_are_in(write, imported):
    shop = imported("retailrocket", write(FOLDER))

    assert {key: (item["category"], item["in_stock"]) for key, item in shop.items.items()} == {
        "355908": ("140 > 1278 > 1338", True),
        "248676": (None, None),
        "318965": (None, False),
        "777": ("5", None),
    }
    assert shop.items["355908"]["title"] == "Item 355908"


def test_events_alone_are_enough(write, imported):
    shop = imported("retailrocket", write({"events.csv": EVENTS}) / "events.csv")

    assert sorted(shop.items) == ["248676", "318965", "355908"]


def test_an_unknown_event_is_refused_with_line_and_column(write, imported):
    with pytest.raises(DatasetError) as refused:
        imported("retailrocket", write({"events.csv": EVENTS + "1433221332117,1,wishlist,2,\n"}))

    assert str(refused.value).startswith(
        "events.csv:6: column event: found 'wishlist'; expected one of view, addtocart"
    )


def test_a_category_below_itself_is_refused(write, imported):
    with pytest.raises(DatasetError, match="among its own ancestors"):
        imported("retailrocket", write({**FOLDER, "category_tree.csv": "categoryid,parentid\n1,2\n2,1\n"}))


def test_an_availability_that_is_no_flag_is_refused(write, imported):
    folder = write(
        {**FOLDER, "item_properties_part2.csv": "timestamp,itemid,property,value\n1431831600000,1,available,maybe\n"}
    )

    with pytest.raises(DatasetError) as refused:
        imported("retailrocket", folder)

    assert (refused.value.file.name, refused.value.line, refused.value.column) == (
        "item_properties_part2.csv",
        2,
        "value",
    )


def test_the_header_of_another_file_names_the_missing_column(write, imported):
    with pytest.raises(DatasetError) as refused:
        imported("retailrocket", write({"events.csv": "a,b\n1,2\n"}))

    assert (refused.value.line, refused.value.column) == (1, "timestamp")

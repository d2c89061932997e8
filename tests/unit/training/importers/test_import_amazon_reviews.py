"""Amazon Reviews: three editions of JSON lines, and product lines that only Python would print."""

from __future__ import annotations

import json

import pytest

from services.training.importers import DatasetError

OF_2014 = [
    {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1370304000, "reviewText": "fine"},
    {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1370304000, "reviewText": "fine"},
    {"reviewerID": "A2", "asin": "B2", "overall": 2.0, "unixReviewTime": 1370304001, "reviewText": "poor"},
    {"reviewerID": "A2", "asin": "B3", "overall": 4.0, "unixReviewTime": 1370303999, "reviewText": "good"},
]
PRODUCTS_2014 = (
    "{'asin': 'B1', 'title': \"Cook's [best] {knife\", 'price': 12.5, 'brand': 'Sharp', "
    "'related': {'also_bought': ['B2', 'B3']}, 'categories': [['Kitchen', 'Knives'], ['Gifts']]}\n"
    "{'asin': 'B2', 'title': 'Dull', 'categories': [['Kitchen']]}\n"
    "{'asin': 'B1', 'title': 'Said twice', 'categories': [['Kitchen']]}\n"
)


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_edition_of_2014_with_its_python_products(write, imported):
    folder = write({"reviews_Kitchen_5.json.gz": lines(OF_2014), "meta_Kitchen.json.gz": PRODUCTS_2014})

    shop = imported("amazon-reviews", folder)

    assert shop.columns("event_id", "user_id", "item_id", "event_type") == [
        ("amazon-reviews-4", "A2", "B3", "purchase"),
        ("amazon-reviews-1", "A1", "B1", "purchase"),
    ]
    assert shop.report.rows_dropped == {"rating below 4": 1, "exact duplicate": 1}
    knife = shop.items["B1"]
    assert (knife["title"], knife["category"], knife["price"], knife["brand"]) == (
        "Cook's [best] {knife",
        "Kitchen > Knives",
        12.5,
        "Sharp",
    )
    assert shop.report.items_dropped == {"duplicate item_id": 1, "no kept event": 1}
    assert shop.items["B3"]["title"] == "Item B3"


def test_the_edition_of_2018(write, imported):
    products = [
        {"asin": "B1", "title": "Knife", "category": ["Kitchen", "Knives"], "price": "$1,012.50", "feature": ["sharp"]},
        {
            "asin": "B3",
            "title": "var aPageStart = (new Date()).getTime();",
            "price": "$5.99 - $10.99",
            "main_cat": "Home",
        },
    ]
    folder = write({"Kitchen_5.json": lines(OF_2014), "meta_Kitchen.json": lines(products)})

    shop = imported("amazon-reviews", folder / "Kitchen_5.json")

    assert (shop.items["B1"]["category"], shop.items["B1"]["price"]) == ("Kitchen > Knives", 1012.5)
    assert json.loads(shop.items["B1"]["attributes"]) == {"features": ["sharp"]}
    assert (shop.items["B3"]["title"], shop.items["B3"]["category"], shop.items["B3"]["price"]) == (
        "Item B3",
        "Home",
        None,
    )


def test_the_edition_of_2023(write, imported):
    reviews = [{"user_id": "U1", "asin": "X", "parent_asin": "P1", "rating": 4.0, "timestamp": 1588687728923}]
    products = [
        {"parent_asin": "P1", "title": "Lamp", "main_category": "Home", "categories": ["Home", "Lamps"], "price": 19.99,
         "store": "Bright", "features": [], "description": ["Warm", "light"]},
    ]  # fmt: skip
    folder = write({"Home.jsonl.gz": lines(reviews), "meta_Home.jsonl.gz": lines(products)})

    shop = imported("amazon-reviews", folder)

    assert shop.columns("user_id", "item_id") == [("U1", "P1")]
    assert shop.events[0]["timestamp"].isoformat() == "2020-05-05T14:08:48.923000+00:00"
    lamp = shop.items["P1"]
    assert (lamp["brand"], lamp["price"], lamp["category"], lamp["description"]) == (
        "Bright",
        19.99,
        "Home > Lamps",
        "Warm light",
    )


def test_a_file_brings_only_the_products_named_like_it(write, imported):
    folder = write(
        {
            "Books_5.json": lines(OF_2014[:1]),
            "meta_Books.json": lines([{"asin": "B1", "title": "A book"}]),
            "meta_Toys.json": lines([{"asin": "B1", "title": "A toy"}]),
        }
    )

    assert imported("amazon-reviews", folder / "Books_5.json").items["B1"]["title"] == "A book"


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"overall": "five"}, "overall"),
        ({"overall": 6}, "overall"),
        ({"overall": True}, "overall"),
        ({"asin": None}, "asin"),
        ({"reviewerID": " "}, "reviewerID"),
        ({"unixReviewTime": 1370304000000}, "unixReviewTime"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_line(change, column, write, imported):
    folder = write({"Books_5.json": lines([OF_2014[0], {**OF_2014[1], **change}])})

    with pytest.raises(DatasetError) as refused:
        imported("amazon-reviews", folder)

    assert (refused.value.line, refused.value.column) == (2, column)


@pytest.mark.parametrize(
    "line",
    [
        "{'asin': __import__('os').system('true')}",
        "{'asin': 'B' * 9}",
        "{'asin': [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}",
        "{'asin': 'B1'",
        '{"asin": }',
        "[1, 2]",
        "{'a', 'b'}",
    ],
)
def test_a_line_that_is_no_plain_object_is_refused_and_never_run(line, write, imported):
    folder = write({"Books_5.json": lines(OF_2014), "meta_Books.json": f"{{'asin': 'B1'}}\n{line}\n"})

    with pytest.raises(DatasetError) as refused:
        imported("amazon-reviews", folder)

    assert (refused.value.file.name, refused.value.line) == ("meta_Books.json", 2)


def test_a_folder_of_products_alone_is_refused(write, imported):
    with pytest.raises(DatasetError, match="only product lines"):
        imported("amazon-reviews", write({"meta_Books.json": "{'asin': 'B1'}\n"}))


def test_products_are_the_same_however_they_fall_into_groups(write, imported, monkeypatch, tmp_path):
    folder = write({"reviews_Kitchen_5.json": lines(OF_2014), "meta_Kitchen.json": PRODUCTS_2014})
    whole = imported("amazon-reviews", folder)

    monkeypatch.setattr("services.training.importers.amazon_reviews.BATCH_CHARACTERS", 1)
    monkeypatch.setattr("services.training.importers.amazon_reviews.BATCH", 2)
    pieces = imported("amazon-reviews", folder, tmp_path / "other")

    assert pieces.report == whole.report

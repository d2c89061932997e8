"""
What the catalogue says about an item. Changes when the catalogue changes.

`from: items` — each expression sees one row of the catalogue: item_id, title, description, category (the whole path),
department (its first step), brand, price, in_stock, attributes (JSON text), moment. Window functions over the whole
catalogue are allowed, aggregates are not. See docs/features.md.
"""

from data_sources import snapshots
from entities import item
from feast import FeatureView, Field
from feast.types import Float32, Int64, String

item_catalogue = FeatureView(
    name="item_catalogue",
    entities=[item],
    schema=[
        Field(name="price", dtype=Float32, tags={"sql": "price"}),
        Field(
            name="price_to_category",
            dtype=Float32,
            description="price over the median price of the item's category",
            tags={"sql": "price / nullif(median(price) OVER (PARTITION BY category), 0)"},
        ),
        Field(
            name="price_rank",
            dtype=Float32,
            description="share of the catalogue that is cheaper, in [0, 1]",
            tags={"sql": "CASE WHEN price IS NOT NULL THEN percent_rank() OVER (ORDER BY price NULLS LAST) END"},
        ),
        Field(name="category", dtype=String, tags={"sql": "category"}),
        Field(name="department", dtype=String, tags={"sql": "department"}),
        Field(name="brand", dtype=String, tags={"sql": "brand"}),
        Field(name="title_length", dtype=Int64, description="characters", tags={"sql": "length(title)"}),
        Field(
            name="category_size",
            dtype=Int64,
            description="items in the same category",
            tags={"sql": "count(category) OVER (PARTITION BY category)"},
        ),
    ],
    source=snapshots("item_catalogue"),
    tags={"from": "items", "owner": "recommendations"},
    description="What the catalogue says about an item",
)

"""
What a shopper likes. Changes slowly.

`from: events` — each expression is an aggregate over the shopper's events before the snapshot; see docs/features.md
for the columns. What was bought counts before what was looked at.
"""

from data_sources import snapshots
from entities import user
from feast import FeatureView, Field
from feast.types import Float32, String

user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    schema=[
        Field(
            name="favourite_category",
            dtype=String,
            tags={"sql": "coalesce(mode(category) FILTER (event_type = 'purchase'), mode(category))"},
        ),
        Field(
            name="favourite_department",
            dtype=String,
            tags={"sql": "coalesce(mode(department) FILTER (event_type = 'purchase'), mode(department))"},
        ),
        Field(
            name="favourite_brand",
            dtype=String,
            tags={"sql": "coalesce(mode(brand) FILTER (event_type = 'purchase'), mode(brand))"},
        ),
        Field(
            name="mean_price",
            dtype=Float32,
            tags={"sql": "coalesce(avg(price) FILTER (event_type = 'purchase'), avg(price))"},
        ),
        Field(name="price_spread", dtype=Float32, description="standard deviation", tags={"sql": "stddev_pop(price)"}),
        Field(
            name="mean_quantity",
            dtype=Float32,
            description="pieces a line: a household buys one, a retailer buys dozens",
            tags={"sql": "avg(quantity) FILTER (event_type = 'purchase')"},
        ),
        Field(
            name="categories",
            dtype=Float32,
            description="different categories an event, in (0, 1]: broad taste is near 1",
            tags={"sql": "count(DISTINCT category) / nullif(count(category), 0)"},
        ),
    ],
    source=snapshots("user_profile"),
    tags={"from": "events", "where": "event_type <> 'impression'", "owner": "recommendations"},
    description="What a shopper likes",
)

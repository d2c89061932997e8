"""
What shoppers did with an item lately. Changes with every snapshot.

`from: events` — each expression is an aggregate over the item's events before the snapshot; see docs/features.md for
the columns. An item without events has no row: its activity is missing, which a model can tell from zero.
"""

from data_sources import snapshots
from entities import item
from feast import FeatureView, Field
from feast.types import Float32, Int64

item_activity = FeatureView(
    name="item_activity",
    entities=[item],
    schema=[
        Field(
            name="purchases_7d",
            dtype=Int64,
            tags={"sql": "count(*) FILTER (event_type = 'purchase' AND age_d <= 7)"},
        ),
        Field(
            name="purchases_30d",
            dtype=Int64,
            tags={"sql": "count(*) FILTER (event_type = 'purchase' AND age_d <= 30)"},
        ),
        Field(
            name="purchases_90d",
            dtype=Int64,
            tags={"sql": "count(*) FILTER (event_type = 'purchase' AND age_d <= 90)"},
        ),
        Field(name="purchases", dtype=Int64, tags={"sql": "count(*) FILTER (event_type = 'purchase')"}),
        Field(
            name="views_7d",
            dtype=Int64,
            tags={"sql": "count(*) FILTER (event_type IN ('view', 'click') AND age_d <= 7)"},
        ),
        Field(
            name="views_30d",
            dtype=Int64,
            tags={"sql": "count(*) FILTER (event_type IN ('view', 'click') AND age_d <= 30)"},
        ),
        Field(
            name="buyers_30d",
            dtype=Int64,
            description="different shoppers who bought it",
            tags={"sql": "count(DISTINCT user_id) FILTER (event_type = 'purchase' AND age_d <= 30)"},
        ),
        Field(
            name="new_buyers_7d",
            dtype=Int64,
            description="who bought it for the first time: what draws new buyers is what can be discovered",
            tags={"sql": "count(*) FILTER (event_type = 'purchase' AND repetition = 1 AND age_d <= 7)"},
        ),
        Field(
            name="new_buyers_28d",
            dtype=Int64,
            tags={"sql": "count(*) FILTER (event_type = 'purchase' AND repetition = 1 AND age_d <= 28)"},
        ),
        Field(
            name="events_lately",
            dtype=Float32,
            description="events, halved every 3 days",
            tags={"sql": "sum(pow(2, -age_d / 3))"},
        ),
        Field(
            name="rise",
            dtype=Float32,
            description="log of the events of this month over those of a quarter, each drawn to a little doubt",
            tags={"sql": "ln((sum(pow(2, -age_d / 10)) + 0.5) / (sum(pow(2, -age_d / 90)) + 2))"},
        ),
        Field(
            name="trend",
            dtype=Float32,
            description="log of the last week's events over the weekly mean of the four weeks before",
            tags={
                "sql": "ln(1 + count(*) FILTER (age_d <= 7))"
                " - ln(1 + count(*) FILTER (age_d > 7 AND age_d <= 35) / 4.0)"
            },
        ),
        Field(name="popularity", dtype=Float32, description="log of its events", tags={"sql": "ln(count(*))"}),
        Field(name="age_d", dtype=Float32, description="days since its first event", tags={"sql": "max(age_d)"}),
        Field(name="recency_d", dtype=Float32, description="days since its last event", tags={"sql": "min(age_d)"}),
        Field(
            name="repeat_rate",
            dtype=Float32,
            description="share of purchases by someone who had bought it before",
            tags={"sql": "avg((repetition > 1)::INT) FILTER (event_type = 'purchase')"},
        ),
        Field(
            name="cart_rate",
            dtype=Float32,
            description="add-to-carts a view, 90 days, drawn to 5 % by 20 views' worth of doubt",
            tags={
                "sql": "(1 + count(*) FILTER (event_type = 'add_to_cart' AND age_d <= 90))"
                " / (20.0 + count(*) FILTER (event_type IN ('view', 'click') AND age_d <= 90))"
            },
        ),
        Field(
            name="purchase_rate",
            dtype=Float32,
            description="purchases a view, 90 days, drawn to 5 % by 20 views' worth of doubt",
            tags={
                "sql": "(1 + count(*) FILTER (event_type = 'purchase' AND age_d <= 90))"
                " / (20.0 + count(*) FILTER (event_type IN ('view', 'click') AND age_d <= 90))"
            },
        ),
        Field(
            name="mean_quantity",
            dtype=Float32,
            tags={"sql": "avg(quantity) FILTER (event_type = 'purchase')"},
        ),
    ],
    source=snapshots("item_activity"),
    tags={"from": "events", "where": "event_type <> 'impression'", "owner": "recommendations"},
    description="What shoppers did with an item lately",
)

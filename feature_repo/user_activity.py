"""
How much and how lately a shopper shops. Changes with every snapshot.

`from: events` — each expression is an aggregate over the shopper's events before the snapshot; see docs/features.md
for the columns. What happened since is not here: the models read it from the shopper's history.
"""

from data_sources import snapshots
from entities import user
from feast import FeatureView, Field
from feast.types import Float32, Int64

user_activity = FeatureView(
    name="user_activity",
    entities=[user],
    schema=[
        Field(name="events_7d", dtype=Int64, tags={"sql": "count(*) FILTER (age_d <= 7)"}),
        Field(name="events_30d", dtype=Int64, tags={"sql": "count(*) FILTER (age_d <= 30)"}),
        Field(name="events_90d", dtype=Int64, tags={"sql": "count(*) FILTER (age_d <= 90)"}),
        Field(name="events", dtype=Int64, tags={"sql": "count(*)"}),
        Field(
            name="purchases_30d",
            dtype=Int64,
            tags={"sql": "count(*) FILTER (event_type = 'purchase' AND age_d <= 30)"},
        ),
        Field(name="purchases", dtype=Int64, tags={"sql": "count(*) FILTER (event_type = 'purchase')"}),
        Field(
            name="orders",
            dtype=Int64,
            description="different sessions, or days where there are no sessions, with a purchase",
            tags={
                "sql": "count(DISTINCT coalesce(session_id, timestamp::DATE::VARCHAR)) FILTER (event_type = 'purchase')"
            },
        ),
        Field(name="recency_d", dtype=Float32, description="days since the last event", tags={"sql": "min(age_d)"}),
        Field(name="tenure_d", dtype=Float32, description="days since the first event", tags={"sql": "max(age_d)"}),
        Field(
            name="items", dtype=Int64, description="different items touched", tags={"sql": "count(DISTINCT item_id)"}
        ),
        Field(
            name="novelty",
            dtype=Float32,
            description="share of purchases of something not bought before",
            tags={"sql": "avg((repetition = 1)::INT) FILTER (event_type = 'purchase')"},
        ),
        Field(
            name="mean_popularity",
            dtype=Float32,
            description="of what was new to them: mean log of the item's events, met by item_activity's popularity",
            tags={"sql": "avg(ln(item_events)) FILTER (repetition = 1)"},
        ),
        Field(
            name="mean_age_d",
            dtype=Float32,
            description="of what was new to them: how old the item was then, met by item_activity's age_d",
            tags={"sql": "avg(item_age_d) FILTER (repetition = 1)"},
        ),
    ],
    source=snapshots("user_activity"),
    tags={"from": "events", "where": "event_type <> 'impression'", "owner": "recommendations"},
    description="How much and how lately a shopper shops",
)

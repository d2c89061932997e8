"""
What a model reads. Training and serving name the same service; it takes whole views, so a new field flows through.

A released model does not read this: it carries the plan that was compiled from it (read_plan.json), so the service may
change before the next training without touching what is being served.
"""

from feast import FeatureService
from item_activity import item_activity
from item_catalogue import item_catalogue
from user_activity import user_activity
from user_profile import user_profile

reranking_v1 = FeatureService(
    name="reranking_v1",
    features=[user_activity, user_profile, item_catalogue, item_activity],
    tags={"owner": "recommendations"},
    description="What the re-ranker knows about shoppers and items beside the history",
)

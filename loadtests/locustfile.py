"""
Shoppers for Locust: Zipf-distributed visits to home shelves, some of them followed by a click.

    locust -f loadtests/locustfile.py --headless -u 32 -r 32 -t 10s --host http://127.0.0.1:8000 --only-summary

CACHED=1 lets a few shoppers come again and again; without it everyone asks for an uncached slate, since each
answer is followed by an event that empties that shopper's cache.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from pathlib import Path

from locust import FastHttpUser, constant, events, task

SHOPPERS = Path(os.environ.get("SHOPPERS", ".tutti/shop/shoppers.json"))
"""Written by training: a dozen shoppers of different habits."""

ZIPF_EXPONENT = 1.1
"""Visits a shopper: a few come often. Online Retail's activity Gini is 0.63 (docs/embedded-shop.md)."""

HEADERS = {"content-type": "application/json"}


class Shopper(FastHttpUser):
    """Looks at the home shelf, and clicks unless the cached path is measured."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Everybody draws from the same shoppers, in an own seeded order."""
        users = [row["user_id"] for row in json.loads(SHOPPERS.read_text())]
        weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, len(users) + 1)]
        rng = random.Random(id(self))  # noqa: S311  # visits, not secrets
        self.visits = rng.choices(users, weights, k=10_000)
        self.cached = os.environ.get("CACHED") == "1"

    @task
    def home(self) -> None:
        """One shelf; a click afterwards makes the next one uncached."""
        user = self.visits.pop()
        body = {"placement": "home", "user_id": user, "count": 12}
        with self.client.post(
            "/v1/recommendations", data=json.dumps(body), headers=HEADERS, name="recommendations", catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            slate = json.loads(answer.text)
            if not slate["items"]:
                answer.failure("empty slate")
                return
        if not self.cached:
            click = {
                "event_id": uuid.uuid4().hex,
                "event_type": "view",
                "item_id": slate["items"][0]["id"],
                "user_id": user,
                "recommendation_id": slate["recommendation_id"],
            }
            self.client.post("/v1/events", data=json.dumps({"events": [click]}), headers=HEADERS, name="events")


@events.quitting.add_listener
def _judge(environment, **_: object) -> None:
    """A run with any failure ends non-zero."""
    environment.process_exit_code = 1 if environment.stats.total.num_failures else 0

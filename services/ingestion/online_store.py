"""
Rows of features into Feast's online store, as Feast's own materialisation would write them.

The rule: one command an entity and view, whole rows, so that a reader sees a row as it was or as it is. What is written
is decided elsewhere (`known_events`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio

from protos import feast_cells, live_features
from protos.feast_layout import EntityPlan, ViewPlan
from services.ingestion.known_events import FeatureRows, Touched
from services.training.feature_tables import ViewSql
from services.training.live_views import LiveViews


class OnlineStore:
    """The features of one project. Join keys are text, as the canonical data has them."""

    def __init__(self, client: redis.asyncio.Redis, views: LiveViews) -> None:
        self._client, self._views = client, views.views
        # One plan a view: Feast's names of keys and fields are known there, and nowhere else.
        self._plans = {view.name: _plan(views.project, view) for view in views.views}

    async def write(self, rows: FeatureRows, touched: Touched) -> int:
        """
        Write *rows*, and take away what is said of entities that are *touched* and have no row any more; then tell who
        holds items in memory.

        Returns:
            Rows written or taken away.

        Raises:
            redis.exceptions.RedisError: any part may have been written; writing it all again is right.
        """
        n_rows = 0
        async with self._client.pipeline(transaction=False) as pipe:
            for view in self._views:
                asked = touched.users if view.key == "user_id" else touched.items
                n_rows += self._queue(pipe, view, rows, asked)
            if touched.items:
                pipe.xadd(
                    live_features.CHANGES,
                    live_features.entry(sorted(touched.items)),  # type: ignore[arg-type]  # its stub wants str
                    maxlen=live_features.CHANGES_MAX_LENGTH,
                    approximate=True,
                )
            if len(pipe):
                await pipe.execute()
        return n_rows

    def _queue(self, pipe: Any, view: ViewSql, rows: FeatureRows, asked: frozenset[str]) -> int:
        plan, table = self._plans[view.name], rows.tables[view.name]
        ids: Sequence[str] = table.column(view.key).to_pylist()
        columns = [feast_cells.column(table.column(field.name).to_pylist(), field.dtype) for field in view.fields]
        at = feast_cells.moment(rows.at_us)
        for place, entity_id in enumerate(ids):
            cells = [*(column[place] for column in columns), at]
            pipe.hset(plan.redis_key(entity_id), mapping=dict(zip(plan.fields, cells, strict=True)))
        gone = sorted(asked.difference(ids))
        for entity_id in gone:
            pipe.hdel(plan.redis_key(entity_id), *plan.fields)
        return len(ids) + len(gone)


def _plan(project: str, view: ViewSql) -> EntityPlan:
    features = tuple((field.name, field.dtype) for field in view.fields)
    return EntityPlan(project, view.key, "STRING", (ViewPlan(view.name, 0.0, features),))

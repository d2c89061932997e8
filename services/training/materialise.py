"""
The newest snapshot of every feature view into the online store, by Feast's own materialisation.

The rule: what is in the store afterwards is what the definitions say now. Rows are written even where the store
already has one of the same moment, because a changed definition changes values and not the moment of the snapshot.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.training import features
from services.training.feature_store import FeatureError, apply, open_store

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def materialise(data: Path, redis_url: str, say: Callable[[str], None]) -> int:
    """
    Bring registry and offline tables up to date where they are not, then write the newest row of each entity.

    Args:
        say: called with one line for each step.

    Returns:
        Rows written, over all views.

    Raises:
        FeatureError: definitions or tables that cannot be used, or Feast failed.
    """
    now = features.now_of(data)
    if not _is_applied(data):
        say("applying the feature definitions")
        apply(data)
    store = open_store(data, redis_url)
    views = {view.name: view for view in store.list_feature_views() if view.online}
    # A tagged view without a snapshot of this data: trained elsewhere, or with another set of moments.
    if any(
        "from" in view.tags and not _is_current(view, features.offline_path(data, name), now)
        for name, view in views.items()
    ):
        say("computing features")
        features.compute(data, [now])
    n_rows = 0
    for name in sorted(views):
        say(f"materialising {name}")
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                store.materialize(_EPOCH, now, feature_views=[name])
        except Exception as error:
            raise FeatureError(f"Feast could not materialise {name}: {error}") from error
        path = features.offline_path(data, name)
        n_rows += _entities(path, views[name].entity_columns[0].name) if path.is_file() else 0
    return n_rows


def _is_applied(data: Path) -> bool:
    """Whether the registry has views and its absolute paths still lead here: a directory may have been moved."""
    views = open_store(data).list_feature_views()
    here = {str(features.offline_path(data.resolve(), view.name)) for view in views if "from" in view.tags}
    return bool(views) and here == {view.batch_source.path for view in views if "from" in view.tags}


def _is_current(view: Any, path: Path, now: datetime) -> bool:
    """Whether the table has every column of the view, and a snapshot of now."""
    if not path.is_file():
        return False
    columns = pq.read_schema(path).names
    if any(field.name not in columns for field in view.features):
        return False
    newest = pc.max(pq.read_table(path, columns=["event_timestamp"]).column("event_timestamp")).as_py()
    return newest is None or bool(newest == now)


def _entities(path: Path, key: str) -> int:
    return int(pc.count_distinct(pq.read_table(path, columns=[key]).column(key)).as_py())

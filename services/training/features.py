"""
Features from definition to training frame and read plan: what stands in the feature repository is all there is.

Four steps, each reads only what the one before wrote: `apply` (definitions → registry), `compute` (events → offline
tables), `historical` (point-in-time join for training), `compile_plan` (registry → what a server reads). A new feature
is one line in a view; no function here knows the name of any.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protos.feast_layout import EntityPlan, ReadPlan, ViewPlan, check_collisions
from services.training import feature_parts, feature_tables, live_views
from services.training.dataset import OPENED_US
from services.training.feature_parts import Only
from services.training.feature_store import FeatureError, apply, open_store
from services.training.feature_tables import FieldSql, ViewSql

__all__ = ["FeatureError", "apply", "compile_plan", "compute", "historical", "matrices", "now_of", "offline_path"]

SERVICE = "reranking_v1"
_ENTITIES = {"user_id": "user", "item_id": "item"}

log = logging.getLogger(__name__)


def offline_path(data: Path, view: str) -> Path:
    """Where Feast finds the offline table of *view*."""
    return data / "features" / f"{view}.parquet"


def now_of(data: Path) -> datetime:
    """The moment right after the last event of *data*, `OPENED_US` without one: what serving of this data calls now."""
    latest = pq.ParquetFile(data / "events.parquet").read(["timestamp"]).column("timestamp")
    values = latest.cast(pa.timestamp("us", "UTC")).cast("int64").to_numpy()
    if not len(values):
        return datetime.fromtimestamp(OPENED_US / 1_000_000, UTC)
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(values.max()) + 1)


def compute(
    data: Path,
    moments: Sequence[datetime],
    *,
    events: Path | None = None,
    items: Path | None = None,
    only: Only | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, int]:
    """
    Write DIR/features/<view>.parquet for every view whose fields carry SQL, replacing it, and `live_views` of them.

    Args:
        moments: when the snapshots are taken; each sees the events strictly before it. With time zone.
        events, items: read from here instead of DIR/events.parquet and DIR/items.parquet.
        only: moment → users that are asked about at it; in a large shop others then have no row of that moment.
        tell: told how many steps are done, and of how many.

    Returns:
        view → rows written. Views without SQL are the engineer's own and left alone.

    Raises:
        FeatureError: nothing applied yet, no moments, an expression DuckDB refuses, or half a definition.
    """
    if not moments:
        raise FeatureError("no moments to take a snapshot at; give at least the moment after the last event")
    store = open_store(data)
    views = _computed_views(store)
    known_events, known_items = (
        events or data / "events.parquet",
        feature_tables.load_items(items or data / "items.parquet"),
    )
    parts: dict[str, list[pa.Table]] = {view.name: [] for view in views}
    for name, rows in _snapshots(data, views, known_events, known_items, sorted(set(moments)), only, tell):
        parts[name].append(rows)
    written = {}
    for name, tables in parts.items():
        table = pa.concat_tables(tables)
        feature_tables.write(offline_path(data, name), table)
        written[name] = table.num_rows
    live_views.save(data, store.config.project, views)
    log.info("features computed: %d moments, rows %s", len(set(moments)), written)
    return written


def _snapshots(
    data: Path,
    views: Sequence[ViewSql],
    events: Path,
    items: pa.Table,
    moments: Sequence[datetime],
    only: Only | None,
    tell: Callable[[int, int], None],
) -> Iterator[tuple[str, pa.Table]]:
    """(view, its rows at one moment); of more events than fit at once, part by part."""
    if not events.is_file() or pq.ParquetFile(events).metadata.num_rows <= feature_tables.SEEN_AT_ONCE:
        known = feature_tables.load_events(events)
        for done, moment in enumerate(moments, 1):
            yield from feature_tables.snapshot(views, known, items, moment).items()
            tell(done, len(moments))
        return
    workshop = data / "features" / ".parts"
    yield from feature_parts.snapshots(views, events, items, moments, workshop, only, tell)


def historical(data: Path, entity_df: pd.DataFrame, service: str = SERVICE) -> pd.DataFrame:
    """
    The features of *service* as they were at each row's `event_timestamp` (Feast's point-in-time join).

    Args:
        entity_df: user_id, item_id, event_timestamp (UTC), and any other columns, which are kept. Rows may repeat.

    Returns:
        The same rows in the same order, with a column `view__feature` each; null where nothing was known yet.

    Raises:
        FeatureError: Feast returned another number of rows than it was asked for.
    """
    store = open_store(data)
    feature_service = store.get_feature_service(service)
    keys = ["user_id", "item_id", "event_timestamp"]
    # Feast joins on (keys, time) and promises no order: ask each combination once, then spread it over the rows.
    asked = entity_df[keys].drop_duplicates(ignore_index=True)
    with warnings.catch_warnings():
        # ibis calls a deprecated method of DuckDB's for each join; nothing a user of ours can do about it.
        warnings.simplefilter("ignore", DeprecationWarning)
        found = store.get_historical_features(asked, feature_service, full_feature_names=True).to_df()
    columns = [f"{p.name}__{f.name}" for p in feature_service.feature_view_projections for f in p.features]
    if len(found) != len(asked) or found.duplicated(keys).any():
        raise FeatureError(f"Feast returned {len(found)} rows for {len(asked)}; the offline store must be duckdb")
    rows = entity_df.merge(found[keys + columns], on=keys, how="left", sort=False, validate="many_to_one")
    if len(rows) != len(entity_df):
        raise FeatureError(f"the training join made {len(rows)} rows of {len(entity_df)}")
    rows.index = entity_df.index
    return rows


def matrices(entity: EntityPlan, frame: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.object_]]:
    """
    The columns of *entity* in a frame of `historical`, exactly as serving will decode them.

    Returns:
        numeric (n, n_numeric) float32, NaN where missing; categorical (n, n_categorical) str, "" where missing.
    """
    numeric = np.empty((len(frame), len(entity.numeric)), np.float32)
    for i, column in enumerate(entity.numeric):
        values = frame[column]
        if pd.api.types.is_datetime64_any_dtype(values):
            values = (values - pd.Timestamp(0, tz=UTC)) / pd.Timedelta(seconds=1)
        numeric[:, i] = pd.to_numeric(values, errors="coerce").to_numpy(np.float32, na_value=np.nan)
    categorical = np.empty((len(frame), len(entity.categorical)), object)
    for i, column in enumerate(entity.categorical):
        categorical[:, i] = frame[column].astype(object).where(frame[column].notna(), "").to_numpy()
    return numeric, categorical


def compile_plan(data: Path, service: str = SERVICE) -> ReadPlan:
    """
    The read plan of *service* as it stands in the registry of *data*.

    Raises:
        FeatureError: no such service; a view that is not of exactly one of user and item, is transformed on demand or
            renamed; or a registry that stores versioned field names.
        PlanError: two features of one entity share a 32-bit field name.
    """
    store = open_store(data)
    if store.config.registry.enable_online_feature_view_versioning:
        raise FeatureError(
            "enable_online_feature_view_versioning changes field names in Redis; tutti does not read them"
        )
    views = {view.name: view for view in store.list_feature_views()}
    for key in _ENTITIES:
        same = [view for view in views.values() if _join_keys(view) == [key]]
        check_collisions(f"{view.name}:{field.name}" for view in same for field in view.features)
    plans: dict[str, list[ViewPlan]] = {key: [] for key in _ENTITIES}
    types = dict.fromkeys(_ENTITIES, "STRING")
    for projection in _service(store, service).feature_view_projections:
        view = views.get(projection.name)
        keys = _join_keys(view) if view is not None else []
        if view is None or len(keys) != 1 or keys[0] not in plans:
            raise FeatureError(
                f"view {projection.name} of service {service} joins on {keys or 'nothing known'}; expected a plain "
                f"feature view on exactly one of {list(_ENTITIES)}"
            )
        if projection.name_alias not in (None, "", view.name) or projection.join_key_map:
            raise FeatureError(
                f"view {view.name} is renamed in service {service}; read plans know views by their own name"
            )
        features = tuple((field.name, _type(field)) for field in projection.features)
        types[keys[0]] = view.entity_columns[0].dtype.to_value_type().name
        plans[keys[0]].append(ViewPlan(view.name, view.ttl.total_seconds() if view.ttl else 0.0, features))
    project = store.config.project
    return ReadPlan(
        service, *(EntityPlan(project, key, types[key], tuple(plans[key])) for key in ("user_id", "item_id"))
    )


def _service(store: Any, name: str) -> Any:
    services = {service.name: service for service in store.list_feature_services()}
    if name not in services:
        raise FeatureError(f"no feature service {name!r} in the registry; it has {sorted(services)}: run `feast apply`")
    return services[name]


def _computed_views(store: Any) -> list[ViewSql]:
    views = store.list_feature_views()
    if not views:
        raise FeatureError("the registry holds no feature view; apply the definitions first (`feast apply`)")
    return sorted((_computed(view) for view in views if "from" in view.tags), key=lambda view: view.name)


def _computed(view: Any) -> ViewSql:
    tags: Mapping[str, str] = view.tags
    keys = _join_keys(view)
    if tags["from"] not in feature_tables.ORIGINS:
        raise FeatureError(
            f"view {view.name} is tagged from={tags['from']!r}; expected one of {feature_tables.ORIGINS}"
        )
    if len(keys) != 1 or keys[0] not in _ENTITIES or (tags["from"] == "items" and keys != ["item_id"]):
        raise FeatureError(
            f"view {view.name} joins on {keys}; one computed from {tags['from']} needs user_id or item_id"
        )
    if bare := [field.name for field in view.features if "sql" not in field.tags]:
        raise FeatureError(
            f"fields {bare} of view {view.name} have no tags={{'sql': …}}; all of a computed view need one"
        )
    fields = tuple(FieldSql(field.name, _type(field), field.tags["sql"]) for field in view.features)
    return ViewSql(view.name, keys[0], tags["from"], tags.get("where", ""), fields)


def _join_keys(view: Any) -> list[str]:
    return [column.name for column in view.entity_columns]


def _type(field: Any) -> str:
    name: str = field.dtype.to_value_type().name
    return name

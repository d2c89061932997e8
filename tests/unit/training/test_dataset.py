"""Canonical files as arrays: numbers for names, in an order that neither file nor chunk decides."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protos import vocabulary
from services.training import dataset
from services.training.vocabulary import maintain

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


def a_directory(folder, events, sessions):
    """Events (user, item, type) a minute apart, in one row group for every two."""
    users, items, types = zip(*events, strict=True) if events else ((), (), ())
    moments = [BEGAN + timedelta(minutes=i) for i in range(len(events))]
    table = pa.table(
        {
            "event_id": pa.array([f"e{i}" for i in range(len(events))], pa.string()),
            "user_id": pa.array(users, pa.string()),
            "item_id": pa.array(items, pa.string()),
            "event_type": pa.array(types, pa.string()),
            "timestamp": pa.array(moments, pa.timestamp("us", "UTC")),
            "session_id": sessions,
        }
    )
    pq.write_table(table, folder / dataset.EVENTS_FILE, row_group_size=2)
    pq.write_table(
        pa.table({"item_id": ["mug", "lamp", "ähre"], "title": ["Mug", "Lamp", None], "price": [1.0, None, 3.0]}),
        folder / dataset.ITEMS_FILE,
    )
    maintain(folder)
    return folder


EVENTS = [
    ("zoe", "lamp", "view"),
    ("Émile", "mug", "purchase"),
    ("anna", "mug", "strange"),
    ("zoe", "ähre", "add_to_cart"),
    ("anna", "lamp", "click"),
]


def test_people_items_types_and_sessions_become_numbers_in_sorted_order(tmp_path):
    sessions = pa.array(["s2", None, "s1", "", "s2"], pa.string())

    loaded = dataset.load(a_directory(tmp_path, EVENTS, sessions))

    ids = vocabulary.read(tmp_path / vocabulary.FILE_NAME)
    assert loaded.user_ids == sorted({user for user, _, _ in EVENTS})
    assert [loaded.user_ids[i] for i in loaded.users] == [user for user, _, _ in EVENTS]
    assert [ids[key] for key in loaded.keys] == [item for _, item, _ in EVENTS]
    assert loaded.types.tolist() == [dataset.TYPE_CODES.get(kind, 0) for _, _, kind in EVENTS]
    assert loaded.sessions.tolist() == [1, -1, 0, -1, 1]
    assert [a.dtype for a in (loaded.users, loaded.keys, loaded.types, loaded.sessions)] == [
        np.dtype(t) for t in ("int32", "int32", "uint8", "int32")
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.null(), pa.large_string()])
def test_a_file_without_one_session_has_none(tmp_path, kind):
    loaded = dataset.load(a_directory(tmp_path, EVENTS, pa.nulls(len(EVENTS), kind)))

    assert loaded.sessions.tolist() == [-1] * len(EVENTS)


def test_a_shop_without_one_event_is_loaded(tmp_path):
    loaded = dataset.load(a_directory(tmp_path, [], pa.array([], pa.string())))

    assert (len(loaded), loaded.user_ids, loaded.until_us) == (0, [], dataset.OPENED_US)

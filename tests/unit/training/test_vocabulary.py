"""Interned keys: appended, never reused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protos import vocabulary as stored
from services.training import vocabulary
from services.training.dataset import DatasetUnusable


def a_shop(folder, catalogue, events):
    pq.write_table(pa.table({"item_id": pa.array(catalogue, pa.string())}), folder / "items.parquet")
    pq.write_table(pa.table({"item_id": pa.array(events, pa.string())}), folder / "events.parquet")


def test_the_catalogue_comes_first_then_what_only_events_know(tmp_path):
    a_shop(tmp_path, ["b", "a"], ["z", "a", "y"])

    assert vocabulary.maintain(tmp_path) == ["b", "a", "y", "z"]


def test_an_item_keeps_its_key_when_others_come_and_go(tmp_path):
    a_shop(tmp_path, ["a", "b", "c"], ["a"])
    before = vocabulary.maintain(tmp_path)
    a_shop(tmp_path, ["d", "c"], ["a", "e"])

    after = vocabulary.maintain(tmp_path)

    assert after[: len(before)] == before
    assert after == ["a", "b", "c", "d", "e"]
    assert stored.read(tmp_path / stored.FILE_NAME) == after


def test_nothing_new_leaves_the_file_alone(tmp_path):
    a_shop(tmp_path, ["a"], ["a"])
    vocabulary.maintain(tmp_path)
    stamp = (tmp_path / stored.FILE_NAME).stat().st_mtime_ns

    vocabulary.maintain(tmp_path)

    assert (tmp_path / stored.FILE_NAME).stat().st_mtime_ns == stamp


def test_a_folder_without_data_says_how_to_make_some(tmp_path):
    with pytest.raises(DatasetUnusable, match="tutti data synth"):
        vocabulary.maintain(tmp_path)

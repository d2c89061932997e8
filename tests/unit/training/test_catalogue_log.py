"""What changed while the shop was open is in the next training's catalogue."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protos import catalogue_log
from protos.catalogue import ItemState
from services.ingestion.catalogue import CatalogueLog
from services.training.catalogue_log import fold


@pytest.fixture
def data(tmp_path):
    rows = {"item_id": ["mug", "pot", "hoe"], "title": ["Mug", "Pot", "Hoe"], "price": [5.0, 9.0, None]}
    pq.write_table(pa.table(rows), tmp_path / "items.parquet")
    return tmp_path


def state(item_id, version, **document):
    return ItemState(item_id, version, 0, document or None)


def items(data):
    return {row["item_id"]: row for row in pq.read_table(data / "items.parquet").to_pylist()}


def test_changed_items_are_changed_new_ones_there_and_deleted_ones_not(data):
    CatalogueLog(data).write(
        [state("mug", 1, title="Cup", price=7.5), state("pot", 2), state("toy", 3, title="Toy", in_stock=False)], 3
    )

    assert fold(data) == 3

    assert items(data) == {
        "hoe": {"item_id": "hoe", "title": "Hoe", "price": None, "in_stock": None},
        "mug": {"item_id": "mug", "title": "Cup", "price": 7.5, "in_stock": None},
        "toy": {"item_id": "toy", "title": "Toy", "price": None, "in_stock": False},
    }


def test_the_last_word_counts_within_a_file_and_between_them(data):
    log = CatalogueLog(data)
    log.write([state("mug", 5, title="First"), state("mug", 6, title="Second")], 6)
    # A Redis that forgot numbers from 1 again.
    log.write([state("mug", 1, title="Third")], 1)

    fold(data)

    assert items(data)["mug"]["title"] == "Third"


def test_attributes_are_text_in_the_column(data):
    CatalogueLog(data).write([state("mug", 1, title="Mug", attributes={"colour": "räd", "size": 3})], 1)

    fold(data)

    assert json.loads(items(data)["mug"]["attributes"]) == {"colour": "räd", "size": 3}
    assert items(data)["pot"]["attributes"] is None


def test_what_was_folded_is_gone_and_the_position_stays(data):
    log = CatalogueLog(data)
    log.write([state("mug", 4, title="Cup")], 4)

    assert (fold(data), fold(data)) == (1, 0)

    assert log.position == 4
    assert list((data / catalogue_log.FOLDER).glob("*.parquet")) == []
    assert items(data)["mug"]["title"] == "Cup"


def test_without_a_log_nothing_is_written(data):
    before = (data / "items.parquet").stat().st_mtime_ns

    assert fold(data) == 0

    assert (data / "items.parquet").stat().st_mtime_ns == before

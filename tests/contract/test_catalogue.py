"""The catalogue, built from columns and read from a data directory."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.adapters import catalogue as catalogues
from orchestrator.adapters.catalogue import Catalogue
from orchestrator.core.model import ItemFilter
from protos import vocabulary
from tests.contract.catalogue import IDS, POPULAR, ROWS, CatalogueContract


class TestBuiltFromColumns(CatalogueContract):
    @pytest.fixture
    def catalogue(self):
        at = [ROWS["item_id"].index(i) if i in ROWS["item_id"] else None for i in IDS]
        columns = {name: [None if row is None else values[row] for row in at] for name, values in ROWS.items()}
        columns["listed"] = [row is not None for row in at]
        return Catalogue(IDS, columns, np.asarray(POPULAR, np.int32))


class TestReadFromADataDirectory(CatalogueContract):
    @pytest.fixture
    def data(self, tmp_path):
        vocabulary.write(tmp_path / vocabulary.FILE_NAME, IDS)
        pq.write_table(pa.table(ROWS), tmp_path / "items.parquet")
        return tmp_path

    @pytest.fixture
    def catalogue(self, data):
        return catalogues.load(data, np.asarray(POPULAR, np.int32))

    def test_popular_keys_of_another_vocabulary_are_ignored_and_missing_ones_come_last(self, data):
        loaded = catalogues.load(data, np.asarray([99, 3, -1], np.int32))

        assert loaded.popular.tolist() == [3, 0, 2]

    def test_a_shop_of_ids_only_can_be_served(self, tmp_path):
        vocabulary.write(tmp_path / vocabulary.FILE_NAME, ["a", "b"])
        pq.write_table(pa.table({"item_id": ["a", "b"]}), tmp_path / "items.parquet")

        loaded = catalogues.load(tmp_path, np.asarray([1, 0], np.int32))

        assert loaded.popular.tolist() == [1, 0]
        assert loaded.properties(0) == {}
        assert not loaded.allowed(ItemFilter(categories=("x",))).any()

    def test_without_files_there_is_no_catalogue(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            catalogues.load(tmp_path, np.empty(0, np.int32))


def test_masks_are_remembered_up_to_a_bound():
    catalogue = Catalogue(["a"], {"price": [1.0]}, np.asarray([0], np.int32))

    for price in range(catalogues.MAX_MASKS + 10):
        assert catalogue.allowed(ItemFilter(price_max=float(price))).tolist() == [price >= 1]

    assert len(catalogue._masks) == catalogues.MAX_MASKS

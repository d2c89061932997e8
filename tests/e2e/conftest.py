"""One small shop, trained once and running once, for every end-to-end test of the session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.system import System, running, tutti


@pytest.fixture(scope="session")
def trained_shop(small_shop_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with models; copy it before changing it."""
    data = tmp_path_factory.mktemp("trained") / "shop"
    shutil.copytree(small_shop_data, data)
    tutti("train", "--data", str(data))
    return data


@pytest.fixture(scope="session")
def system(trained_shop: Path) -> Iterator[System]:
    """The whole system on the trained shop."""
    with running(trained_shop) as up:
        yield up


@pytest.fixture(scope="session")
def shoppers(trained_shop: Path) -> list[str]:
    """Shoppers that training thought worth showing."""
    return [row["user_id"] for row in json.loads((trained_shop / "shoppers.json").read_text())]


@pytest.fixture(scope="session")
def somebody(shoppers: list[str]) -> str:
    """A shopper with a history."""
    return shoppers[0]


@pytest.fixture(scope="session")
def items(trained_shop: Path) -> list[str]:
    """Every item's id."""
    return pq.read_table(trained_shop / "items.parquet")["item_id"].to_pylist()


@pytest.fixture(scope="session")
def an_item(trained_shop: Path) -> str:
    """An item somebody touched lately."""
    return pq.read_table(trained_shop / "events.parquet")["item_id"].to_pylist()[-1]

"""
What integration tests share: a client of the run's Redis, and one tiny shop, made and trained once a run, for every
test that needs one and not one of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis.asyncio

from services.training import pipeline, synthetic
from services.training.pipeline import Trained
from services.training.sources import SourceSpec

SOURCES = (SourceSpec("collaborative_filtering", 30), SourceSpec("content_based", 30))
MODELS = {"collaborative_filtering", "content_based", "reranking", "popular"}
"""What a training on SOURCES makes."""


class TinyShop(NamedTuple):
    """A data directory, trained on SOURCES, and what the training said. Read it; copy it before changing it."""

    data: Path
    trained: Trained


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the real, empty Redis."""
    client = redis.asyncio.Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Canonical data of 60 shoppers and 80 items, not trained; copy it before changing it."""
    folder = tmp_path_factory.mktemp("tiny") / "shop"
    synthetic.build(folder, seed=3, shoppers=60, items=80, days=120)
    return folder


@pytest.fixture(scope="session")
def tiny_shop(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyShop:
    """See `TinyShop`."""
    folder = Path(shutil.copytree(tiny_data, tmp_path_factory.mktemp("tiny_trained") / "shop"))
    return TinyShop(folder, pipeline.train(folder, SOURCES))

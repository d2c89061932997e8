"""From definition to training frame through Feast itself, with this repository's definitions and with one line more."""

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from protos.feast_layout import PlanError
from services.training import features
from services.training.feature_store import DEFAULT_REPOSITORY, FeatureError
from tests.integration.test_seed import LAST, write_shop

pytestmark = pytest.mark.integration

FIELD = """Field(name="views_1h", dtype=Int64, tags={"sql": "count(*) FILTER (age_d <= 1 / 24)"}),"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("definitions") / "shop"
    write_shop(data)
    features.apply(data)
    features.compute(data, [LAST - timedelta(minutes=100), features.now_of(data)])
    return data


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the definitions that may be edited."""
    repo = tmp_path / "feature_repo"
    shutil.copytree(DEFAULT_REPOSITORY, repo, symlinks=True)
    monkeypatch.setenv("TUTTI_FEATURE_REPO", str(repo))
    return repo


def test_the_training_join_gives_each_row_what_was_known_then_in_the_order_asked(shop: Path) -> None:
    minutes = [50, 200, 0, 50]  # two equal rows; one before any snapshot
    asked = pd.DataFrame(
        {
            "user_id": ["anna", "anna", "ben", "anna"],
            "item_id": ["a", "a", "b", "a"],
            "event_timestamp": [LAST - timedelta(minutes=m) + timedelta(microseconds=1) for m in minutes],
            "label": [1, 2, 3, 4],
        },
        index=[9, 5, 7, 1],
    )

    found = features.historical(shop, asked)

    assert found["label"].tolist() == [1, 2, 3, 4]
    assert found.index.tolist() == [9, 5, 7, 1]
    plan = features.compile_plan(shop)
    numeric, categorical = features.matrices(plan.user, found)
    np.testing.assert_array_equal(
        numeric[:, plan.user.numeric.index("user_activity__events")], np.array([150, np.nan, 1, 150], np.float32)
    )
    assert categorical[:, plan.user.categorical.index("user_profile__favourite_category")].tolist() == [
        *("X > Y", "", "", "X > Y")
    ]
    assert set(plan.user.numeric + plan.user.categorical + plan.item.numeric + plan.item.categorical) == set(
        found.columns
    ) - set(asked.columns)


def test_one_line_in_a_view_is_a_feature_in_plan_and_training(repository: Path, tmp_path: Path) -> None:
    data = tmp_path / "shop"
    write_shop(data)
    view = repository / "item_activity.py"
    view.write_text(view.read_text().replace("schema=[", "schema=[" + FIELD, 1))

    features.apply(data)
    features.compute(data, [features.now_of(data)])

    plan = features.compile_plan(data)
    asked = pd.DataFrame({"user_id": ["anna"], "item_id": ["a"], "event_timestamp": [LAST + timedelta(hours=1)]})
    assert plan.item.numeric.index("item_activity__views_1h") >= 0
    # "Now" is a microsecond after the last event, so the sixtieth is an hour and a microsecond old.
    assert features.historical(data, asked)["item_activity__views_1h"].tolist() == [59]


def test_half_a_definition_and_broken_python_are_named(repository: Path, tmp_path: Path) -> None:
    data = tmp_path / "shop"
    write_shop(data)
    view = repository / "item_activity.py"
    good = view.read_text()

    view.write_text(good.replace("schema=[", 'schema=[Field(name="bare", dtype=Int64),', 1))
    features.apply(data)
    with pytest.raises(FeatureError, match="bare"):
        features.compute(data, [features.now_of(data)])

    view.write_text("import nothing_of_that_name")
    with pytest.raises(FeatureError, match="nothing_of_that_name"):
        features.apply(data)


def test_features_that_share_a_field_in_redis_are_refused_before_anybody_reads_them(
    repository: Path, tmp_path: Path
) -> None:
    data = tmp_path / "shop"
    (repository / "collision.py").write_text(
        "from data_sources import snapshots\nfrom entities import item\nfrom feast import FeatureView, Field\n"
        "from feast.types import Int64\n"
        'view = FeatureView(name="view", entities=[item], source=snapshots("view"),\n'
        '    schema=[Field(name="f43328", dtype=Int64), Field(name="f93300", dtype=Int64)])\n'
    )

    features.apply(data)

    with pytest.raises(PlanError, match="share one field"):
        features.compile_plan(data)


def test_an_unknown_service_lists_those_there_are(shop: Path) -> None:
    with pytest.raises(FeatureError, match=r"'reranking_v9'.*reranking_v1"):
        features.compile_plan(shop, "reranking_v9")

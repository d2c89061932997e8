"""Erased people and a data directory: gone from every file, and training does not bring them back."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protos import artefacts, redactions, vocabulary
from services.ingestion import seed
from services.training import dataset as datasets
from services.training import pipeline, redaction, sources

DAY_US = 86_400_000_000


@pytest.fixture
def data(tmp_path):
    """Anna and Erika, two events each, features of both, and what an evaluation kept."""
    rows = [("erika", "a", 1), ("anna", "a", 2), ("erika", "b", 3), ("anna", "b", 4)]
    events = {
        "event_id": [f"e{day}" for _, _, day in rows],
        "user_id": [user for user, _, _ in rows],
        "item_id": [item for _, item, _ in rows],
        "event_type": ["purchase"] * 4,
        "timestamp": pa.array([day * DAY_US for _, _, day in rows], pa.timestamp("us", "UTC")),
        "session_id": pa.array([None] * 4, pa.string()),
    }
    for folder in (tmp_path, tmp_path / "evaluation" / "seed-7"):
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(events), folder / "events.parquet")
        digest = artefacts.sha256_of(folder / "events.parquet")
        artefacts.write_json(folder / "dataset.json", {"sha256": {"events.parquet": digest}})
    pq.write_table(pa.table({"item_id": ["a", "b"], "title": ["A", "B"]}), tmp_path / "items.parquet")
    vocabulary.write(tmp_path / vocabulary.FILE_NAME, ["a", "b"])
    moments = pa.array([5 * DAY_US, 5 * DAY_US], pa.timestamp("us", "UTC"))
    (tmp_path / "features").mkdir()
    features = {"user_id": ["anna", "erika"], "event_timestamp": moments, "taste": [1.0, 2.0]}
    pq.write_table(pa.table(features), tmp_path / "features" / "user_taste.parquet")
    judged = pa.table({"user_id": pa.array(["erika", "anna"]).dictionary_encode(), "hit": [1, 0]})
    pq.write_table(judged, tmp_path / "evaluation" / "judged.parquet")
    (tmp_path / "event_log").mkdir()
    pq.write_table(pa.table({"user_id": ["erika"]}), tmp_path / "event_log" / "part-1.parquet")
    artefacts.write_json(tmp_path / "shoppers.json", [{"user_id": "erika"}, {"user_id": "anna"}])
    return tmp_path


def people_in(data):
    """file → users in it."""
    found = {}
    for path in sorted(data.rglob("*.parquet")):
        if "user_id" in pq.read_schema(path).names:
            ids = pq.ParquetFile(path).read(columns=["user_id"]).column("user_id")
            found[str(path.relative_to(data))] = set(ids.cast(pa.string()).to_pylist())
    return found


def test_without_redactions_nothing_is_touched(data):
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}

    assert redaction.honour(data) == 0

    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_an_erased_user_is_in_no_file_of_the_directory(data):
    redactions.add(data, ["erika"], [], 100 * DAY_US)

    removed = redaction.honour(data)

    assert removed == 2 + 2 + 1 + 1
    assert people_in(data) == {
        # Ingestion's own.
        "event_log/part-1.parquet": {"erika"},
        "evaluation/judged.parquet": {"anna"},
        "evaluation/seed-7/events.parquet": {"anna"},
        "events.parquet": {"anna"},
        "features/user_taste.parquet": {"anna"},
    }
    assert json.loads((data / "shoppers.json").read_text()) == [{"user_id": "anna"}]
    assert list(data.rglob("*.partial")) == []


def test_training_does_not_know_an_erased_user(data):
    redactions.add(data, ["erika"], [], 100 * DAY_US)
    redaction.honour(data)

    loaded = datasets.load(data)

    assert loaded.user_ids == ["anna"]
    assert loaded.keys.tolist() == [0, 1]
    assert loaded.files["events.parquet"] == artefacts.sha256_of(data / "events.parquet")


def test_the_others_rows_are_as_they_were(data):
    before = pq.read_table(data / "events.parquet").to_pylist()
    redactions.add(data, ["erika"], [], 100 * DAY_US)

    redaction.honour(data)

    after = pq.read_table(data / "events.parquet")
    assert after.to_pylist() == [row for row in before if row["user_id"] == "anna"]
    assert after.schema.field("timestamp").type == pa.timestamp("us", "UTC")


def test_what_was_done_after_the_erasure_is_somebody_news(data):
    redactions.add(data, ["erika"], [], 2 * DAY_US)

    redaction.honour(data)

    rows = pq.read_table(data / "events.parquet").to_pylist()
    assert [(row["user_id"], row["event_id"]) for row in rows] == [("anna", "e2"), ("erika", "e3"), ("anna", "e4")]
    assert people_in(data)["features/user_taste.parquet"] == {"anna", "erika"}
    assert people_in(data)["evaluation/judged.parquet"] == {"anna"}, "a row of no moment goes with its person"


def test_what_an_import_brings_back_goes_again(data):
    original = (data / "events.parquet").read_bytes()
    redactions.add(data, ["erika"], [], 100 * DAY_US)
    redaction.honour(data)
    (data / "events.parquet").write_bytes(original)

    assert redaction.honour(data) == 2
    assert redaction.honour(data) == 0


def test_somebody_unknown_here_changes_no_file(data):
    redactions.add(data, ["otto"], ["erika"], 100 * DAY_US)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}

    assert redaction.honour(data) == 0

    assert {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()} == before


def test_a_training_begins_with_it(data):
    redactions.add(data, ["erika"], [], 100 * DAY_US)
    (data / "items.parquet").unlink()

    with pytest.raises(datasets.DatasetUnusable):
        pipeline.train(data, sources.configured())

    assert people_in(data)["events.parquet"] == {"anna"}


def test_a_seeding_begins_with_it(data):
    redactions.add(data, ["erika"], [], 100 * DAY_US)

    (data / vocabulary.FILE_NAME).unlink()

    # Ends at once: nothing was trained, and no Redis is asked.
    with pytest.raises(seed.NotSeeded):
        seed.seed(data, "redis://127.0.0.1:1/0")

    assert people_in(data)["events.parquet"] == {"anna"}

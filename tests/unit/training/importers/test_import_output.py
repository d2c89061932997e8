"""The output folder: all new files or all old ones, and an account that describes them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.training.importers import DatasetError, OutputBusy, import_dataset
from services.training.importers.publish import publish
from services.training.importers.report import ImportReport

GOOD = "user_id,item_id,event_type,timestamp\nu1,i1,view,2024-01-01\nu2,i1,view,2024-01-02\n"
BAD = GOOD + "u3,i1,view,never\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()}


def test_the_schema_is_canonical_and_in_microseconds(write, imported):
    out = imported("canonical", write({"events.csv": GOOD})).out

    events = pq.read_schema(out / "events.parquet")

    assert events.field("timestamp").type == pa.timestamp("us", tz="UTC")
    assert events.names == [
        "event_id",
        "user_id",
        "item_id",
        "event_type",
        "timestamp",
        "session_id",
        "quantity",
        "price",
    ]
    assert pq.read_schema(out / "items.parquet").names == [
        "item_id", "title", "description", "category", "brand", "price", "in_stock", "attributes",
    ]  # fmt: skip


def test_dataset_json_describes_the_files_beside_it(write, imported):
    shop = imported("canonical", write({"events.csv": GOOD}))

    account = json.loads((shop.out / "dataset.json").read_text())

    assert account["source"] == "canonical"
    assert (account["events"], account["items"], account["users"]) == (2, 1, 2)
    assert (account["first_event_at"], account["last_event_at"]) == ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z")
    assert (account["rows_read"], account["rows_kept"], account["rows_dropped"]) == (2, 2, {})
    for name, digest in account["sha256"].items():
        assert hashlib.sha256((shop.out / name).read_bytes()).hexdigest() == digest


def test_a_refused_import_leaves_the_output_as_it_was(write, imported):
    folder = write({"events.csv": GOOD})
    out = imported("canonical", folder).out
    (out / "models").mkdir()
    before = contents(out)

    write({"events.csv": BAD})
    with pytest.raises(DatasetError):
        imported("canonical", folder, out)

    assert contents(out) == before


def test_a_refused_import_leaves_no_folder_it_made(write, tmp_path):
    folder = write({"events.csv": BAD})

    with pytest.raises(DatasetError):
        import_dataset("canonical", folder, tmp_path / "new")

    assert not (tmp_path / "new").exists()


def test_a_second_import_replaces_the_three_files_and_nothing_else(write, imported):
    folder = write({"events.csv": GOOD})
    out = imported("canonical", folder).out
    (out / "vocabulary.parquet").write_bytes(b"kept")

    write({"events.csv": GOOD + "u3,i2,view,2024-01-03\n"})
    report = imported("canonical", folder, out).report

    assert report.events == 3
    assert (out / "vocabulary.parquet").read_bytes() == b"kept"
    assert sorted(contents(out)) == ["dataset.json", "events.parquet", "items.parquet", "vocabulary.parquet"]


def test_a_rename_that_fails_brings_the_old_files_back(tmp_path):
    out, workshop = tmp_path / "out", tmp_path / "workshop"
    out.mkdir()
    workshop.mkdir()
    (out / "a").write_text("old a")
    (out / "c").mkdir()
    (out / "c" / "in the way").touch()
    for name in ("a", "b", "c"):
        (workshop / name).write_text(f"new {name}")

    with pytest.raises(OSError):  # noqa: PT011  the kind differs between systems
        publish([workshop / "a", workshop / "b", workshop / "c"], out)

    assert (out / "a").read_text() == "old a"
    assert not (out / "b").exists()


def test_two_imports_into_one_folder_do_not_mix(write, tmp_path):
    folder, out = write({"events.csv": GOOD}), tmp_path / "out"
    out.mkdir()
    other = os.open(out, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)

    with pytest.raises(OutputBusy):
        import_dataset("canonical", folder, out)

    os.close(other)
    assert import_dataset("canonical", folder, out).events == 2


def test_what_a_killed_import_left_is_cleared_away(write, imported, tmp_path):
    out = tmp_path / "out"
    (out / ".importing").mkdir(parents=True)
    (out / ".importing" / "staged_events.parquet").write_bytes(b"half")

    imported("canonical", write({"events.csv": GOOD}), out)

    assert not (out / ".importing").exists()


def test_an_output_that_is_a_file_is_refused(write, tmp_path):
    (tmp_path / "out").touch()

    with pytest.raises(DatasetError, match="found a file"):
        import_dataset("canonical", write({"events.csv": GOOD}), tmp_path / "out")


def test_a_path_with_wildcards_in_its_name_is_taken_literally(write, imported, tmp_path):
    assert imported("canonical", write({"events.csv": GOOD}), tmp_path / "shop [a]*?").report.events == 2


def test_an_account_that_does_not_add_up_is_a_bug():
    account = {
        "source": "s",
        "users": 1,
        "first_event_at": "",
        "last_event_at": "",
        "items": 1,
        "items_read": 0,
        "items_dropped": {},
        "items_from_events": 1,
        "sha256": {},
    }
    ImportReport(**account, events=2, rows_read=3, rows_kept=2, rows_dropped={"reason": 1})

    with pytest.raises(AssertionError, match="rows do not add up"):
        ImportReport(**account, events=1, rows_read=3, rows_kept=1, rows_dropped={"reason": 1})

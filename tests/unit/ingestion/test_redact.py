"""Erased people and the log's files: their rows go, the others' stay, and nobody ever reads half a file."""

import json
import os
import time

import pyarrow.dataset as ds
import pytest

from services.ingestion import redact
from services.ingestion.redact import ABANDONED_S, CLOCKS_APART_MS, Order, position, rewrite
from services.ingestion.sinks import SCHEMA, ParquetLog, parse

AT_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z


def an_order(user_ids=(), visitor_ids=(), until=(10, 0), at_ms=AT_MS):
    return Order(b"1-0", tuple(user_ids), tuple(visitor_ids), until, at_ms)


def an_event(event_id, received_at="2026-03-01T11:00:00Z", **who):
    fields = {"event_id": event_id, "event_type": "view", "timestamp": "2026-02-28T10:00:00Z", **who}
    return parse(json.dumps(fields | {"received_at": received_at}).encode())


def rows(folder):
    if not list(folder.rglob("*.parquet")):
        return []
    table = ds.dataset(folder, format="parquet", schema=SCHEMA).to_table().sort_by("event_id")
    return [(row["event_id"], row["user_id"], row["visitor_id"]) for row in table.to_pylist()]


@pytest.fixture
def log(tmp_path):
    """Two files of a day: Erika, her browser, Anna at that browser, and Anna alone."""
    written = ParquetLog(tmp_path)
    written.write([an_event("1", user_id="erika"), an_event("2", visitor_id="b"), an_event("5", visitor_id="other")])
    written.write([an_event("3", user_id="anna", visitor_id="b"), an_event("4", user_id="anna")])
    return tmp_path


def test_a_users_rows_go_with_those_of_their_browsers_and_others_keep_theirs(log):
    assert rewrite(log, [an_order(["erika"], ["b"])]) == 3

    assert rows(log) == [("3", "anna", None), ("4", "anna", None), ("5", None, "other")]


def test_an_erased_visitor_is_taken_out_of_what_a_user_did(log):
    rewrite(log, [an_order(visitor_ids=["b"])])

    assert rows(log) == [("1", "erika", None), ("3", "anna", None), ("4", "anna", None), ("5", None, "other")]


def test_a_second_time_finds_nothing_and_writes_nothing(log):
    rewrite(log, [an_order(["erika"], ["b"])])
    before = {path: path.stat().st_mtime_ns for path in log.rglob("*.parquet")}

    assert rewrite(log, [an_order(["erika"], ["b"])]) == 0

    assert {path: path.stat().st_mtime_ns for path in log.rglob("*.parquet")} == before


def test_files_that_do_not_name_them_are_not_written_again(log):
    before = {path: path.stat().st_ino for path in log.rglob("*.parquet")}

    rewrite(log, [an_order(["erika"])])

    unchanged = [path for path, inode in before.items() if path.stat().st_ino == inode]
    assert len(unchanged) == 1


def test_a_file_of_nobody_else_is_gone(tmp_path):
    ParquetLog(tmp_path).write([an_event("1", user_id="erika")])

    assert rewrite(tmp_path, [an_order(["erika"])]) == 1

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_columns_and_types_survive(log):
    rewrite(log, [an_order(["erika"], ["b"])])

    for path in log.rglob("*.parquet"):
        assert ds.dataset(path, format="parquet").schema.names == SCHEMA.names
        assert ds.dataset(path, format="parquet").schema.field("timestamp").type == SCHEMA.field("timestamp").type


def test_who_comes_back_later_is_somebody_new_and_clocks_may_differ(tmp_path):
    received = ["2026-03-01T12:04:59Z", "2026-03-01T12:05:01Z"]
    assert CLOCKS_APART_MS == 300_000
    ParquetLog(tmp_path).write([an_event(str(n), at, user_id="erika") for n, at in enumerate(received)])

    rewrite(tmp_path, [an_order(["erika"])])

    assert [row[0] for row in rows(tmp_path)] == ["1"]


def test_a_row_that_does_not_say_when_it_was_received_goes(tmp_path):
    ParquetLog(tmp_path).write([an_event("1", None, user_id="erika")])

    assert rewrite(tmp_path, [an_order(["erika"])]) == 1


def test_several_orders_are_one_pass_each_with_its_own_moment(log):
    before_all = an_order(["anna"], at_ms=AT_MS - 10_000_000)

    rewrite(log, [an_order(["erika"]), before_all, an_order(visitor_ids=["other"])])

    assert [row[0] for row in rows(log)] == ["2", "3", "4"]


def test_a_disk_that_is_full_leaves_the_old_rows_and_nothing_half_written(log, monkeypatch):
    before = rows(log)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(redact, "to_disk", full)
    with pytest.raises(OSError, match="no space"):
        rewrite(log, [an_order(["erika"], ["b"])])

    assert rows(log) == before
    assert list(log.rglob(".*.partial")) == []


def test_what_a_writer_that_died_left_behind_is_removed_and_what_is_being_written_is_not(log):
    folder = next(log.iterdir())
    dead, alive = folder / ".part-1.parquet.partial", folder / ".part-2.parquet.partial"
    for path in (dead, alive):
        path.write_text("erika")
    long_ago = time.time() - ABANDONED_S - 60
    os.utime(dead, (long_ago, long_ago))

    rewrite(log, [an_order(["erika"])])

    assert (dead.exists(), alive.exists()) == (False, True)


def test_a_log_that_was_never_written_is_no_error(tmp_path):
    assert rewrite(tmp_path / "event_log", [an_order(["erika"])]) == 0


@pytest.mark.parametrize(
    ("who", "left"),
    [
        ({"user_id": "erika"}, None),
        ({"user_id": "erika", "visitor_id": "other"}, None),
        ({"visitor_id": "b"}, None),
        ({"user_id": "anna", "visitor_id": "b"}, ("anna", None)),
        ({"user_id": "anna", "visitor_id": "other"}, ("anna", "other")),
        ({"visitor_id": "erika"}, (None, "erika")),
        ({}, (None, None)),
    ],
)
def test_an_event_on_its_way_is_redacted_by_the_same_rule(who, left):
    event = an_order(["erika"], ["b"]).redacted(an_event("1", **who))

    assert (event and (event.columns["user_id"], event.columns["visitor_id"])) == left


@pytest.mark.parametrize(
    ("raw", "is_mentioned"),
    [
        (b'{"user_id":"erika"}', True),
        (b'{"user_id":"anna","visitor_id":"b"}', True),
        (b'{"user_id":"anna","item_id":"erika"}', False),
        (b'{"user_id":"erika mustermann"}', False),
        ('{"user_id":"é"}'.encode(), True),
        (b'{"user_id":"\\u00e9"}', True),
        (b'no JSON, "erika"', True),
        (b'["erika"]', True),
        (b"no JSON, erika", False),
        (b"\xff", False),
    ],
)
def test_an_entry_that_names_them_is_found_however_it_was_written(raw, is_mentioned):
    assert an_order(["erika", "é"], ["b"]).is_mentioned_in(raw) is is_mentioned


def test_an_order_covers_what_was_there_before_it():
    order = an_order(["erika"], until=(10, 2))

    assert [order.covers(entry) for entry in (b"9-7", b"10-2", b"10-3", b"100-0")] == [True, True, False, False]
    assert position(b"10-2") == (10, 2)


def test_an_order_shows_no_id():
    assert "erika" not in repr(an_order(["erika"]))

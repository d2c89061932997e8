"""Slates into files: by kind and day, and never one of somebody who was erased."""

import pyarrow.parquet as pq

from protos import redactions
from protos.slate_log import MADE, SERVED, made_row, served_row
from services.ingestion.redact import Order, rewrite
from services.ingestion.slates import SlateFiles
from tests.support.slate_log import AT_S, a_made, a_served

AT_US = int(AT_S * 1e6)


def rows(folder):
    tables = [pq.ParquetFile(path).read() for path in sorted(folder.rglob("part-*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]


def write(data, *messages, made=()):
    return SlateFiles(data).write({SERVED: [served_row(m) for m in messages], MADE: [made_row(m) for m in made]})


def test_each_kind_has_its_folder_and_each_day_its_file(tmp_path):
    written = write(tmp_path, a_served("r1"), a_served("r2", at_s=AT_S + 86_400), made=[a_made("r1")])

    assert written == 3
    folders = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("part-*.parquet"))
    assert folders == [
        "slate_log/made/date=2026-03-01",
        "slate_log/served/date=2026-03-01",
        "slate_log/served/date=2026-03-02",
    ]


def test_who_was_erased_is_not_written_and_who_came_back_is(tmp_path):
    redactions.add(tmp_path, ["anna"], [], AT_US)
    hour_s = 3600

    write(
        tmp_path,
        a_served("before", user_id="anna", at_s=AT_S - 1),
        a_served("after", user_id="anna", at_s=AT_S + hour_s),
        a_served("another", user_id="bert", at_s=AT_S - 1),
        made=[a_made("before", user_id="anna", at_s=AT_S - 1)],
    )

    assert [row["recommendation_id"] for row in rows(tmp_path / "slate_log/served")] == ["after", "another"]
    assert rows(tmp_path / "slate_log/made") == []


def test_an_erased_visitor_leaves_another_users_slate_without_a_name(tmp_path):
    redactions.add(tmp_path, [], ["browser"], AT_US)

    write(
        tmp_path,
        a_served("hers", user_id="bert", visitor_id="browser"),
        a_served("its", user_id=None, visitor_id="browser"),
    )

    (row,) = rows(tmp_path / "slate_log")
    assert (row["recommendation_id"], row["user_id"], row["visitor_id"]) == ("hers", "bert", None)


def test_an_erasure_takes_slates_out_of_files_that_were_written_before(tmp_path):
    write(
        tmp_path,
        a_served("r1", user_id="anna"),
        a_served("r2", user_id="bert", visitor_id="browser"),
        made=[a_made("r1", user_id="anna")],
    )

    changed = rewrite(tmp_path / "slate_log", [Order(b"1-0", ("anna",), ("browser",), (1, 0), AT_US // 1000)])

    assert changed == 3
    (row,) = rows(tmp_path / "slate_log")
    assert (row["recommendation_id"], row["user_id"], row["visitor_id"]) == ("r2", "bert", None)
    assert row["keys"] == [5, 9]

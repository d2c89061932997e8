"""
Features of those an event touched, from all their events: the same rows that a snapshot of everything has, whatever
came twice, late, from a guest or from somebody who was erased.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from protos import redactions
from services.ingestion.known_events import FEW, KnownEvents, Touched
from services.ingestion.sinks import SCHEMA, LoggedEvent, ParquetLog
from services.training import feature_tables
from services.training.feature_tables import FieldSql, ViewSql
from tests.support.small_shop import START_US, tastes, write_shop

NOT_SHOWN = "event_type <> 'impression'"
VIEWS = (
    ViewSql(
        "of_item",
        "item_id",
        "events",
        NOT_SHOWN,
        (
            FieldSql("views", "INT64", "count(*) FILTER (event_type = 'view')"),
            FieldSql("buyers", "INT64", "count(DISTINCT user_id)"),
            FieldSql("again", "INT64", "count(*) FILTER (repetition > 1)"),
            FieldSql("lately", "FLOAT", "sum(pow(2, -age_d / 3))"),
            FieldSql("age_d", "FLOAT", "max(age_d)"),
        ),
    ),
    ViewSql(
        "of_user",
        "user_id",
        "events",
        NOT_SHOWN,
        (
            FieldSql("events", "INT64", "count(*)"),
            FieldSql("favourite", "STRING", "mode(category)"),
            FieldSql("popularity", "FLOAT", "avg(ln(item_events)) FILTER (repetition = 1)"),
            FieldSql("newness", "FLOAT", "avg(item_age_d) FILTER (repetition = 1)"),
            FieldSql("spent", "FLOAT", "avg(price)"),
        ),
    ),
)
LAST = datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(days=130)


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop", tastes(users=12, items=10, days=120, each=9))


def known(shop):
    return KnownEvents(shop, VIEWS, redactions.read(shop))


def an_event(number, user="u1", item="i1", kind="view", minutes=0.0, visitor=None):
    columns = dict.fromkeys(SCHEMA.names) | {
        "event_id": f"live{number}",
        "user_id": user,
        "visitor_id": visitor,
        "item_id": item,
        "event_type": kind,
        "timestamp": LAST + timedelta(minutes=minutes),
        "received_at": LAST + timedelta(minutes=minutes),
    }
    return LoggedEvent(columns)


def everything(shop, events, at_us):
    """The snapshot that training would take of base and *events*."""
    base = feature_tables.load(shop / "events.parquet", feature_tables.OPTIONAL_EVENTS)
    names = ["event_id", "user_id", "item_id", "event_type", "timestamp", "session_id", "quantity", "price"]
    live = pa.table({n: [e.columns[n] for e in events] for n in names}, pa.schema([SCHEMA.field(n) for n in names]))
    together = pa.concat_tables([base.select(names).cast(live.schema), live])
    with feature_tables.new_database() as database:
        database.register("events", together)
        ready = database.sql(feature_tables.REPETITIONS.format(events="events")).to_arrow_table()
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at_us)
    return feature_tables.snapshot(VIEWS, ready, feature_tables.load_items(shop / "items.parquet"), moment)


def assert_as_training_has_them(shop, rows, touched, events):
    expected = everything(shop, events, rows.at_us)
    for view, ids in (("of_item", touched.items), ("of_user", touched.users)):
        key = "item_id" if view == "of_item" else "user_id"
        wanted = [row for row in expected[view].to_pylist() if row[key] in ids]
        for row in wanted:
            del row["event_timestamp"], row["created_timestamp"]
        assert rows.tables[view].to_pylist() == wanted


def test_rows_of_touched_entities_are_those_of_a_snapshot_of_everything(shop):
    events = [
        an_event(1, "u1", "i1"),
        an_event(2, "u1", "i2", "purchase", 1),
        an_event(3, "u2", "i1", "impression", 2),
        an_event(4, "new", "i9", "add_to_cart", 3),
        an_event(5, "u1", "i1", "view", 4),
    ]
    one = known(shop)

    touched = one.add(events)
    rows = one.features(touched)

    assert touched == Touched(frozenset({"u1", "u2", "new"}), frozenset({"i1", "i2", "i9"}))
    assert rows.at_us == int((LAST + timedelta(minutes=4)).timestamp() * 1e6) + 1
    assert_as_training_has_them(shop, rows, touched, events)


def test_what_came_in_batches_and_what_lies_in_the_log_give_the_same_rows(shop):
    rng = np.random.default_rng(5)
    kinds = ["view", "purchase", "add_to_cart", "impression"]
    events = [
        an_event(n, f"u{rng.integers(14)}", f"i{rng.integers(12)}", kinds[int(rng.integers(4))], n) for n in range(60)
    ]
    in_batches = known(shop)
    for start in range(0, 60, 7):
        in_batches.add(events[start : start + 7])
    ParquetLog(shop / "event_log").write(events[:40])
    from_log = known(shop)
    touched = from_log.live() | from_log.add(events[30:])

    ours, theirs = in_batches.features(touched), from_log.features(touched)

    assert len(in_batches) == len(from_log)
    assert ours.at_us == theirs.at_us
    assert ours.tables == theirs.tables
    assert_as_training_has_them(shop, ours, touched, events)


def test_few_who_are_asked_for_one_by_one_get_the_rows_that_many_get_together(shop):
    one = known(shop)
    few = one.add([an_event(1, "u1", "i1"), an_event(2, "u2", "i1", "purchase", 1), an_event(3, "u1", "i2", minutes=2)])
    nobody = frozenset(f"nobody{n}" for n in range(FEW + 1))

    rows = one.features(few)

    assert rows == one.features(Touched(few.users | nobody, few.items | nobody))
    assert rows.tables["of_user"].num_rows == rows.tables["of_item"].num_rows == 2


def test_an_event_that_comes_twice_counts_once(shop):
    one, twice = known(shop), known(shop)
    touched = one.add([an_event(1)])
    twice.add([an_event(1), an_event(1)])
    again = twice.add([an_event(1)])

    assert len(one) == len(twice)
    assert again == touched
    assert one.features(touched).tables == twice.features(touched).tables


def test_an_event_without_an_item_touches_nobody(shop):
    assert not known(shop).add([an_event(1, item=None)])


def test_a_guest_counts_for_the_item_and_has_no_row_until_merged(shop):
    one = known(shop)
    touched = one.add([an_event(1, user=None, visitor="browser"), an_event(2, user=None, visitor="browser", minutes=1)])

    assert touched == Touched(frozenset(), frozenset({"i1"}))
    assert one.guests() == one.guests(["browser", "other"]) == ["browser"]
    assert one.guests([]) == []

    merged = one.identify({"browser": "newcomer"})

    assert merged == Touched(frozenset({"newcomer"}), frozenset({"i1"}))
    (row,) = one.features(merged).tables["of_user"].to_pylist()
    assert row["events"] == 2
    assert one.guests() == []


def test_an_erased_person_is_in_no_row_and_their_items_are_counted_without_them(shop):
    one = known(shop)
    before = one.features(Touched(frozenset({"u1"}), frozenset({"i1"})))
    one.add([an_event(1, "u1", "i1"), an_event(2, None, "i1", visitor="browser")])
    redactions.add(shop, ["u1"], ["browser"], int(LAST.timestamp() * 1e6) + 60_000_000)

    gone = one.forget(redactions.read(shop))
    rows = one.features(gone)

    assert "u1" in gone.users
    assert "i1" in gone.items
    assert [row["user_id"] for row in before.tables["of_user"].to_pylist()] == ["u1"]
    assert rows.tables["of_user"].num_rows == 0
    # The next life, which never saw what was erased, counts the same.
    again = known(shop).features(gone)
    counts = ["item_id", "views", "buyers", "again"]
    assert again.tables["of_item"].select(counts) == rows.tables["of_item"].select(counts)


def test_what_a_topic_gives_again_of_an_erased_person_counts_for_nobody(shop):
    theirs = [an_event(1, "erika"), an_event(2, None, visitor="browser"), an_event(3, "anna")]
    redactions.add(shop, ["erika"], ["browser"], int((LAST + timedelta(hours=1)).timestamp() * 1e6))
    one = known(shop)
    before = len(one)

    touched = one.add(theirs)

    assert len(one) == before + 1
    assert touched.users == {"anna"}


def totals(one):
    kept = one._database.execute("SELECT * FROM item_totals ORDER BY item_id").fetchall()
    counted = "SELECT item_id, count(*), min(timestamp) FROM known GROUP BY item_id ORDER BY item_id"
    return kept, one._database.execute(counted).fetchall()


def test_what_is_kept_of_items_is_what_counting_all_events_gives(shop):
    one = known(shop)
    early = an_event(3, "u3", "i2", minutes=-10_000_000)
    one.add([an_event(1), an_event(1), an_event(2, item="never seen"), early])
    one.add([an_event(1), an_event(4, "erika", "hers")])
    one.identify({"browser": "u1"})

    kept, counted = totals(one)
    assert kept == counted
    assert {item_id for item_id, *_ in kept} >= {"never seen", "hers"}

    redactions.add(shop, ["erika", "u1"], [], int((LAST + timedelta(hours=1)).timestamp() * 1e6))
    one.forget(redactions.read(shop))
    kept, counted = totals(one)
    assert kept == counted
    assert "hers" not in {item_id for item_id, *_ in kept}


def test_an_erased_person_who_comes_back_is_somebody_new(shop):
    one = known(shop)
    redactions.add(shop, ["u1"], [], int(LAST.timestamp() * 1e6))
    one.forget(redactions.read(shop))

    touched = one.add([an_event(1, "u1", "i1", minutes=5)])

    (row,) = one.features(touched).tables["of_user"].to_pylist()
    assert row["events"] == 1


def test_the_log_is_told_from_the_base_and_the_base_from_a_moment_on(shop):
    one = known(shop)
    assert not one.live()

    one.add([an_event(1, "u1", "i1")])

    assert one.live() == Touched(frozenset({"u1"}), frozenset({"i1"}))
    assert len(one.live(START_US).users) == 12
    assert one.live(int(LAST.timestamp() * 1e6)) == one.live()
    assert one.items() >= {"i1"}

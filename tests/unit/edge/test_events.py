"""POST /v1/events: each event is judged alone, and what is accepted is in the log before 202."""

import time

import orjson
import pytest

from orchestrator.core.model import Loss
from orchestrator.edge.answers import EventsAnswer
from orchestrator.edge.receive_events import judge

NOW_US = 1_800_000_000_000_000


def an_event(**fields):
    return {"event_id": "e1", "event_type": "view", "item_id": "item-1", "user_id": "u1", **fields}


async def send(client, *events):
    return await client.post("/v1/events", json={"events": list(events)})


def judged(document, catalogue):
    """The one rejection's field, or the event."""
    events, rejected = judge([document], catalogue, NOW_US)
    assert len(events) + len(rejected) == 1
    return rejected[0].field if rejected else events[0]


async def test_an_accepted_event_is_in_the_log_in_its_canonical_form(client, event_log):
    response = await send(
        client,
        an_event(
            event_type="purchase",
            timestamp="2026-03-01T13:00:00+01:00",
            quantity=2,
            price=4.5,
            recommendation_id="r1",
            position=3,
            session_id="s1",
        ),
    )

    assert response.status_code == 202
    assert response.json() == {"accepted": 1, "duplicates": 0, "rejected": [], "watermark": 1}
    event = event_log.events["e1"]
    assert (event.subject, event.key, event.type_code, event.at_us) == ("u:u1", 1, 6, 1_772_366_400_000_000)
    body = orjson.loads(event.body)
    assert body.pop("received_at").endswith("Z")
    assert body == {
        "event_id": "e1",
        "event_type": "purchase",
        "item_id": "item-1",
        "user_id": "u1",
        "session_id": "s1",
        "timestamp": "2026-03-01T12:00:00.000000Z",
        "quantity": 2.0,
        "price": 4.5,
        "recommendation_id": "r1",
        "position": 3,
    }


async def test_a_repeated_event_is_a_duplicate_and_not_an_error(client, event_log):
    await send(client, an_event())
    response = await send(client, an_event(), an_event(event_id="e2"))

    assert response.json() == {"accepted": 1, "duplicates": 1, "rejected": [], "watermark": 2}
    again = await send(client, an_event())
    assert (again.status_code, again.json()["accepted"], again.json()["duplicates"]) == (202, 0, 1)


async def test_bad_events_do_not_hold_back_good_ones(client, event_log):
    response = await send(
        client, an_event(event_type="stare"), an_event(event_id="good"), 7, an_event(event_id="x", price=-1)
    )

    assert response.status_code == 202
    body = response.json()
    EventsAnswer.model_validate(body)
    assert body["accepted"] + body["duplicates"] + len(body["rejected"]) == 4
    assert [(one["index"], one["field"]) for one in body["rejected"]] == [(0, "event_type"), (2, "body"), (3, "price")]
    assert list(event_log.events) == ["good"]


async def test_nothing_accepted_is_a_problem_that_names_each_field(client, event_log, refused):
    response = await send(client, an_event(event_type="stare"), an_event(user_id=None))

    document = refused(response, 422, "events[0].event_type")
    assert [error["field"] for error in document["errors"]] == ["events[0].event_type", "events[1].user_id"]
    assert [one["index"] for one in document["rejected"]] == [0, 1]
    assert event_log.events == {}


def test_an_event_older_than_a_history_is_kept_is_logged_and_in_no_list(running):
    [event], _ = judge([an_event(timestamp=NOW_US / 1e6 - 100)], running.catalogue, NOW_US, NOW_US - 99_000_000)
    [late], _ = judge([an_event(timestamp=NOW_US / 1e6 - 98)], running.catalogue, NOW_US, NOW_US - 99_000_000)

    assert (event.key, late.key) == (None, 1)
    assert event.subject == "u:u1", "it counts for the watermark"
    assert orjson.loads(event.body)["item_id"] == "item-1"


async def test_how_long_a_history_is_kept_goes_by_the_shops_clock(client, running, event_log):
    day_s = 86_400
    for event_id, age_days in (("kept", 399), ("too old", 401)):
        await send(client, an_event(event_id=event_id, timestamp=running.shop_now() - age_days * day_s))

    assert event_log.events["kept"].key == 1
    assert event_log.events["too old"].key is None


async def test_a_visitor_is_enough(client, event_log):
    response = await send(client, an_event(user_id=None, visitor_id="v1"))

    assert response.status_code == 202
    assert event_log.events["e1"].subject == "v:v1"


async def test_an_unknown_item_is_logged_without_a_key(client, event_log):
    response = await send(client, an_event(item_id="gone"))

    assert response.status_code == 202
    assert event_log.events["e1"].key is None
    assert orjson.loads(event_log.events["e1"].body)["item_id"] == "gone"


async def test_a_batch_about_several_shoppers_has_no_single_watermark(client):
    response = await send(client, an_event(), an_event(event_id="e2", user_id="u2"))

    assert response.json()["watermark"] is None


async def test_an_event_without_a_moment_happened_now(client, event_log):
    before = time.time_ns() // 1000
    await send(client, an_event())

    assert before <= event_log.events["e1"].at_us <= time.time_ns() // 1000


@pytest.mark.parametrize(
    ("timestamp", "at_us"),
    [
        (None, NOW_US),
        (0, 0),
        (1_799_999_999.5, 1_799_999_999_500_000),
        ("2026-03-01T12:00:00Z", 1_772_366_400_000_000),
        ("2026-03-01T12:00:00.000001+00:00", 1_772_366_400_000_001),
        (NOW_US / 1e6 + 299, NOW_US + 299_000_000),
    ],
)
def test_a_moment_may_be_text_or_seconds(running, timestamp, at_us):
    assert judged(an_event(timestamp=timestamp), running.catalogue).at_us == at_us


@pytest.mark.parametrize(
    "timestamp",
    [
        -1,
        NOW_US / 1e6 + 301,
        NOW_US // 1000,
        NOW_US,
        1e300,
        True,
        "",
        "yesterday",
        "2026-03-01",
        "2026-03-01T12:00:00",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+23:00",
        "9999-12-31T23:59:59Z",
        "2026-13-01T00:00:00Z",
        [],
        {},
    ],
)
def test_an_impossible_moment_is_refused(running, timestamp):
    assert judged(an_event(timestamp=timestamp), running.catalogue) == "timestamp"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"event_id": None}, "event_id"),
        ({"event_id": "a\tb"}, "event_id"),
        ({"event_id": "x" * 257}, "event_id"),
        ({"event_type": "VIEW"}, "event_type"),
        ({"item_id": 5}, "item_id"),
        ({"item_id": ""}, "item_id"),
        ({"quantity": 0}, "quantity"),
        ({"quantity": -2}, "quantity"),
        ({"quantity": "2"}, "quantity"),
        ({"price": -0.01}, "price"),
        ({"position": -1}, "position"),
        ({"position": 1.5}, "position"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_of_an_event_is_named(running, fields, name):
    assert judged(an_event(**fields), running.catalogue) == name


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "events"),
        ({"events": []}, "events"),
        ({"events": {}}, "events"),
        ({"events": [{}] * 501}, "events"),
        ({"events": [{}], "user_id": "u1"}, "user_id"),
        ([], "body"),
    ],
)
async def test_a_wrong_envelope_is_refused_whole(client, refused, body, name):
    refused(await client.post("/v1/events", json=body), 422, name)


async def test_a_log_that_is_down_is_said_so_with_the_advice_to_repeat(client, event_log, refused):
    event_log.loss = Loss.UNAVAILABLE

    response = await send(client, an_event())

    document = refused(response, 503)
    assert document["type"] == "/docs#events-unavailable"
    assert response.headers["retry-after"] == "1"

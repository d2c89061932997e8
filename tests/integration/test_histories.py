"""Histories of a data directory into Redis: what was done and what was shown, and nothing of the edge's lost."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import redis

from protos import vocabulary
from protos.history import (
    MAX_ENTRIES,
    SEEDED_FOR_S,
    decode_entries,
    encode_entries,
    history_key,
    shown_key,
    watermark_key,
)
from services.ingestion import histories
from tests.support.builders import CLICK, IMPRESSION

pytestmark = pytest.mark.integration

LAST = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def data(tmp_path):
    """Anna bought a long ago and was shown b more often than a list holds."""
    rows = [("anna", "a", "purchase", 10_000), *(("anna", "b", "impression", n) for n in range(MAX_ENTRIES + 50))]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "minutes"])
    frame["timestamp"] = [LAST - timedelta(minutes=int(minutes)) for minutes in frame.pop("minutes")]
    frame.sort_values("timestamp").to_parquet(tmp_path / "events.parquet", coerce_timestamps="us")
    vocabulary.write(tmp_path / vocabulary.FILE_NAME, ["a", "b"])
    return tmp_path


def test_impressions_push_nothing_out_of_the_history(data, redis_url):
    with redis.Redis.from_url(redis_url) as client:
        written = histories.write(data, client)

        done = decode_entries(client.lrange(history_key("u:anna"), 0, -1))
        shown = decode_entries(client.lrange(shown_key("u:anna"), 0, -1))
        watermark = int(client.get(watermark_key("u:anna")))
        lives_s = [client.ttl(key("u:anna")) for key in (history_key, shown_key, watermark_key)]
    assert done["key"].tolist() == [0]
    assert shown["key"].tolist() == [1] * MAX_ENTRIES
    assert (shown["at_us"][1:] > shown["at_us"][:-1]).all()
    assert written == (1, MAX_ENTRIES + 1)
    assert watermark == MAX_ENTRIES + 1
    assert all(SEEDED_FOR_S - 60 < ttl <= SEEDED_FOR_S for ttl in lives_s)


def test_what_the_edge_wrote_since_stays_in_front_of_both(data, redis_url):
    later = int(LAST.timestamp() * 1e6) + 1
    live = encode_entries([1, 0], [CLICK, IMPRESSION], [later, later + 1])
    with redis.Redis.from_url(redis_url) as client:
        histories.write(data, client)
        client.lpush(history_key("u:anna"), live[0])
        client.lpush(shown_key("u:anna"), live[1])

        histories.write(data, client)

        assert client.lrange(history_key("u:anna"), 0, 0) == [live[0]]
        assert client.llen(history_key("u:anna")) == 2
        assert client.lrange(shown_key("u:anna"), 0, 0) == [live[1]]
        assert client.llen(shown_key("u:anna")) == MAX_ENTRIES

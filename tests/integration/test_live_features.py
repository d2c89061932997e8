"""
Features while the shop is open: rows of Feast's own bytes, fresh after an event, in the re-ranker's memory within the
same moment, whole again after a seeding.
"""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import redis
import redis.asyncio

from protos import redactions, vocabulary
from protos.history import identity_key
from protos.live_features import CHANGES, POSITION
from services.chassis.item_matrix import ItemMatrix
from services.chassis.telemetry import start_logging
from services.ingestion.consume import DEAD, GROUP, STREAM, connect
from services.ingestion.features import FeatureFollower
from services.ingestion.known_events import KnownEvents
from services.ingestion.lag import look
from services.ingestion.online_store import OnlineStore
from services.ingestion.seed import seed
from services.ingestion.tails import RedisTail
from services.training import features, live_views, materialise, synthetic
from services.training import vocabulary as training_vocabulary
from tests.support.ingestion import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop whose features are defined by the repository and computed; no model."""
    data = tmp_path_factory.mktemp("shop")
    synthetic.build(data, seed=3, shoppers=40, items=50, days=90)
    training_vocabulary.maintain(data)
    features.apply(data)
    features.compute(data, [features.now_of(data)])
    return data


@asynccontextmanager
async def following(url, data, every_s=0.02):
    stop, client = asyncio.Event(), connect(url)
    log = start_logging("test")
    follower = FeatureFollower(client, data, RedisTail(client, STREAM, GROUP), log, every_s=every_s, look_every_s=0.05)
    task = asyncio.create_task(follower.run(stop))
    try:
        yield follower
    finally:
        stop.set()
        await task
        await client.aclose()


async def send(client, data, *events):
    """Each a moment after the last of the data, in order."""
    last = None
    for number, event in enumerate(events):
        at = features.now_of(data) + timedelta(seconds=number)
        document = {"event_id": f"live{number}", "event_type": "view", "timestamp": at.isoformat(), **event}
        last = await client.xadd(STREAM, {"event": json.dumps(document)})
    return last


def settled_at(client, entry):
    async def is_settled():
        return await client.get(POSITION) == entry

    return is_settled


async def row(client, entity, entity_id):
    columns = entity.decode([await client.hmget(entity.redis_key(entity_id), entity.fields)], 2e9)
    numeric = dict(zip(entity.numeric, columns.numeric[0].tolist(), strict=True))
    return numeric | dict(zip(entity.categorical, columns.categorical[0].tolist(), strict=True))


def hashes(url):
    with redis.Redis.from_url(url) as client:
        return {key: client.hgetall(key) for key in client.scan_iter(count=1000) if client.type(key) == b"hash"}


async def test_a_row_written_here_is_byte_for_byte_the_one_that_feast_materialises(shop, redis_url):
    materialise.materialise(shop, redis_url, print)
    by_feast = hashes(redis_url)
    views = live_views.load(shop)
    known = KnownEvents(shop, views.views, redactions.read(shop))
    everybody = known.live(0)
    with redis.Redis.from_url(redis_url) as sync:
        sync.flushall()
    client = connect(redis_url)

    n_rows = await OnlineStore(client, views).write(known.features(everybody), everybody)

    await client.aclose()
    written = hashes(redis_url)
    item = features.compile_plan(shop).item
    of_training = set(replace(item, views=tuple(v for v in item.views if v.name == "item_catalogue")).fields)
    expected = {key: {f: v for f, v in fields.items() if f not in of_training} for key, fields in by_feast.items()}
    assert written == {key: fields for key, fields in expected.items() if fields}
    assert n_rows == 2 * len(everybody.users) + len(everybody.items)


async def test_an_event_counts_in_its_users_and_its_items_row(shop, redis_url, client):
    seed(shop, redis_url)
    plan = features.compile_plan(shop)
    item, user = vocabulary.read(shop / vocabulary.FILE_NAME)[0], "somebody-new"
    before = await row(client, plan.item, item)

    async with following(redis_url, shop):
        last = await send(
            client,
            shop,
            {"user_id": user, "item_id": item},
            {"user_id": user, "item_id": item, "event_type": "purchase"},
            {"user_id": None, "visitor_id": "guest", "item_id": item},
        )
        await until(settled_at(client, last))

    after, theirs = await row(client, plan.item, item), await row(client, plan.user, user)
    assert after["item_activity__views_7d"] == np.nan_to_num(before["item_activity__views_7d"]) + 2
    assert after["item_activity__purchases"] == np.nan_to_num(before["item_activity__purchases"]) + 1
    assert after["item_catalogue__price"] == before["item_catalogue__price"]
    assert (theirs["user_activity__events"], theirs["user_activity__orders"]) == (2, 1)
    named = [fields[b"items"] for _, fields in await client.xrange(CHANGES)]
    assert item.encode() in b"\n".join(named).split(b"\n")
    assert (await look(client)).features_s == 0.0


class Told:
    """A follower that notes the keys of each publishing."""

    def __init__(self):
        self.taken, self.published = set(), []

    def take(self, keys, numeric, categorical):
        self.taken |= set(keys.tolist())

    def publish(self):
        if self.taken:
            self.published.append(self.taken)
        self.taken = set()


async def test_the_item_matrix_reads_what_changed_and_tells_which(shop, redis_url, client):
    seed(shop, redis_url)
    plan, ids = features.compile_plan(shop), vocabulary.read(shop / vocabulary.FILE_NAME)
    told, matrix = Told(), ItemMatrix(plan, ids, redis_url)
    matrix.start(every_s=600, follower=told)
    try:
        before, column = matrix.numeric, plan.item.numeric.index("item_activity__views_7d")
        async with following(redis_url, shop):
            await send(client, shop, {"user_id": "u", "item_id": ids[3]})

            async def has_changed():
                return 3 in told.published[-1]

            await until(has_changed)
    finally:
        matrix.stop()

    assert told.published[0] == set(range(len(ids)))
    assert told.published[-1] == {3}
    assert matrix.numeric[3, column] == np.nan_to_num(before[3, column]) + 1
    others = np.arange(len(ids)) != 3
    np.testing.assert_array_equal(matrix.numeric[others], before[others])


async def test_what_the_log_speaks_of_is_computed_again_when_the_store_was_filled_anew(shop, redis_url, client):
    seed(shop, redis_url)
    plan, item = features.compile_plan(shop), vocabulary.read(shop / vocabulary.FILE_NAME)[1]
    async with following(redis_url, shop) as follower:
        last = await send(client, shop, {"user_id": "u", "item_id": item})
        await until(settled_at(client, last))
        counted = await row(client, plan.item, item)
        written = follower.rows_written

        # As after a training: the rows of the last day, and the position is gone.
        await asyncio.to_thread(materialise.materialise, shop, redis_url, print)
        await client.delete(POSITION)
        await until(settled_at(client, last))

    assert follower.rows_written > written
    assert await row(client, plan.item, item) == pytest.approx(counted, nan_ok=True)


async def test_a_merged_guest_and_poison_are_no_obstacle(shop, redis_url, client):
    seed(shop, redis_url)
    plan, item = features.compile_plan(shop), vocabulary.read(shop / vocabulary.FILE_NAME)[2]
    async with following(redis_url, shop):
        await client.xadd(STREAM, {"event": "{"})
        await send(client, shop, {"visitor_id": "browser", "item_id": item})
        await client.set(identity_key("browser"), "newcomer")
        last = await send(client, shop, {"event_id": "later", "visitor_id": "browser", "item_id": item})
        await until(settled_at(client, last))

    theirs = await row(client, plan.user, "newcomer")
    assert theirs["user_activity__events"] == 2
    assert await client.xlen(DEAD) == 0  # burying is the consumer's


async def test_erased_people_leave_the_rows_of_their_items(shop, redis_url, client, tmp_path):
    data = tmp_path / "shop"
    shutil.copytree(shop, data)
    seed(data, redis_url)
    plan, item = features.compile_plan(data), vocabulary.read(data / vocabulary.FILE_NAME)[4]
    before = await row(client, plan.item, item)
    async with following(redis_url, data):
        last = await send(client, data, {"user_id": "erika", "item_id": item})
        await until(settled_at(client, last))
        assert await client.exists(plan.user.redis_key("erika"))

        redactions.add(data, ["erika"], [], 2_000_000_000_000_000)

        async def is_gone():
            return not await client.exists(plan.user.redis_key("erika"))

        await until(is_gone)

    after = await row(client, plan.item, item)
    assert np.nan_to_num(after["item_activity__views_7d"]) == np.nan_to_num(before["item_activity__views_7d"])

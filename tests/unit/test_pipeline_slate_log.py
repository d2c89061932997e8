"""What the pipeline leaves for the slate log: every answer, and what each was made of."""

import pytest

from orchestrator.adapters.memory import MemorySlateLog
from orchestrator.core.model import Placement
from protos.slate_log import MADE, SERVED, made_row, served_row
from tests.support.builders import a_query, keys_of
from tests.support.worlds import RERANKER, a_world

pytestmark = pytest.mark.virtual_time


async def a_logged_world(**environment):
    world = await a_world(**environment)
    world.slate_log = MemorySlateLog()
    world.open()
    return world


def written(world, kind):
    read = {SERVED: served_row, MADE: made_row}[kind]
    return [read(raw) for of, raw in world.slate_log.messages if of == kind]


async def test_an_answer_and_what_it_was_made_of_are_written():
    world = await a_logged_world()

    slate = await world.ask(a_query(recommendation_id="r1"))

    (made,), (served,) = written(world, MADE), written(world, SERVED)
    assert made["made_as"] == served["made_as"] == served["recommendation_id"] == "r1"
    assert served["keys"].tolist() == keys_of(slate)
    assert served["from_cache"] is False
    assert set(made["item_keys"].tolist()) == set(keys_of(slate))


async def test_a_remembered_slate_served_again_is_a_new_serving_of_the_same_making():
    world = await a_logged_world()

    await world.ask(a_query(recommendation_id="r1"))
    await world.pipeline.drain()
    await world.ask(a_query(recommendation_id="r2"))

    assert [row["made_as"] for row in written(world, MADE)] == ["r1"]
    served = [(row["recommendation_id"], row["made_as"], row["from_cache"]) for row in written(world, SERVED)]
    assert served == [("r1", "r1", False), ("r2", "r1", True)]


async def test_an_answer_without_the_reranker_is_written_and_made_of_nothing():
    world = await a_logged_world()
    world.lose(RERANKER)

    await world.ask(a_query(recommendation_id="r1"))
    await world.ask(a_query(recommendation_id="r2", placement=Placement.CART))

    assert written(world, MADE) == []
    assert [row["made_as"] for row in written(world, SERVED)] == [None, None]


async def test_what_chance_showed_is_what_is_written():
    world = await a_logged_world(TUTTI_EXPLORATION__SHARE="1")

    slate = await world.ask(a_query(recommendation_id="r1"))

    (served,) = written(world, SERVED)
    assert served["keys"].tolist() == keys_of(slate)
    assert served["propensities"].tolist() == [item.propensity for item in slate.items]
    assert max(served["propensities"]) < 1
    (made,) = written(world, MADE)
    assert set(served["keys"].tolist()) <= set(made["item_keys"].tolist())


async def test_batch_output_is_nobodys_slate():
    world = await a_logged_world()

    await world.pipeline.traced(a_query(), 1.0)

    assert world.slate_log.messages == []

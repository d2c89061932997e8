"""POST /v1/pages: what is asked of the pipeline, what comes back, what is refused, and how many places it takes."""

import asyncio

import pytest

from orchestrator.core.limiter import Limiter, LimiterPolicy
from orchestrator.core.model import Diversity, Placement, Rung
from orchestrator.edge.admission import PRIORITY
from orchestrator.edge.answers import PageAnswer
from orchestrator.edge.schemas import MAX_SHELVES
from orchestrator.telemetry import metrics
from tests.unit.edge.test_admission import seen

URL = "/v1/pages"
HOME, CART = {"placement": "home", "count": 3}, {"placement": "cart", "count": 2}


def a_page(*shelves, **about):
    return {"placements": list(shelves or (HOME, CART)), **about}


async def test_the_answer_has_a_slate_for_each_placement_in_exactly_the_documented_shape(client, pipeline):
    body = (await client.post(URL, json=a_page())).json()

    PageAnswer.model_validate(body)
    assert [len(slate["items"]) for slate in body["slates"]] == [3, 2]
    ids = [slate["recommendation_id"] for slate in body["slates"]]
    assert ids == [query.recommendation_id for query in pipeline.queries]
    assert len(set(ids)) == 2
    assert all("reason" not in item for slate in body["slates"] for item in slate["items"])


async def test_a_slate_of_a_page_reads_like_one_that_was_asked_for_alone(client):
    page = (await client.post(URL, json=a_page(HOME))).json()["slates"][0]
    alone = (await client.post("/v1/recommendations", json=HOME)).json()

    for drawn in ("recommendation_id", "took_ms"):
        page.pop(drawn), alone.pop(drawn)
    assert page == alone


async def test_who_asks_is_said_once_and_everything_else_by_each_shelf(client, pipeline):
    item = {
        "placement": "item",
        "count": 2,
        "context": {"item_ids": ["item-1"], "device": "mobile"},
        "filter": {"brands": ["tutti"]},
        "exclude_item_ids": ["item-8"],
        "diversity": "high",
    }
    about = {"user_id": "u1", "visitor_id": "v1", "session_id": "s1", "budget_ms": 50}

    response = await client.post(URL, json=a_page(item, HOME, **about))

    assert response.status_code == 200
    ((first, second),) = pipeline.pages
    assert {(one.user_id, one.visitor_id, one.session_id) for one in (first, second)} == {("u1", "v1", "s1")}
    assert (first.placement, first.context_keys, first.device) == (Placement.ITEM, (1,), "mobile")
    assert (first.filter.brands, first.exclude_keys, first.diversity) == (("tutti",), (8,), Diversity.HIGH)
    assert (second.placement, second.context_keys, second.exclude_keys) == (Placement.HOME, (), ())
    assert second.filter.is_empty
    assert set(pipeline.budgets) == {0.05}


async def test_unknown_items_are_reported_by_the_shelf_that_named_them(client):
    gone = {"placement": "item", "context": {"item_ids": ["gone"]}}

    body = (await client.post(URL, json=a_page(gone, HOME))).json()

    assert [slate["missing_item_ids"] for slate in body["slates"]] == [["gone"], []]


async def test_explaining_adds_a_reason_to_every_item_of_every_slate(client):
    body = (await client.post(URL, json=a_page(explain=True))).json()

    PageAnswer.model_validate(body)
    assert all(item["reason"]["ranks"] for slate in body["slates"] for item in slate["items"])


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "placements"),
        ({"placements": []}, "placements"),
        ({"placements": [HOME] * (MAX_SHELVES + 1)}, "placements"),
        ({"placements": "home"}, "placements"),
        (a_page(HOME, {"placement": "attic"}), "placements[1].placement"),
        (a_page(HOME, {"placement": "home", "count": 0}), "placements[1].count"),
        (a_page(HOME, {"placement": "home", "count": 101}), "placements[1].count"),
        (a_page(HOME, {"placement": "home", "user_id": "u1"}), "placements[1].user_id"),
        (a_page({"placement": "category"}), "placements[0].context.category"),
        (a_page({"placement": "home", "filter": {"price_min": -1}}), "placements[0].filter.price_min"),
        (a_page(budget_ms=4), "budget_ms"),
        (a_page(context={"item_ids": ["item-1"]}), "context"),
    ],
)
async def test_what_cannot_be_taken_is_named_with_its_shelf_and_nothing_is_asked(
    client, pipeline, refused, document, field
):
    refused(await client.post(URL, json=document), 422, field)

    assert pipeline.pages == []


async def test_every_shelf_at_fault_is_named(client, refused):
    category, many = {"placement": "category"}, {"placement": "home", "count": 500}

    document = refused(await client.post(URL, json=a_page(category, HOME, many)), 422)

    assert [error["field"] for error in document["errors"]] == [
        "placements[0].context.category",
        "placements[2].count",
    ]


async def test_as_many_shelves_as_allowed_are_answered(client):
    body = (await client.post(URL, json=a_page(*[HOME] * MAX_SHELVES))).json()

    assert len(body["slates"]) == MAX_SHELVES


async def test_stages_are_timed_once_for_all_shelves_and_calls_counted_by_address(client):
    before = metrics.requests.labels(URL, "2xx")._value.get()

    response = await client.post(URL, json=a_page())

    assert response.headers["server-timing"].count("retrieve;dur=40.00") == 1
    assert metrics.requests.labels(URL, "2xx")._value.get() == before + 1


class TestAPageTakesAsManyPlacesAsItHasShelves:
    @pytest.fixture
    def limiter(self, admission):
        admission.limiter = Limiter(LimiterPolicy(max_inflight=10, min_limit=10, initial=10))
        return admission.limiter

    @pytest.fixture
    async def hold(self, client, pipeline):
        """Put a page in flight; all are let go at the end."""
        go, tasks = asyncio.Event(), []

        async def wait(floor):
            if floor is Rung.FULL:
                await go.wait()

        pipeline.meanwhile = wait

        async def post(n_shelves, **headers):
            n_asked = len(pipeline.queries)
            page = a_page(*[HOME] * n_shelves)
            tasks.append(asyncio.ensure_future(client.post(URL, json=page, headers=headers)))
            await seen(pipeline, n_asked + 1)

        yield post
        go.set()
        assert {response.status_code for response in await asyncio.gather(*tasks)} <= {200}

    async def test_while_it_is_made_and_none_afterwards(self, client, hold, pipeline, limiter):
        await hold(4)
        assert limiter.in_flight == 4
        pipeline.meanwhile = None

        await client.post(URL, json=a_page(*[HOME] * 3))

        assert limiter.in_flight == 4

    async def test_where_they_are_not_free_it_takes_none_and_gets_what_is_remembered(
        self, client, hold, pipeline, limiter
    ):
        await hold(8)

        response = await client.post(URL, json=a_page(*[HOME] * 3))

        assert response.status_code == 200
        assert set(pipeline.floors[-3:]) == {Rung.STALE}
        assert limiter.in_flight == 8

    async def test_a_bulk_page_may_fill_its_share_and_no_more(self, client, hold, pipeline, limiter):
        await hold(3)

        await client.post(URL, json=a_page(*[HOME] * 4), headers={PRIORITY: "bulk"})
        assert set(pipeline.floors[-4:]) == {Rung.STALE}
        await hold(3, **{PRIORITY: "bulk"})

        assert limiter.in_flight == 6

    async def test_a_page_wider_than_the_limit_is_made_when_nobody_is_beside_it(self, client, pipeline, admission):
        admission.limiter = Limiter(LimiterPolicy(max_inflight=8, min_limit=8, initial=8))

        await client.post(URL, json=a_page(*[HOME] * MAX_SHELVES))

        assert set(pipeline.floors) == {Rung.FULL}
        assert admission.limiter.in_flight == 0

    async def test_a_refused_page_gives_its_places_back(self, client, limiter, refused):
        refused(await client.post(URL, json=a_page({"placement": "category"}, HOME)), 422)

        assert limiter.in_flight == 0

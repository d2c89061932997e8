"""Many items in one call: read and stored while they stream, each line judged alone."""

import orjson
import pytest

from orchestrator.adapters.memory import MemoryItems
from orchestrator.core.model import Loss
from orchestrator.edge import answers, item_import
from orchestrator.edge.item_import import ADDRESS, CHUNK_LINES, MAX_REJECTED, NDJSON

HEADERS = {"content-type": NDJSON}


@pytest.fixture
def items(running) -> MemoryItems:
    return running.items


def lines(*documents) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in documents)


async def send(client, body, **headers):
    return await client.post(ADDRESS, content=body, headers=HEADERS | headers)


async def test_every_item_is_put(client, running, items):
    answer = await send(
        client, lines({"item_id": "item-1", "title": "Cup", "price": 2}, {"item_id": "new", "title": "N"})
    )

    assert answer.status_code == 200
    answers.ImportAnswer.model_validate_json(answer.content)
    assert answer.json() | {"took_ms": 0} == {"accepted": 2, "rejected_count": 0, "rejected": [], "took_ms": 0}
    assert running.catalogue.properties(1) == {"title": "Cup", "price": 2.0}
    assert {one: (state.key, state.document) for one, state in items.held.items()} == {
        "item-1": (1, {"title": "Cup", "price": 2.0}),
        "new": (-1, {"title": "N"}),
    }


async def test_a_bad_line_is_named_and_holds_back_no_other(client, items):
    body = b"\n".join(
        [
            b'{"item_id": "a", "title": "A"}',
            b"{not json",
            b"",
            b'{"item_id": "b"}',
            b'{"item_id": "c", "title": "C", "price": -1}',
            b'{"title": "nobody"}',
            b"[]",
            b'{"item_id": "d", "title": "D"}',
        ]
    )

    answer = (await send(client, body)).json()

    assert set(items.held) == {"a", "d"}
    assert answer["accepted"] == 2
    assert [(one["line"], one["field"]) for one in answer["rejected"]] == [
        (2, "body"),
        (4, "title"),
        (5, "price"),
        (6, "item_id"),
        (7, "body"),
    ]
    assert answer["rejected_count"] == 5


async def test_when_no_line_is_good_it_is_a_problem(client, refused, items):
    document = refused(await send(client, b"{}\n{}\n"), 422)

    assert document["errors"][0]["field"] == "line 1: title"
    assert document["rejected_count"] == 2
    assert items.version == 0


async def test_nothing_is_nothing(client):
    assert (await send(client, b"")).json()["accepted"] == 0


async def test_more_than_a_chunk_arrives_whole_however_it_is_cut(client, items):
    n = 2 * CHUNK_LINES + 7
    body = lines(*({"item_id": f"n{i}", "title": f"ü {i}"} for i in range(n)))

    async def cut():
        for at in range(0, len(body), 1009):
            yield body[at : at + 1009]

    assert (await send(client, cut())).json()["accepted"] == n
    assert items.held[f"n{n - 1}"].document == {"title": f"ü {n - 1}"}


async def test_a_body_far_larger_than_others_may_be_is_taken(client, settings, items):
    line = {"item_id": "a", "title": "A", "description": "d" * 10_000}
    body = lines(*[line] * 40)
    assert len(body) > settings.edge.max_body_bytes

    assert (await send(client, body)).json()["accepted"] == 40


async def test_one_line_may_not_be(client, settings, items):
    long = b'{"item_id": "a", "title": "' + b"a" * settings.edge.max_body_bytes + b'"}\n'

    async def cut():
        for at in range(0, len(long), 4099):
            yield long[at : at + 4099]
        yield lines({"item_id": "b", "title": "B"})

    answer = (await send(client, cut())).json()

    assert answer["accepted"] == 1
    assert answer["rejected"] == [
        {"line": 1, "field": "body", "message": f"a line has at most {settings.edge.max_body_bytes} bytes"}
    ]


async def test_rejections_are_told_up_to_a_bound_and_counted(client):
    answer = (await send(client, b"{}\n" * (MAX_REJECTED + 5) + lines({"item_id": "a", "title": "A"}))).json()

    assert (len(answer["rejected"]), answer["rejected_count"]) == (MAX_REJECTED, MAX_REJECTED + 5)


async def test_progress_is_told_line_by_line_when_asked_for(client, monkeypatch):
    monkeypatch.setattr(item_import, "PROGRESS_EVERY_S", 0.0)
    body = lines(*({"item_id": f"n{i}", "title": "N"} for i in range(3 * CHUNK_LINES)))

    answer = await send(client, body, accept=NDJSON)

    told = [orjson.loads(line) for line in answer.content.splitlines()]
    assert answer.headers["content-type"].startswith(NDJSON)
    assert [one["accepted"] for one in told[:3]] == [CHUNK_LINES, 2 * CHUNK_LINES, 3 * CHUNK_LINES]
    assert told[-1]["rejected"] == []
    assert "took_ms" in told[-1]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(item_import, "PATIENCE_S", (0.0, 0.0))


# A Redis that did not answer for two seconds ended an import of a million items after 42,000.
async def test_a_store_that_does_not_answer_for_a_moment_is_asked_again(client, items, monkeypatch):
    change, asked = MemoryItems.change, []

    async def fails_twice(self, wishes):
        asked.append(len(wishes))
        self.fail_with = Loss.UNAVAILABLE if len(asked) in (2, 3) else None
        return await change(self, wishes)

    monkeypatch.setattr(MemoryItems, "change", fails_twice)

    answer = await send(client, lines(*({"item_id": f"n{i}", "title": "N"} for i in range(CHUNK_LINES + 1))))

    assert answer.json()["accepted"] == CHUNK_LINES + 1
    assert asked == [CHUNK_LINES, 1, 1, 1]


async def test_a_store_that_fails_is_told_with_what_was_taken(client, items, refused, monkeypatch):
    body = lines(*({"item_id": f"n{i}", "title": "N"} for i in range(CHUNK_LINES + 1)))
    change = MemoryItems.change

    async def fails_the_second_time(self, wishes):
        if self.version:
            self.fail_with = Loss.UNAVAILABLE
        return await change(self, wishes)

    monkeypatch.setattr(MemoryItems, "change", fails_the_second_time)

    assert refused(await send(client, body), 503)["accepted"] == CHUNK_LINES


async def test_a_failure_is_the_last_line_when_progress_was_asked_for(client, items):
    items.fail_with = Loss.UNAVAILABLE

    answer = await send(client, lines({"item_id": "a", "title": "A"}), accept=NDJSON)

    (last,) = [orjson.loads(line) for line in answer.content.splitlines()]
    assert last["accepted"] == 0
    assert last["problem"]["type"] == "/docs#items-unavailable"


@pytest.mark.parametrize("headers", [{"content-type": "application/json"}, {"content-encoding": "gzip"}])
async def test_another_kind_of_body_is_refused(client, refused, headers):
    refused(await send(client, b"{}", **headers), 415)


async def test_a_body_beyond_its_own_bound_is_refused(client, refused, settings):
    answer = await send(client, b"", **{"content-length": str(settings.edge.max_import_bytes + 1)})

    refused(answer, 413, "body")

"""An edge whose events go to Kafka: what a sick broker costs the caller with events, and never the one with a page."""

import asyncio
import socket
import time
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace

import httpx
import pytest

from orchestrator.bootstrap import NotReady, run
from orchestrator.cli.status import doubts
from orchestrator.edge.app import create_app
from tests.support import kafka
from tests.support.ports import free_port
from tests.unit.test_bootstrap import a_shop

pytestmark = pytest.mark.integration

EVENTS = {"events": [{"event_id": "e1", "event_type": "view", "user_id": "u1"}]}


@asynccontextmanager
async def an_edge(tmp_path, redis_url, brokers, **environment):
    settings, overrides = a_shop(
        tmp_path,
        TUTTI_REDIS__URL=redis_url,
        TUTTI_EVENTS__BROKER="kafka",
        TUTTI_EVENTS__KAFKA__BOOTSTRAP_SERVERS=brokers,
        TUTTI_LOG__SLATES_SHARE="0",
        **environment,
    )
    app = create_app(settings, lambda about: run(about, replace(overrides, events=None)))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://shop") as edge:
        yield edge


@contextmanager
def a_broker_that_hangs():
    """Accepts connections in the kernel and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def an_absent_broker():
    return nullcontext(f"127.0.0.1:{free_port()}")


@pytest.mark.parametrize("sick", [a_broker_that_hangs, an_absent_broker])
async def test_a_sick_broker_costs_events_a_bounded_503_and_never_a_slate(tmp_path, redis_url, sick):
    with sick() as address:
        async with an_edge(tmp_path, redis_url, address) as edge:
            began_at = time.monotonic()
            told = asyncio.create_task(edge.post("/v1/events", json=EVENTS))
            slates = [
                await edge.post("/v1/recommendations", json={"placement": "home", "user_id": "u1", "count": 5})
                for _ in range(5)
            ]
            refused = await told
            took_s = time.monotonic() - began_at
            # On a busy machine all checks together may take longer than a probe waits; then it is asked again.
            checks = {}
            while "events" not in checks:
                checks = (await edge.get("/readyz")).json()["checks"]

    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    # 0.5 s for the broker by the settings, 2 s for events by the edge, and a busy machine.
    assert took_s < 5
    assert [slate.status_code for slate in slates] == [200] * 5
    assert all(len(slate.json()["items"]) == 5 for slate in slates)
    assert all("kafka" not in str(slate.json()["quality"]).lower() for slate in slates)
    assert checks["redis"] == "ok"
    assert "Kafka" in checks["events"]
    assert any("Kafka" in line for line in doubts(checks)), "`tutti status` says so"


async def test_with_a_broker_events_are_accepted_and_count(tmp_path, redis_url):
    with kafka.running() as address:
        topic = kafka.a_topic()
        patient = {"TUTTI_EVENTS__KAFKA__TIMEOUT_MS": "5000", "TUTTI_EVENTS__KAFKA__TOPIC": topic}
        async with an_edge(tmp_path, redis_url, address, **patient) as edge:
            first, again = [await edge.post("/v1/events", json=EVENTS) for _ in range(2)]

        assert (first.status_code, first.json()["accepted"], first.json()["watermark"]) == (202, 1, 1)
        assert (again.json()["accepted"], again.json()["duplicates"]) == (0, 1)
        ((key, value),) = await asyncio.to_thread(kafka.messages, address, topic)
        assert key == b"u:u1"
        assert b'"event_id":"e1"' in value


async def test_a_file_of_properties_that_cannot_be_used_refuses_to_start_and_says_which(tmp_path, redis_url):
    absent = str(tmp_path / "kafka.properties")

    with pytest.raises(NotReady, match=r"kafka\.properties"):
        async with an_edge(tmp_path, redis_url, "127.0.0.1:1", TUTTI_EVENTS__KAFKA__PROPERTIES=absent):
            pass

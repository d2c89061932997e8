"""When it is busy: who is computed, who gets what is popular, who is turned away, and what is learnt from it."""

import asyncio
import random
from collections import Counter

import orjson
import pytest
from structlog.testing import capture_logs

from orchestrator import settings as tree
from orchestrator.core.lag import Lag
from orchestrator.core.model import Rung
from orchestrator.core.shedding import CROWD
from orchestrator.edge.admission import PRIORITY, START, TIMEOUT, Admission
from orchestrator.edge.app import create_app
from orchestrator.telemetry import metrics, new_metrics

URL = "/v1/recommendations"
EVENTS = {"events": [{"event_id": "e-1", "event_type": "view", "item_id": "item-1", "visitor_id": "v"}]}
PRIORITIES = ("bulk", "best_effort", "critical")
LIMIT = 10
WALL = 1_700_000_000.0


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


class LimiterSpy:
    """LIMIT places; remembers how each was given back."""

    def __init__(self):
        self.limit = LIMIT
        self.in_flight = 0
        self.given_back = []

    def try_acquire(self, now, ramp=1.0):
        if self.in_flight >= self.limit:
            return None
        self.in_flight += 1
        return SlotSpy(self)


class SlotSpy:
    def __init__(self, limiter):
        self.limiter = limiter

    def _give_back(self, *how):
        self.limiter.in_flight -= 1
        self.limiter.given_back.append(how)

    def sample(self, now, rtt_s):
        self._give_back("sample", round(rtt_s, 6))

    def drop(self, now):
        self._give_back("drop")

    def release(self, now):
        self._give_back("release")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counters():
    return new_metrics()


@pytest.fixture
def admission(settings, clock, counters):
    made = Admission(settings, counters, clock, lambda: WALL, random.Random(7))
    made.limiter = LimiterSpy()
    return made


@pytest.fixture
def limiter(admission):
    return admission.limiter


@pytest.fixture
def lag(running):
    def set_lag(seconds):
        running.loop.lag = Lag(seconds, seconds)

    return set_lag


@pytest.fixture
def ask(client):
    def post(headers=None, **fields):
        return client.post(URL, json={"placement": "home", **fields}, headers=headers)

    return post


def counted(counters, name, **labels):
    return counters.registry.get_sample_value(f"tutti_{name}_total", labels) or 0


class TestTheLoopIsLate:
    @pytest.mark.parametrize(
        ("lag_ms", "bulk", "best_effort", "critical"),
        [
            (0, Rung.FULL, Rung.FULL, Rung.FULL),
            (11, Rung.POPULAR, Rung.FULL, Rung.FULL),
            (21, Rung.POPULAR, Rung.POPULAR, Rung.FULL),
            (36, Rung.SHED, Rung.POPULAR, Rung.POPULAR),
            (51, Rung.SHED, Rung.SHED, Rung.POPULAR),
            (71, Rung.SHED, Rung.SHED, Rung.SHED),
        ],
    )
    async def test_the_less_it_matters_the_sooner_it_gives_way(
        self, ask, pipeline, lag, counters, lag_ms, bulk, best_effort, critical
    ):
        lag(lag_ms / 1000)

        for priority, rung in zip(PRIORITIES, (bulk, best_effort, critical), strict=True):
            pipeline.floors.clear()
            response = await ask({PRIORITY: priority})
            if rung is Rung.SHED:
                assert (response.status_code, pipeline.floors) == (503, [])
                assert counted(counters, "shed", priority=priority) == 1
            else:
                assert (response.status_code, pipeline.floors) == (200, [rung])
                assert counted(counters, "admitted", priority=priority, rung=rung.name.lower()) == 1

    async def test_the_end_of_a_crowd_in_one_turn_is_turned_away_as_late_as_the_turn_is(self, ask, running, pipeline):
        running.loop.lag = Lag(overdue_s=0.1)

        statuses = [(await ask()).status_code for _ in range(CROWD + 2)]

        assert statuses == [200] * CROWD + [503] * 2
        assert set(pipeline.floors) == {Rung.FULL}

    async def test_who_says_nothing_is_critical(self, ask, lag, counters):
        lag(0.036)

        await ask()

        assert counted(counters, "admitted", priority="critical", rung="popular") == 1

    async def test_a_refusal_is_a_problem_that_says_when_to_come_back(self, ask, lag, refused):
        lag(0.1)

        responses = [await ask({"x-request-id": f"r-{i}"}) for i in range(50)]

        for i, response in enumerate(responses):
            document = refused(response, 503)
            assert (document["type"], document["request_id"]) == ("/docs#overloaded", f"r-{i}")
            assert response.headers["cache-control"] == "no-store"
            assert int(response.headers["content-length"]) < 300
        assert {response.headers["retry-after"] for response in responses} == {"1", "2", "3", "4", "5"}

    @pytest.mark.parametrize(
        ("method", "path"), [("POST", URL), ("POST", "/v1/rankings"), ("GET", "/v1/items/shelf/9/similar")]
    )
    async def test_a_refusal_reads_nothing_of_the_body(self, settings, running, admission, lag, method, path):
        lag(0.1)
        before = metrics.requests.labels(path.replace("shelf/9", "{item_id:path}"), "5xx")._value.get()

        start, body = await raw(create_app(settings, admission=admission), running, method, path, unread, {})

        assert start["status"] == 503
        assert orjson.loads(body["body"])["status"] == 503
        assert b"connection" not in dict(start["headers"])
        assert metrics.requests.labels(path.replace("shelf/9", "{item_id:path}"), "5xx")._value.get() == before + 1

    @pytest.mark.parametrize("headers", [{"expect": "100-continue"}, {"content-length": "300000"}])
    async def test_a_body_that_is_held_back_or_too_much_costs_the_connection(
        self, settings, running, admission, lag, headers
    ):
        lag(0.1)

        start, _ = await raw(create_app(settings, admission=admission), running, "POST", URL, unread, headers)

        assert start["status"] == 503
        assert dict(start["headers"])[b"connection"] == b"close"

    async def test_an_explained_slate_gives_way_like_any_other(self, ask, pipeline, lag):
        lag(0.036)
        await ask(explain=True)
        lag(0.1)

        assert (await ask(explain=True)).status_code == 503
        assert pipeline.floors == [Rung.POPULAR]

    async def test_events_are_refused_when_nothing_would_be_in_time(self, client, event_log, lag, refused):
        lag(0.069)
        assert (await client.post("/v1/events", json=EVENTS)).status_code == 202
        event_log.events.clear()
        lag(0.071)

        response = await client.post("/v1/events", json=EVENTS)

        assert refused(response, 503)["type"] == "/docs#overloaded"
        assert 1 <= int(response.headers["retry-after"]) <= 5
        assert event_log.events == {}

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json"])
    async def test_whoever_runs_it_is_always_answered(self, client, lag, path):
        lag(10.0)

        assert (await client.get(path)).status_code == 200

    async def test_a_wrong_method_is_told_so_however_busy_it_is(self, client, lag, refused):
        lag(10.0)

        refused(await client.get(URL), 405)


class TestTooMuchIsInFlight:
    @pytest.fixture
    async def held(self, ask, pipeline):
        """Put so many computed slates in flight; all are let go at the end."""
        go, tasks = asyncio.Event(), []

        async def wait(floor):
            if floor is Rung.FULL:
                await go.wait()

        pipeline.meanwhile = wait

        async def hold(n, **headers):
            tasks.extend(asyncio.ensure_future(ask(headers)) for _ in range(n))
            await seen(pipeline, len(tasks))

        yield hold
        go.set()
        assert {response.status_code for response in await asyncio.gather(*tasks)} <= {200}

    @pytest.mark.parametrize(
        ("in_flight", "floors"),
        [
            (5, [Rung.FULL] * 3),
            (6, [Rung.STALE, Rung.FULL, Rung.FULL]),
            (8, [Rung.STALE, Rung.STALE, Rung.FULL]),
            (10, [Rung.STALE] * 3),
        ],
    )
    async def test_each_priority_may_fill_its_share_of_the_limit(self, held, ask, pipeline, limiter, in_flight, floors):
        await held(in_flight)
        found = []

        for priority in PRIORITIES:
            task = asyncio.ensure_future(ask({PRIORITY: priority}))
            await seen(pipeline, len(pipeline.queries) + 1)
            found.append(pipeline.floors[-1])
            if found[-1] is Rung.FULL:
                # Seen to be let in; hang up, so that the next one finds the same load.
                task.cancel()
            await asyncio.wait({task})

        assert found == floors
        assert limiter.in_flight == in_flight

    async def test_beyond_the_limit_everybody_gets_an_answer_and_nobody_a_place(self, held, ask, limiter):
        await held(LIMIT)

        responses = [await ask({PRIORITY: priority}) for priority in PRIORITIES * 10]

        assert {response.status_code for response in responses} == {200}
        assert limiter.in_flight == LIMIT

    async def test_what_nobody_uses_is_anybodys(self, held, pipeline, limiter):
        await held(6, **{PRIORITY: "bulk"})

        assert (pipeline.floors, limiter.in_flight) == ([Rung.FULL] * 6, 6)


class TestWhatIsLearnt:
    @pytest.mark.parametrize(
        ("took_s", "given", "how"),
        [
            (0.020, {}, ("sample", 0.020)),
            (0.100, {}, ("sample", 0.100)),
            (0.101, {}, ("drop",)),
            (0.040, {"budget_ms": 50}, ("sample", 0.040)),
            (0.060, {"budget_ms": 50}, ("drop",)),
            (0.030, {"budget_ms": 20}, ("release",)),
        ],
    )
    async def test_in_time_is_a_sample_late_is_a_drop_unless_hardly_any_time_was_given(
        self, ask, pipeline, clock, limiter, took_s, given, how
    ):
        async def meanwhile(_floor):
            clock.now += took_s

        clock.now = 0.0
        pipeline.meanwhile = meanwhile

        await ask(**given)

        assert limiter.given_back == [how]

    async def test_what_a_proxys_clock_says_teaches_nothing(self, ask, pipeline, clock, limiter):
        async def meanwhile(_floor):
            clock.now += 0.03125

        pipeline.meanwhile = meanwhile

        await ask({START: f"t={WALL - 0.08:.3f}"})

        assert limiter.given_back == [("sample", 0.03125)]

    async def test_remembered_refused_and_failed_calls_teach_nothing(self, client, ask, pipeline, limiter):
        pipeline.from_cache = True
        await ask()
        await ask(count=-1)
        await client.post(URL, content=b"{", headers={"content-type": "application/json"})
        await client.post(URL, content=b"x" * 300_000)
        await client.post("/v1/rankings", json={"item_ids": ["nobody's"]})
        pipeline.error = RuntimeError("a bug")
        with capture_logs():
            await ask()

        assert limiter.given_back == [("release",)] * 6
        assert limiter.in_flight == 0

    async def test_a_call_without_time_gives_its_place_back_at_once(self, ask, pipeline, limiter):
        seen = []

        async def meanwhile(_floor):
            seen.append(limiter.in_flight)

        pipeline.meanwhile = meanwhile

        await ask({TIMEOUT: "0"})

        assert (seen, limiter.given_back) == ([0], [("release",)])

    # case 10: client_disconnect
    @pytest.mark.parametrize("send_fails", [True, False])
    async def test_a_caller_who_leaves_is_no_failure_and_the_work_ends_by_itself(
        self, settings, running, pipeline, admission, limiter, send_fails
    ):
        done = []

        async def meanwhile(_floor):
            await asyncio.sleep(0)
            done.append(True)

        pipeline.meanwhile = meanwhile
        messages = [{"type": "http.request", "body": b'{"placement":"home"}'}]

        async def receive():
            return messages.pop() if messages else {"type": "http.disconnect"}

        app = create_app(settings, admission=admission)
        with capture_logs() as logged:
            await raw(app, running, "POST", URL, receive, {"content-type": "application/json"}, send_fails=send_fails)

        assert done == [True]
        assert [line for line in logged if line["log_level"] in ("warning", "error")] == []
        assert limiter.in_flight == 0
        assert limiter.given_back == [("release",) if send_fails else ("sample", 0.0)]


class TestTime:
    # case 1: deadline_already_expired
    @pytest.mark.parametrize("timeout_ms", ["0", "-5", "-0.5", " 0 "])
    async def test_without_time_popular_is_answered_without_a_call(self, ask, pipeline, timeout_ms):
        response = await ask({TIMEOUT: timeout_ms})

        assert response.status_code == 200
        assert (pipeline.floors, pipeline.queued) == ([Rung.POPULAR], [0.0])

    # case 1: deadline_already_expired
    async def test_who_arrives_past_the_budget_gets_what_is_popular(self, ask, pipeline):
        for _ in range(4):
            await ask()
            await ask({START: f"{WALL}"})

        await ask({START: f"{WALL - 0.0625:.4f}", TIMEOUT: "60"})

        assert pipeline.floors[-1] is Rung.POPULAR

    @pytest.mark.parametrize(
        ("header", "body", "budget_s"),
        [("50", None, 0.05), ("50", 30, 0.03), ("30.5", 50, 0.0305), ("5000", None, 5.0)],
    )
    async def test_of_header_and_body_the_smaller_budget_wins(self, ask, pipeline, header, body, budget_s):
        await ask({TIMEOUT: header}, **({} if body is None else {"budget_ms": body}))

        assert pipeline.budgets == [pytest.approx(budget_s)]

    async def test_the_header_counts_where_there_is_no_body(self, client, pipeline):
        await client.get("/v1/items/item-1/similar", headers={TIMEOUT: "40"})

        assert pipeline.budgets == [0.04]

    # case 11: queue_time_counted
    async def test_what_was_waited_in_front_of_us_is_off_the_budget(self, ask, pipeline):
        response = await ask({START: f"t={WALL - 0.0625:.4f}"})

        assert response.status_code == 200
        assert pipeline.queued == [0.0625]
        assert pipeline.floors == [Rung.FULL]

    # case 11: queue_time_counted
    @pytest.mark.parametrize("stamp", [f"{WALL + 5:.3f}", f"{WALL - 5:.3f}", "yesterday", ""])
    async def test_a_stamp_that_cannot_be_is_ignored_and_the_loops_lag_stands_for_it(self, ask, pipeline, lag, stamp):
        lag(0.005)

        await ask({START: stamp})

        assert pipeline.queued == [0.005]

    # case 12: clock_skew_guard
    async def test_a_wrong_clock_takes_at_most_one_slate_in_five(self, ask, pipeline, lag, counters):
        lag(0.004)

        for _ in range(100):
            await ask({START: f"{WALL - 0.09375:.5f}"})

        told = Counter(zip(pipeline.floors, pipeline.queued, strict=True))
        assert told == {(Rung.FULL, 0.004): 80, (Rung.POPULAR, 0.09375): 20}
        assert counted(counters, "arrivals_expired", verdict="believed") == 20
        assert counted(counters, "arrivals_expired", verdict="doubted") == 80

    async def test_an_explained_slate_has_the_same_time(self, ask, pipeline):
        await ask({START: f"{WALL - 0.0625:.4f}", TIMEOUT: "80"}, explain=True)

        assert pipeline.budgets == [pytest.approx(0.072)]
        assert pipeline.queued == [0.0625]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (PRIORITY, "urgent"),
        (PRIORITY, ""),
        (PRIORITY, "x" * 500),
        (TIMEOUT, "soon"),
        (TIMEOUT, "nan"),
        (TIMEOUT, "1e3"),
    ],
)
async def test_a_header_we_cannot_read_is_named(ask, pipeline, limiter, refused, name, value):
    response = await ask({name: value})

    assert len(refused(response, 400, name)["detail"]) < 150
    assert (pipeline.queries, limiter.given_back) == ([], [])


async def test_where_admission_is_off_everything_is_computed(settings, running, clock, counters, lag, tmp_path):
    off = tree.load(None, {"TUTTI_DATA__PATH": str(tmp_path), "TUTTI_ADMISSION__ENABLED": "false"})
    admission = Admission(off, counters, clock, lambda: WALL)
    lag(10.0)

    ticket = admission.admit([(b"x-request-priority", b"bulk")], running.loop.lag)

    assert ticket.rung is Rung.FULL
    assert not admission.is_overwhelmed(running.loop.lag)
    assert admission.limiter.in_flight == 0
    assert (repr(ticket), repr(admission).split(",")[0]) == ("<Ticket full, no slot>", "<Admission off")


async def test_a_stopping_process_sends_everybody_elsewhere_and_still_answers(client, ask, running, refused):
    assert "connection" not in (await ask()).headers
    running.is_draining = True

    refused(await client.get("/readyz"), 503)
    answers = [await ask(), await client.get("/livez"), await client.get("/nowhere"), await client.post(URL)]

    assert [answer.status_code for answer in answers] == [200, 200, 404, 415]
    assert {answer.headers["connection"] for answer in answers} == {"close"}


async def test_the_api_document_tells_the_headers_and_the_refusal(client):
    document = (await client.get("/openapi.json")).json()

    for path, method in ((URL, "post"), ("/v1/rankings", "post"), ("/v1/items/{item_id}/similar", "get")):
        operation = document["paths"][path][method]
        headers = {one["name"]: one["schema"] for one in operation["parameters"] if one["in"] == "header"}
        assert headers.keys() == {PRIORITY, TIMEOUT, START}
        assert headers[PRIORITY]["enum"] == ["critical", "best_effort", "bulk"]
        assert "retry-after" in {name.lower() for name in operation["responses"]["503"]["headers"]}
        assert "400" in operation["responses"]
    assert "Too busy" in document["paths"]["/v1/events"]["post"]["responses"]["503"]["description"]


async def seen(pipeline, n):
    """The pipeline has been asked *n* times."""
    for _ in range(1000):
        if len(pipeline.queries) >= n:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"asked {len(pipeline.queries)} times, not {n}")


async def unread():
    raise AssertionError("the body was read")


async def raw(app, running, method, path, receive, headers, *, send_fails=False):
    """What the application sends for a bare ASGI request."""
    app.state.running = running
    sent = []

    async def send(message):
        if send_fails:
            raise OSError("the caller has left")
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "root_path": "", "headers": pairs}
    await app(scope, receive, send)
    return sent

"""
Shoppers for Locust, arriving open loop; `make load` starts a system and runs this (docs/load-testing.md).

    python -m locust -f loadtests/locustfile.py --headless --host http://127.0.0.1:8000 --data .tutti/shop \\
        --shape steady --rate 40 --minutes 2 --html load.html

One user of Locust is a door that lets VIEWS_A_DOOR page views a second in, whatever became of those before; so the
number of users that Locust shows is the offered load. Latency counts from the moment a request was due (coordinated
omission has nowhere to hide), here and in Locust's own tables. Run it from the repository's root.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent
import orjson
from gevent.pool import Group
from geventhttpclient.client import HTTPClient, HTTPClientPool
from geventhttpclient.response import HTTPConnectionClosed, HTTPSocketPoolResponse
from locust import FastHttpUser, LoadTestShape, constant, events, task
from locust.runners import WorkerRunner

from loadtests.shoppers.arrivals import Arrivals, poisson
from loadtests.shoppers.ledger import Ledger, Seen
from loadtests.shoppers.objectives import breaking_point, exit_code, figures, judge, read_objectives, table
from loadtests.shoppers.reading import read_answer
from loadtests.shoppers.session import EVENTS, Look, Session, Shown
from loadtests.shoppers.shapes import SHAPES, phase_at, phases
from loadtests.shoppers.shop import read_shop

VIEWS_A_DOOR = 2.0
"""Page views a second of one Locust user. Judged: fine steps of load, and few enough greenlets."""

GIVE_UP_S = 2.0
"""Judged, and the doctor's: twenty times the promise; nobody looks at a shelf that comes later."""

MOST_CONNECTIONS = 900
"""Derived: the client looks at its sockets with select(), which ends at file 1,024. A request beyond that waits, and
the wait is in its latency."""

HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}


class Browser(HTTPClient):
    """
    Asks once more when a kept connection ended under the request, as every browser does: the server closed it while
    the request was on its way. Asking twice is harmless here, events carry their ids. Both times are in the latency.
    """

    def request(self, *given: Any, **named: Any) -> HTTPSocketPoolResponse:
        """See geventhttpclient, which does so for GET only."""
        try:
            return super().request(*given, **named)
        except (HTTPConnectionClosed, ConnectionResetError, BrokenPipeError):
            return super().request(*given, **named)


class Browsers(HTTPClientPool):
    """One client a host, for all doors."""

    def get_client(self, url: Any) -> HTTPClient:
        """*url*: as geventhttpclient splits one."""
        where = url.host, url.port
        if where not in self.clients:
            self.clients[where] = Browser.from_url(url, **self.client_args)
        return self.clients[where]


class Run:
    """What all doors of this process share: the shop, who is in it, the plan, and what was seen."""

    def __init__(self, options: Any) -> None:
        self.shape: str = options.shape
        self.plan = phases(options.shape, options.minutes, options.rate, options.growth)
        self.objectives = read_objectives(Path(options.objectives))
        self.rng = random.Random(options.seed)  # noqa: S311 – visits, not secrets
        self.shop = read_shop(Path(options.data))
        self.name = uuid.uuid4().hex[:8]
        self.arrivals = Arrivals(self._session)
        self.ledger = Ledger()
        self.inside = Group()
        self.began_at = time.perf_counter()

    def _session(self) -> Session:
        rng = random.Random(self.rng.random())  # noqa: S311 – as above
        return Session(f"{self.name}-{self.arrivals.n_sessions}", self.shop, rng)

    def phase(self, due: float) -> int | None:
        """The phase in which *due* lies, a moment of `time.perf_counter`."""
        return phase_at(self.plan, due - self.began_at)


class Door(FastHttpUser):
    """Lets shoppers in by its own Poisson schedule; who is inside goes on when it closes."""

    wait_time = constant(0)
    network_timeout = connection_timeout = GIVE_UP_S
    client_pool = Browsers(concurrency=MOST_CONNECTIONS, network_timeout=GIVE_UP_S, connection_timeout=GIVE_UP_S)

    def on_start(self) -> None:
        """The schedule begins now."""
        self.shoppers: Run = self.environment.shoppers
        self.schedule = poisson(VIEWS_A_DOOR, self.shoppers.rng, time.perf_counter())

    @task
    def let_in(self) -> None:
        """One page view, when it is due or as soon after as this process can; nobody waits for its answer here."""
        due = next(self.schedule)
        gevent.sleep(max(0.0, due - time.perf_counter()))
        self.shoppers.inside.spawn(self._view, self.shoppers.arrivals.who(time.perf_counter()), due)

    def _view(self, session: Session, due: float) -> None:
        run, look = self.shoppers, session.next()
        if len(look.bodies) == 1:
            shown = self._ask(look, 0, due)
        else:
            shelves = [run.inside.spawn(self._ask, look, i, due) for i in range(len(look.bodies))]
            gevent.joinall(shelves)
            shown = shelves[0].value
        answered_at = time.perf_counter()
        for act in session.sees(look, shown):
            tell_at = answered_at + act.after_s
            gevent.sleep(max(0.0, tell_at - time.perf_counter()))
            self._send(EVENTS, "/v1/events", {"events": act.events}, tell_at)
        if not session.is_over:
            run.arrivals.think(session, time.perf_counter() + session.think_s())

    def _ask(self, look: Look, which: int, due: float) -> Shown | None:
        return self._send(look.kind.value, look.path, look.bodies[which], due)

    def _send(self, name: str, path: str, body: Any, due: float) -> Shown | None:
        """One request; its time, Locust's and ours, is that since *due*."""
        run = self.shoppers
        phase = run.phase(due)
        if phase is not None:
            run.ledger.was_late(phase, 1000 * (time.perf_counter() - due))
        with self.client.post(path, data=orjson.dumps(body), headers=HEADERS, name=name, catch_response=True) as answer:
            took_ms = 1000 * (time.perf_counter() - due)
            answer.request_meta["response_time"] = took_ms
            retry_after = answer.headers.get("retry-after") if answer.headers else None
            read = read_answer(name, answer.status_code or 0, answer.content, retry_after, _error(answer))
            if read.failed:
                answer.failure(read.failed)
            else:
                answer.success()
        if phase is not None:
            run.ledger.saw(phase, name, Seen(took_ms, read.failed, read.level, read.is_refused))
        return read.shown


def _error(answer: Any) -> str:
    """The name of what kept an answer from coming, "" when one came; a status is the reader's business."""
    error = getattr(answer, "error", None)
    return "" if error is None or answer.status_code else type(error).__name__


class Shape(LoadTestShape):
    """As many doors as the plan's page views a second take; a step shape ends when it broke."""

    def tick(self) -> tuple[int, float] | None:
        """Once a second."""
        run: Run = self.runner.environment.shoppers
        number = phase_at(run.plan, self.get_run_time())
        if number is None:
            return None
        if run.shape == "step" and breaking_point(run.objectives, run.plan, run.ledger, number) is not None:
            return None
        doors = max(1, round(run.plan[number].rate / VIEWS_A_DOOR))
        return doors, float(doors)


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    add = parser.add_argument_group("shoppers").add_argument
    add("--data", default=".tutti/shop", env_var="LOAD_DATA", help="the data directory that is served")
    add("--shape", choices=SHAPES, default="steady", env_var="LOAD_SHAPE", help="how the load goes up and down")
    add("--minutes", type=float, default=2.0, env_var="LOAD_MINUTES", help="how long, in all")
    add("--rate", type=float, default=20.0, env_var="LOAD_RATE", help="page views a second; of steps, the first")
    add("--growth", type=float, default=1.3, env_var="LOAD_GROWTH", help="from one step to the next")
    add("--seed", type=int, default=1, env_var="LOAD_SEED", help="who comes and what they do")
    add(
        "--objectives",
        default=str(Path(__file__).with_name("objectives.toml")),
        env_var="LOAD_OBJECTIVES",
        help="what the run is held against",
    )
    add("--figures", default="", env_var="LOAD_FIGURES", help="JSON to write: the plan, the claims, everything seen")


@events.init.add_listener
def _begin(environment: Any, **_: object) -> None:
    run = environment.shoppers = Run(environment.parsed_options)
    if isinstance(environment.runner, WorkerRunner):

        def report(data: dict[str, Any], **_: object) -> None:
            data["shoppers"], run.ledger = run.ledger.document(), Ledger()

        environment.events.report_to_master.add_listener(report)
    else:
        environment.events.worker_report.add_listener(lambda data, **_: run.ledger.add(data["shoppers"]))


@events.test_start.add_listener
def _start(environment: Any, **_: object) -> None:
    run = environment.shoppers
    run.began_at = time.perf_counter()
    # Workers with one seed would send the same shoppers at the same moments.
    number = getattr(environment.runner, "worker_index", 0)
    run.rng.seed(f"{environment.parsed_options.seed}-{number}")


@events.test_stop.add_listener
def _stop(environment: Any, **_: object) -> None:
    """Requests under way get their time; who only thinks goes home."""
    inside = environment.shoppers.inside
    inside.join(timeout=GIVE_UP_S)
    inside.kill()


@events.quitting.add_listener
def _judge(environment: Any, **_: object) -> None:
    """Print what was seen and whether it held; the exit code says it again. A worker leaves that to its master."""
    if not hasattr(environment, "shoppers") or isinstance(environment.runner, WorkerRunner):
        return
    run: Run = environment.shoppers
    claims = judge(run.objectives, run.shape, run.plan, run.ledger)
    print(f"\n{figures(run.plan, run.ledger)}\n\n{table(claims)}")
    environment.process_exit_code = exit_code(claims)
    if environment.parsed_options.figures:
        document = {
            "shape": run.shape,
            "phases": [{**asdict(one), "asked": one.asked.value} for one in run.plan],
            "claims": [asdict(one) for one in claims],
            "seen": run.ledger.document(),
        }
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        Path(environment.parsed_options.figures).write_bytes(text + b"\n")

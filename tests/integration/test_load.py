"""A load test as a user runs it: Locust, headless, against a server that answers, stalls or fails as it is told."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import pytest

from tests.support.small_shop import tastes, write_shop

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
RATE, SECONDS = 20, 7
OBJECTIVES = """
[requests.home]
p50_ms = {p50}
[generator]
late_p99_ms = 2000
"""
"""Wide: a test machine is slow, and what is tested is that a miss is seen. The stall below is a second."""


class Edge(BaseHTTPRequestHandler):
    """Answers every shelf with two items; what it was asked is in `asked`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, body))
        self.server.behave()
        if self.path == "/v1/events":
            self._answer(202, {"accepted": len(body["events"]), "rejected": []})
        else:
            items = [{"id": one} for one in ("i1", "i2")] if self.server.has_items else []
            quality = {"level": "full", "rung": "full", "degraded": []}
            self._answer(200, {"recommendation_id": "r1", "items": items, "quality": quality})

    def _answer(self, status, document):
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} told\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def log_message(self, *_):
        pass


@contextmanager
def an_edge(behave=lambda: None, has_items=True):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Edge)
    server.daemon_threads = True
    server.asked, server.behave, server.has_items = [], behave, has_items
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop", tastes())


def load(server, shop, tmp_path, p50_ms=1500):
    objectives, report = tmp_path / "objectives.toml", tmp_path / "load.html"
    objectives.write_text(OBJECTIVES.format(p50=p50_ms))
    command = [sys.executable, "-m", "loadtests.shoppers", "--data", str(shop), "--shape", "steady"]
    command += ["--minutes", str(SECONDS / 60), "--rate", str(RATE), "--objectives", str(objectives)]
    command += ["--report", str(report), "--host", f"http://127.0.0.1:{server.server_port}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return done, json.loads(report.with_suffix(".json").read_text()), report


def test_shoppers_come_look_click_and_tell_and_the_run_holds(shop, tmp_path):
    with an_edge() as server:
        done, figures, report = load(server, shop, tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "MISSED" not in done.stdout
    assert "availability" in done.stdout
    assert "<html" in report.read_text()[:500].lower()
    paths = Counter(path for path, _ in server.asked)
    assert set(paths) == {"/v1/recommendations", "/v1/rankings", "/v1/events"}
    # A page view is one to three requests.
    assert 0.6 * RATE * SECONDS < paths["/v1/recommendations"] + paths["/v1/rankings"] < 3 * RATE * SECONDS
    told = [event for path, body in server.asked if path == "/v1/events" for event in body["events"]]
    assert {"impression", "view", "click"} <= {event["event_type"] for event in told}
    assert all(event["recommendation_id"] == "r1" for event in told if event["event_type"] == "click")
    seen = sum(row["n"] for _, _, row in figures["seen"]["rows"])
    assert 0.9 * len(server.asked) <= seen <= len(server.asked)


def test_a_stall_costs_everybody_who_was_due_in_it_and_nobody_waits_for_it_to_be_over(shop, tmp_path):
    # The whole server stands still for a second; a closed loop would see one slow answer a shopper who was there.
    numbers, one = count(), threading.Lock()

    def stall():
        with one:
            if next(numbers) == RATE * 3:
                time.sleep(1)

    with an_edge(stall) as server:
        done, figures, _ = load(server, shop, tmp_path)

    slow = sum(
        n
        for _, _, row in figures["seen"]["rows"]
        for bucket, n in row["latency"].items()
        if 0.05 * 1.02 ** int(bucket) > 150
    )
    assert done.returncode == 0, done.stdout
    # At least as many requests as page views are due in that second, evenly; a seventh of them in its last 150 ms.
    assert slow >= 0.6 * RATE
    assert next(numbers) > RATE * 3


def test_empty_slates_end_the_run_with_one_and_the_table_says_what_was_missed(shop, tmp_path):
    with an_edge(has_items=False) as server:
        done, figures, _ = load(server, shop, tmp_path)

    assert done.returncode == 1, done.stdout
    missed = [claim for claim in figures["claims"] if claim["holds"] is False]
    assert [claim["name"] for claim in missed] == ["availability"]
    assert "empty slate" in missed[0]["found"]
    assert any("availability" in line and line.endswith("MISSED") for line in done.stdout.splitlines())

"""
The whole system as a user starts it: real commands, real processes, free ports, always cleaned up.

Everything goes through the command line; nothing of the product is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]

START_WITHIN_S = 90
"""A start takes about ten seconds alone; the test machine may be shared."""


def tutti(*arguments: str, root: Path = ROOT, env: Mapping[str, str] | None = None, timeout_s: float = 300) -> str:
    """Run one `tutti` command in *root* to its end and return its output; a failure shows what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *arguments],
        cwd=root,
        env=environment(root, env),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"tutti {' '.join(arguments)} ended {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def environment(root: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment with *root*'s packages first and nothing of an outer tutti."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TUTTI_")}
    return {**clean, "PYTHONPATH": str(root), "COLUMNS": "200", **(env or {})}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class System:
    """A running `tutti up`."""

    data: Path
    port: int
    process: subprocess.Popen[bytes]
    root: Path
    log: Path

    def get(self, path: str) -> Answer:
        """GET *path*."""
        return self._send(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}"))

    def post(self, path: str, body: object, content_type: str = "application/json") -> Answer:
        """POST *body*: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        return self._send(urllib.request.Request(url, data, {"content-type": content_type}, method="POST"))

    def delete(self, path: str) -> Answer:
        """DELETE *path*."""
        return self._send(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method="DELETE"))

    def processes(self) -> dict[str, dict]:
        """What `tutti status --json` says, by name."""
        answer = json.loads(tutti("status", "--data", str(self.data), "--json", root=self.root))
        return {process["name"]: process for process in answer["processes"]}

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Process *name* hangs: it keeps its connections and answers nothing."""
        pid = self.processes()[name]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @staticmethod
    def _send(request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return Answer(reply.status, _lower(reply.headers), reply.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lower(error.headers), error.read())


@contextlib.contextmanager
def running(data: Path, root: Path = ROOT, env: Mapping[str, str] | None = None, *options: str) -> Iterator[System]:
    """`tutti up` on *data* with *options* until it is ready; stopped at the end, with nothing left behind."""
    port = free_port()
    log = data / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "up", "--data", str(data), "--port", str(port), *options],
            cwd=root,
            env=environment(root, env),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    system = System(data, port, process, root, log)
    try:
        wait_until(lambda: is_ready(system), START_WITHIN_S, lambda: log.read_text()[-4000:])
        yield system
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def is_ready(system: System) -> bool:
    """Whether the edge says so; an early end of the command is a failure at once."""
    assert system.process.poll() is None, (
        f"tutti up ended {system.process.returncode}\n{system.log.read_text()[-4000:]}"
    )
    try:
        return system.get("/readyz").status == 200
    except OSError:
        return False


def wait_until(holds, within_s: float, explain=lambda: "") -> None:
    """Poll real processes until *holds()*; the one place where a test waits for the wall clock."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"not within {within_s} s\n{explain()}"
        time.sleep(0.05)


def _lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}

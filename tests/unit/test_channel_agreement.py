"""What the two ends of a gRPC connection, and the processes that open them, must agree on."""

import ast
import re
from pathlib import Path

import grpc

from orchestrator.adapters import grpc_channel
from services.chassis import health

ROOT = Path(__file__).parents[2]
CLIENT, SERVER = dict(grpc_channel.OPTIONS), dict(health.OPTIONS)


# case 73: goaway_too_many_pings
def test_an_idle_client_pings_no_more_often_than_the_server_allows():
    """By default a server answers pings without data that come within 5 minutes with GOAWAY too_many_pings."""
    assert CLIENT["grpc.keepalive_permit_without_calls"] == SERVER["grpc.keepalive_permit_without_calls"] == 1
    # Half: a ping that was late and one that is early must not look like two in a hurry.
    assert SERVER["grpc.http2.min_ping_interval_without_data_ms"] <= CLIENT["grpc.keepalive_time_ms"] / 2


# case 73: goaway_too_many_pings
def test_every_option_is_one_that_grpc_knows():
    """gRPC ignores a name it does not know: `min_recv_ping_interval_without_data_ms` was one, in merged patches."""
    library = next(Path(grpc.__file__).parent.rglob("cygrpc*.so")).read_bytes()

    unknown = [name for name in (*CLIENT, *SERVER) if name.encode() not in library]

    assert unknown == []
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms" not in library


def test_a_server_lets_calls_in_flight_finish_before_it_renews_a_connection():
    assert SERVER["grpc.max_connection_age_grace_ms"] >= 1_000
    assert SERVER["grpc.max_connection_age_ms"] > SERVER["grpc.max_connection_age_grace_ms"]
    assert health.MAXIMUM_CONCURRENT_RPCS > 0


# case 76: fork_after_channel
def test_no_process_of_ours_forks_itself():
    """
    A channel does not survive a fork. Ours cannot meet one: every process is started by exec of a command line
    (asyncio's subprocess and subprocess.Popen), and uvicorn's and multiprocessing's workers are not used.
    """
    forks = re.compile(r"\bos\.fork(pty)?\(|\bmultiprocessing\b|\bProcessPoolExecutor\b|\bpreexec_fn\b|\bworkers=\d")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("orchestrator", "services/chassis", "services/ingestion", "protos")
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if forks.search(line)
    ]

    assert found == []


# case 76: fork_after_channel
def test_an_orchestrator_opens_its_channels_inside_its_own_running_loop():
    """Only the function that runs in the loop makes them; at import, or before it, there is none to be forked."""
    callers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "orchestrator").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("insecure_channel", "secure_channel"))
    }
    at_import = [
        (path.name, node.lineno)
        for path in (ROOT / "orchestrator").rglob("*.py")
        for statement in ast.parse(path.read_text()).body
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("insecure_channel", "open_channel"))
    ]

    assert callers == {"orchestrator/adapters/grpc_channel.py", "orchestrator/supervisor/readiness.py"}
    assert at_import == []

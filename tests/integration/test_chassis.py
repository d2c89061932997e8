"""A real gRPC server around small models, in this process; and once as a process of its own."""

import asyncio
import dataclasses
import json
import random
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import artefacts
from protos.arrays import Rows, pack_rows
from protos.tutti.v1 import (
    candidate_generation_pb2,
    candidate_generation_pb2_grpc,
    common_pb2,
    reranking_pb2,
    reranking_pb2_grpc,
)
from services.chassis import server
from services.chassis.faults import Faults
from services.chassis.health import CannotListen, HealthyServer
from services.chassis.model import Candidates, Resources
from services.chassis.telemetry import start_logging
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Counting:
    """A generator that proposes 0, 1, 2 … for every query, and can be made to wait or to break."""

    version = "v1"

    def __init__(self):
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.fault: Exception | None = None

    def generate(self, queries):
        self.calls += 1
        self.entered.set()
        self.gate.wait(5)
        if self.fault:
            raise self.fault
        rows = Rows.of([list(range(n)) for n in queries.counts])
        return Candidates(rows, -rows.values.astype(np.float32))


class Flat:
    version, feature_digest = "v2", "plan-a"

    def rank(self, queries):
        return np.ones(len(queries.candidates.values), np.float32)


def shoppers(q):
    return common_pb2.Shoppers(placements=bytes([1] * q))


def a_request(*counts):
    return candidate_generation_pb2.GenerateRequest(
        queries=len(counts), counts=np.array(counts, "<i4").tobytes(), shoppers=shoppers(len(counts))
    )


@asynccontextmanager
async def serving(model, columns=(0, 0), address=None, faults=None):
    stop, address = asyncio.Event(), address or f"127.0.0.1:{free_port()}"
    loaded = server.Loaded("toy", model, columns)
    task = asyncio.create_task(server.serve(loaded, address, start_logging("toy"), stop=stop, faults=faults))
    async with grpc.aio.insecure_channel(address) as channel:
        await until(channel, SERVING, task)
        try:
            yield channel, stop, task
        finally:
            stop.set()
            await task


async def until(channel, wanted, task=None):
    stub = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(10):
        while task is None or not task.done():
            try:
                if (await stub.Check(health_pb2.HealthCheckRequest())).status == wanted:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.01)
        task.result()


async def test_a_generator_answers_a_batch_of_queries_by_the_wire():
    async with serving(Counting()) as (channel, _, _):
        stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)

        reply = await stub.Generate(a_request(3, 1), timeout=5)

    assert np.frombuffer(reply.candidates.offsets, "<u4").tolist() == [0, 3, 4]
    assert np.frombuffer(reply.candidates.values, "<i4").tolist() == [0, 1, 2, 0]
    assert np.frombuffer(reply.scores, "<f4").tolist() == [0, -1, -2, 0]
    assert reply.model_version == "v1"


async def test_a_contradictory_request_is_an_invalid_argument_that_names_the_field():
    async with serving(Counting()) as (channel, _, _):
        stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Generate(candidate_generation_pb2.GenerateRequest(queries=2, counts=b"123"), timeout=5)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "counts" in refused.value.details()


async def test_a_call_that_expires_in_the_queue_never_touches_the_model():
    model = Counting()
    async with serving(model) as (channel, _, _):
        stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)
        model.gate.clear()
        model.entered.clear()
        calls_before = model.calls
        slow = stub.Generate(a_request(1), timeout=5)
        await asyncio.to_thread(model.entered.wait, 5)

        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub.Generate(a_request(1), timeout=0.02)
        model.gate.set()
        await slow

        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert model.calls == calls_before + 1


# case 8: server_drops_expired
async def test_a_frozen_service_works_for_none_of_the_calls_that_died_meanwhile(tmp_path):
    a_toy_service(tmp_path)
    an_artefact(tmp_path)
    port, metrics_port = free_port(), free_port()
    process = start(tmp_path, port, "--metrics-port", str(metrics_port))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await until(channel, SERVING)
            stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)
            await stub.Generate(a_request(2), timeout=5)
            before = await asyncio.to_thread(model_calls, metrics_port)

            process.send_signal(signal.SIGSTOP)
            dead = await asyncio.gather(
                # Every other one is a batch.
                *(stub.Generate(a_request(*([2] * (1 + 63 * (n % 2)))), timeout=0.05) for n in range(200)),
                return_exceptions=True,
            )
            await asyncio.sleep(0.3)  # past every deadline by as much as its clock may differ
            process.send_signal(signal.SIGCONT)
            reply = await stub.Generate(a_request(2), timeout=5)
            after = await asyncio.to_thread(model_calls, metrics_port)
    finally:
        process.kill()
        process.communicate()

    assert {error.code() for error in dead} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert reply.model_version
    assert after - before == 1


async def test_calls_that_die_in_a_queue_of_batches_never_touch_the_model():
    model = Counting()
    async with serving(model) as (channel, _, _):
        stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)
        model.gate.clear()
        model.entered.clear()
        calls_before = model.calls
        slow = stub.Generate(a_request(1), timeout=5)
        await asyncio.to_thread(model.entered.wait, 5)
        dying = [stub.Generate(a_request(*([1] * 64)), timeout=0.05) for _ in range(60)]
        dead = await asyncio.gather(*dying, return_exceptions=True)

        model.gate.set()
        await slow
        await stub.Generate(a_request(1), timeout=5)

    assert {error.code() for error in dead} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert model.calls == calls_before + 2


async def test_a_fault_is_shown_to_callers_and_ends_with_the_file(tmp_path):
    path = tmp_path / "faults.json"
    path.write_text('{"toy": {"status": "UNAVAILABLE"}}')
    faults = Faults(path, "toy", 0, start_logging("toy"), random.Random(1))
    model = Counting()
    async with serving(model, faults=faults) as (channel, _, _):
        stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)
        calls_before = model.calls
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await stub.Generate(a_request(2), timeout=5)
        calls_with_fault = model.calls - calls_before

        path.write_text('{"toy:0": {"answer": "empty", "delay_ms": 1}}')
        await asyncio.sleep(0.06)
        empty = await stub.Generate(a_request(2), timeout=5)
        path.unlink()
        await asyncio.sleep(0.06)
        healed = await stub.Generate(a_request(2), timeout=5)

    assert told.value.code() is grpc.StatusCode.UNAVAILABLE
    assert calls_with_fault == 0
    assert empty.candidates.values == b""
    assert np.frombuffer(healed.candidates.values, "<i4").tolist() == [0, 1]


async def test_a_models_bug_is_internal_and_the_next_call_works():
    model = Counting()
    async with serving(model) as (channel, _, _):
        stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)
        model.fault = ZeroDivisionError("secret detail")

        with pytest.raises(grpc.aio.AioRpcError) as broken:
            await stub.Generate(a_request(1), timeout=5)
        model.fault = None
        reply = await stub.Generate(a_request(1), timeout=5)

    assert broken.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in broken.value.details()
    assert reply.model_version == "v1"


async def test_more_calls_than_the_limit_are_resource_exhausted(monkeypatch):
    monkeypatch.setattr("services.chassis.health.MAXIMUM_CONCURRENT_RPCS", 2)
    model = Counting()
    async with serving(model) as (channel, _, _):
        stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)
        model.gate.clear()
        calls = [asyncio.ensure_future(stub.Generate(a_request(1), timeout=5)) for _ in range(6)]
        done, pending = await asyncio.wait(calls, timeout=0.5)
        model.gate.set()
        answers = await asyncio.gather(*pending)

    assert {call.exception().code() for call in done} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(answers) == 2


async def test_features_of_another_plan_are_a_failed_precondition():
    async with serving(Flat(), (1, 1)) as (channel, _, _):
        stub = reranking_pb2_grpc.RerankerStub(channel)
        request = reranking_pb2.RerankRequest(
            queries=1, shoppers=shoppers(1), candidates=pack_rows(Rows.of([[1, 2]])), feature_digest="plan-b"
        )

        with pytest.raises(grpc.aio.AioRpcError) as skew:
            await stub.Rerank(request, timeout=5)
        request.feature_digest = "plan-a"
        reply = await stub.Rerank(request, timeout=5)

    assert skew.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert np.frombuffer(reply.scores, "<f4").tolist() == [1, 1]


async def test_a_service_is_not_ready_before_a_call_went_through_the_model():
    model = Counting()
    model.gate.clear()
    stop, address = asyncio.Event(), f"127.0.0.1:{free_port()}"
    task = asyncio.create_task(server.serve(server.Loaded("toy", model), address, start_logging("toy"), stop=stop))
    async with grpc.aio.insecure_channel(address) as channel:
        await until(channel, NOT_SERVING, task)

        model.gate.set()

        await until(channel, SERVING, task)
        stop.set()
        await task


async def test_a_model_that_fails_its_warm_up_never_becomes_ready():
    model = Counting()
    model.fault = ValueError("no index")

    with pytest.raises(ValueError, match="no index"):
        await server.serve(server.Loaded("toy", model), f"127.0.0.1:{free_port()}", start_logging("toy"))


async def test_a_drain_says_not_serving_and_lets_the_call_in_flight_finish():
    model = Counting()
    async with serving(model) as (channel, stop, task):
        stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        model.gate.clear()
        model.entered.clear()
        in_flight = stub.Generate(a_request(2), timeout=5)
        await asyncio.to_thread(model.entered.wait, 5)

        stop.set()

        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        model.gate.set()
        assert (await in_flight).model_version == "v1"
        await task


async def test_a_taken_port_is_refused_by_name():
    first = HealthyServer("127.0.0.1:0")
    address = await first.start()

    with pytest.raises(CannotListen, match=address):
        await HealthyServer(address).start()
    await first.drain()


def a_toy_service(folder):
    (folder / "toy").mkdir()
    (folder / "toy" / "__init__.py").write_text('ROLE = "generator"\n')
    (folder / "toy" / "serve.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from protos.arrays import Rows
            from services.chassis.model import Candidates

            class Constant:
                def __init__(self, artefact):
                    self.version, self.items = artefact.version, artefact.array("items.npy")

                def generate(self, queries):
                    rows = Rows.of([self.items[:n] for n in queries.counts])
                    return Candidates(rows, -np.concatenate([np.arange(len(rows.row(i))) for i in range(len(rows))])
                                      .astype(np.float32))

            def load(artefact, resources):
                return Constant(artefact)
            """
        )
    )


def an_artefact(data):
    folder = data / "models" / "toy" / "draft"
    folder.mkdir(parents=True)
    np.save(folder / "items.npy", np.array([7, 5, 3], np.int32))
    draft = artefacts.Manifest(
        "toy", "generator", "", "2026-01-01T00:00:00Z", {}, {}, {}, 0, {}, None, artefacts.hash_files(folder)
    )
    version = draft.derived_version()
    artefacts.write_manifest(folder, dataclasses.replace(draft, version=version))
    folder.rename(folder.with_name(version))
    artefacts.write_json(data / "models" / "toy" / "aliases.json", {"champion": version})
    return version


def model_calls(metrics_port):
    """How often the model of the process has been asked, warm-up included."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as answer:
        (line,) = (
            line
            for line in answer.read().decode().splitlines()
            if line.startswith('tutti_service_stage_seconds_count{stage="model"}')
        )
    return int(float(line.split()[-1]))


def start(tmp_path, port, *more):
    code = (
        f"import services, sys; services.__path__.append({str(tmp_path)!r}); "
        "from services.chassis.__main__ import main; sys.exit(main())"
    )
    arguments = ["toy", "--data", str(tmp_path), "--address", f"127.0.0.1:{port}", *more]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


async def test_the_process_serves_the_champion_and_drains_on_sigterm(tmp_path):
    a_toy_service(tmp_path)
    version = an_artefact(tmp_path)
    port = free_port()
    process = start(tmp_path, port)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await until(channel, SERVING)
            stub = candidate_generation_pb2_grpc.CandidateGeneratorStub(channel)
            reply = await stub.Generate(a_request(2), timeout=5)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=10)
    finally:
        process.kill()

    assert np.frombuffer(reply.candidates.values, "<i4").tolist() == [7, 5]
    assert reply.model_version == version
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["loaded", "ready", "stopped"]


def test_a_changed_artefact_is_refused_in_one_sentence(tmp_path):
    a_toy_service(tmp_path)
    version = an_artefact(tmp_path)
    np.save(tmp_path / "models" / "toy" / version / "items.npy", np.array([1], np.int32))

    process = start(tmp_path, free_port())
    _, err = process.communicate(timeout=20)

    assert process.returncode == 1
    assert err.decode().startswith("toy: ")
    assert "items.npy" in err.decode()
    assert len(err.decode().splitlines()) == 1


def test_a_name_without_a_folder_is_refused(tmp_path):
    with pytest.raises(server.NotAService, match="no_such_model"):
        server.load("no_such_model", Resources(tmp_path), "champion")

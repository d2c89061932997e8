"""What a channel makes of a peer in another process that stops, dies, or answers while our own loop stands still."""

import asyncio
import os
import random
import time
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest

from orchestrator.adapters.grpc_channel import is_ready, open_channel
from orchestrator.adapters.grpc_sources import GrpcSource
from orchestrator.core.deadline import Deadline
from orchestrator.core.model import Kept, Loss, Lost
from orchestrator.guard import Guard
from orchestrator.ports import DependencyError
from orchestrator.settings import Stage
from orchestrator.telemetry import new_metrics
from services.chassis.health import HealthyServer
from tests.contract.candidate_source import an_ask
from tests.support.builders import a_query, a_user
from tests.support.toy_process import toy_process

pytestmark = pytest.mark.integration

PATIENT_S = 10.0
STAGE = Stage(cap_ms=60, reserve_after_ms=0, grace_ms=4)


def a_source(*channels):
    return GrpcSource("toy", channels, lambda: 50, "", lambda: 0.0)


def retrieve(source, timeout_s, replica=0):
    return source.retrieve(a_query(), a_user((1,)), an_ask(), timeout_s, replica)


# case 6: loop_stall_answer_kept
async def test_an_answer_that_came_while_our_loop_stood_still_is_kept():
    async with toy_process(delay_s=0.01) as toy, open_channel(toy.address) as channel:
        source = a_source(channel)
        await retrieve(source, PATIENT_S)
        guard = Guard(time.monotonic, new_metrics())

        async def stall():
            await asyncio.sleep(0.001)
            time.sleep(0.1)  # noqa: ASYNC251 – the fault of this test

        outcome, _ = await asyncio.gather(
            guard.call(
                "toy", STAGE, Deadline(time.monotonic() + 1), lambda timeout_s, replica: retrieve(source, timeout_s)
            ),
            stall(),
        )

    assert isinstance(outcome, Kept)
    assert outcome.took_s > 0.09


# case 72: sigstop_peer
async def test_a_stopped_peer_costs_the_timeout_and_answers_again_when_it_goes_on():
    async with toy_process() as toy, open_channel(toy.address) as channel:
        source = a_source(channel)
        await retrieve(source, PATIENT_S)

        os.kill(toy.pid, SIGSTOP)
        with pytest.raises(DependencyError) as failed:
            await retrieve(source, 0.05)
        os.kill(toy.pid, SIGCONT)

        assert failed.value.loss is Loss.DEADLINE
        assert len((await retrieve(source, PATIENT_S)).keys)


# case 72: sigkill_peer
async def test_a_killed_peer_is_unavailable_at_once():
    async with toy_process() as toy, open_channel(toy.address) as channel:
        source = a_source(channel)
        await retrieve(source, PATIENT_S)

        os.kill(toy.pid, SIGKILL)
        with pytest.raises(DependencyError) as failed:
            await retrieve(source, PATIENT_S)

        assert failed.value.loss is Loss.UNAVAILABLE


async def test_a_call_whose_replica_was_killed_is_answered_by_the_other():
    async with (
        toy_process() as first,
        toy_process() as second,
        open_channel(first.address) as one,
        open_channel(second.address) as other,
    ):
        source = a_source(one, other)
        for replica in (0, 1):
            await retrieve(source, PATIENT_S, replica)
        guard = Guard(time.monotonic, new_metrics(), rng=random.Random(1))
        known = guard.dependency("toy", 1.0, replicas=2)
        for _ in range(50):
            known.retry_budget.deposit(time.monotonic())
        os.kill(first.pid, SIGKILL)

        patient = Stage(cap_ms=1000, reserve_after_ms=0, grace_ms=4)
        outcomes = [
            await guard.call(
                "toy",
                patient,
                Deadline(time.monotonic() + PATIENT_S),
                lambda timeout_s, replica: retrieve(source, timeout_s, replica),
            )
            for _ in range(6)
        ]

    assert [outcome for outcome in outcomes if isinstance(outcome, Lost)] == []


# case 75: dns_failure
async def test_a_name_that_does_not_resolve_is_unavailable():
    async with open_channel("dns:///no-such-host.invalid:50051") as channel:
        with pytest.raises(DependencyError) as failed:
            await retrieve(a_source(channel), PATIENT_S)

    assert failed.value.loss is Loss.UNAVAILABLE


# case 2: deadline_zero_not_infinite
@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_no_time_is_no_call(timeout_s):
    async with toy_process() as toy, open_channel(toy.address) as channel:
        with pytest.raises(DependencyError) as failed:
            await retrieve(a_source(channel), timeout_s)

    assert failed.value.loss is Loss.NO_BUDGET


async def until(holds):
    """Another process's or gRPC's own thread's doing; bounded."""
    async with asyncio.timeout(PATIENT_S):
        while not holds():  # noqa: ASYNC110 – another process cannot set our events
            await asyncio.sleep(0.005)


# case 74: graceful_restart
async def test_a_server_that_drains_is_left_alone_before_it_turns_anybody_away():
    server = HealthyServer("127.0.0.1:0")
    address = await server.start()
    try:
        async with open_channel(address) as channel:
            await server.set_ready(True)
            await until(lambda: is_ready(channel))

            await server.set_ready(False)
            await until(lambda: not is_ready(channel))

            await server.set_ready(True)
            await until(lambda: is_ready(channel))
    finally:
        await server.grpc.stop(0)

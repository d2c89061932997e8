"""
Two replicas of a model service, restarted in turn under calls: what a client must do so that none of them fails.

It has one channel for each replica, watches health by its service config, asks a replica only while its channel is
READY, and asks once more, elsewhere, when a call is UNAVAILABLE: a call can be on its way to the channel's own thread
in the moment in which that learns of the drain, and is then turned away without having been sent.
"""

import asyncio
import json
import signal
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from orchestrator.adapters.grpc_channel import OPTIONS, SERVICE_CONFIG
from orchestrator.supervisor.rolling import SETTLE_S
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

READY = grpc.ChannelConnectivity.READY


def open_watching_channel(address):
    config = SERVICE_CONFIG | {"healthCheckConfig": {"serviceName": ""}}
    options = [(name, value) for name, value in OPTIONS if name != "grpc.service_config"]
    return grpc.aio.insecure_channel(address, options=[*options, ("grpc.service_config", json.dumps(config))])


def start(address):
    command = [sys.executable, "-m", "tests.support.fake_service", "grpc", address]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


async def a_replica(address):
    process = start(address)
    async with asyncio.timeout(30), grpc.aio.insecure_channel(address) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
    return process


# case 74: graceful_restart
async def test_replicas_restarted_in_turn_lose_no_call_of_a_client_that_watches_health():
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    processes = [await a_replica(address) for address in addresses]
    channels = [open_watching_channel(address) for address in addresses]
    stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
    answers, again, failures, nobody = [0, 0], [], [], 0
    stop = asyncio.Event()

    async def call(turn, besides=None):
        nonlocal nobody
        ready = [i for i, channel in enumerate(channels) if channel.get_state(try_to_connect=True) is READY]
        ready = [i for i in ready if i != besides]
        if not ready:
            nobody += 1
            return
        replica = ready[turn % len(ready)]
        try:
            await stubs[replica].Check(health_pb2.HealthCheckRequest(), timeout=2)
            answers[replica] += 1
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE and besides is None:
                again.append(replica)
                await call(turn, besides=replica)
            else:
                failures.append(f"{replica}: {error.code().name} {error.details()}")

    async def load():
        calls, turn = set(), 0
        while not stop.is_set():
            calls.add(asyncio.create_task(call(turn)))
            turn += 1
            await asyncio.sleep(0.005)
        await asyncio.gather(*calls)

    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        calling = asyncio.create_task(load())
        for replica, address in enumerate(addresses):
            await asyncio.sleep(0.2)
            processes[replica].send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(processes[replica].wait, 10) == 0
            processes[replica] = await a_replica(address)
            await asyncio.sleep(SETTLE_S)
        stop.set()
        await calling
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for channel in channels:
            await channel.close()

    assert failures == []
    assert nobody == 0
    assert min(answers) > 100
    # Without watching health it is every second call for as long as a replica is down.
    assert len(again) < 0.05 * sum(answers)

"""
A process with no model: `python -m tests.support.fake_service grpc|http|tcp|once ADDRESS [--fd N] [--fail TEXT]`.

For the supervisor's tests: ready at once, prints its name, ends on SIGTERM; or fails the way it is told to.
"""

import argparse
import asyncio
import os
import socket
import sys


async def serve_grpc(address):
    from services.chassis.health import HealthyServer, stop_on_signals

    stop = asyncio.Event()
    stop_on_signals(stop.set)
    server = HealthyServer(address)
    await server.start()
    await server.set_ready(True)
    print("serving", flush=True)
    await stop.wait()
    await server.drain()
    print("drained", flush=True)


def serve_http(address, fd, drain_s):
    """The orchestrator's server around an application that takes 20 ms to say which process it is."""
    import uvicorn

    from orchestrator.__main__ import own_socket
    from orchestrator.edge.one_write import OneWrite
    from orchestrator.edge.server import DrainingServer

    is_draining = False

    def on_drain():
        nonlocal is_draining
        is_draining = True

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for said in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{said}.complete"})
            return
        is_probe = scope["path"] == "/readyz"
        if not is_probe:
            await asyncio.sleep(0.02)
        body = str(os.getpid()).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        status = 503 if is_probe and is_draining else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=2, http=OneWrite)
    server = DrainingServer(config, drain_s, on_drain, is_shared=True)
    server.run([socket.socket(fileno=fd), own_socket(address)])
    print("drained", flush=True)


def serve_tcp(host, port):
    with socket.create_server((host, port)) as listener:
        while True:
            listener.accept()[0].close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["grpc", "http", "tcp", "once"])
    parser.add_argument("address", nargs="?", default="")
    parser.add_argument("--fd", type=int)
    parser.add_argument("--drain", type=float, default=1.0)
    parser.add_argument("--fail")
    arguments = parser.parse_args()
    if arguments.fail:
        print(arguments.fail, file=sys.stderr)
        return 3
    host, _, port = arguments.address.rpartition(":")
    match arguments.kind:
        case "grpc":
            asyncio.run(serve_grpc(arguments.address))
        case "http":
            serve_http(arguments.address, arguments.fd, arguments.drain)
        case "tcp":
            serve_tcp(host, int(port))
        case "once":
            print("seeded")
    return 0


if __name__ == "__main__":
    sys.exit(main())

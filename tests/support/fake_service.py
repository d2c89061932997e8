"""
A process with no model: `python -m tests.support.fake_service grpc|http|tcp|once ADDRESS [--fd N] [--fail TEXT]`.

For the supervisor's tests: ready at once, prints its name, ends on SIGTERM; or fails the way it is told to.
"""

import argparse
import asyncio
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer


class Ready(BaseHTTPRequestHandler):
    """Answers every GET with its own pid."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())

    def log_message(self, *_):
        pass


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


def serve_http(host, port, fd):
    """At an address of our own and, as an orchestrator does, at a socket that was handed over."""
    if fd is not None:
        shared = HTTPServer((host, 0), Ready, bind_and_activate=False)
        shared.socket.close()
        shared.socket = socket.socket(fileno=fd)
        shared.socket.setblocking(False)  # whoever is second at a connection must not wait for the next
        threading.Thread(target=shared.serve_forever, daemon=True).start()
    HTTPServer((host, port), Ready).serve_forever()


def serve_tcp(host, port):
    with socket.create_server((host, port)) as listener:
        while True:
            listener.accept()[0].close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["grpc", "http", "tcp", "once"])
    parser.add_argument("address", nargs="?", default="")
    parser.add_argument("--fd", type=int)
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
            serve_http(host, int(port), arguments.fd)
        case "tcp":
            serve_tcp(host, int(port))
        case "once":
            print("seeded")
    return 0


if __name__ == "__main__":
    sys.exit(main())

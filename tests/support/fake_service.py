"""
A process with no model: `python -m tests.support.fake_service grpc|http|once ADDRESS [--die-after S] [--fail TEXT]`.

For the supervisor's tests: ready at once, prints its name, ends on SIGTERM; or fails the way it is told to.
"""

import argparse
import asyncio
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["grpc", "http", "once"])
    parser.add_argument("address", nargs="?", default="")
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
            HTTPServer((host, int(port)), Ready).serve_forever()
        case "once":
            print("seeded")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
Counts of what a request costs outside the process: RPCs, writes to Redis, commands there, protobuf messages.

Counts and no times: they are the same on every machine. All are taken where the process ends – at its sockets
and in the service – so an adapter can be written anew without this file hearing of it.
"""

from __future__ import annotations

import asyncio.selector_events
from collections.abc import Sequence
from dataclasses import dataclass

import hiredis
from google.protobuf.message import Message

from protos import feast_values


@dataclass(frozen=True, slots=True)
class Counts:
    """
    generates, reranks   calls of the model services
    redis_writes         times something was sent to Redis: round trips, when each is waited for
    redis_commands       commands in what was sent; a script is one
    messages             protobuf messages in requests, answers and features, nested ones too
    """

    generates: int = 0
    reranks: int = 0
    redis_writes: int = 0
    redis_commands: int = 0
    messages: int = 0


class RedisWrites:
    """Counts what this loop's transports send to one port of loopback: `n` times `n_commands` in all."""

    def __init__(self, monkeypatch, port: int) -> None:
        self.n = self.n_commands = 0
        is_within = False
        transport = asyncio.selector_events._SelectorSocketTransport

        def counting(send):
            def counted(self_, data):
                nonlocal is_within
                peer = self_.get_extra_info("peername")
                # `writelines` may or may not be made of `write`; both are one trip.
                if not is_within and isinstance(peer, tuple) and peer[1] == port:
                    self.n += 1
                    self.n_commands += commands_in(data)
                before, is_within = is_within, True
                try:
                    send(self_, data)
                finally:
                    is_within = before

            return counted

        monkeypatch.setattr(transport, "write", counting(transport.write))
        monkeypatch.setattr(transport, "writelines", counting(transport.writelines), raising=False)


def commands_in(data: bytes | Sequence[bytes]) -> int:
    """Whole commands of one write."""
    reader, n = hiredis.Reader(), 0
    reader.feed(bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data))
    while reader.gets() is not False:
        n += 1
    return n


class FeatureMessages:
    """Counts proto objects made of what stands in Feast's hashes."""

    def __init__(self, monkeypatch) -> None:
        self.n = 0
        for name in ("FeastValue", "FeastTimestamp"):
            monkeypatch.setattr(feast_values, name, self._counting(getattr(feast_values, name)), raising=False)

    def _counting(self, message):
        class Counting:
            @staticmethod
            def FromString(raw):
                self.n += 1
                return message.FromString(raw)

        return Counting


def messages_in(message: Message) -> int:
    """*message* and every one inside it."""
    n = 1
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        inner = value if field.is_repeated else (value,)
        n += sum(messages_in(one) for one in inner if isinstance(one, Message))
    return n

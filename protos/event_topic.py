"""
The event log as a Kafka topic: what the orchestrator writes and ingestion reads, where `events.broker` is "kafka".

    key     the subject, `u:<user_id>` or `v:<visitor_id>`, so that one shopper's events keep their order; none for
            nobody's
    value   the event's JSON, the very bytes that stand in the Redis stream otherwise

How a cluster is reached beyond host and port (TLS, SASL) is read from a file of `name=value` lines, as Kafka's own
tools take it: passwords then stand in no command line and in no settings that somebody prints.
"""

from __future__ import annotations

from pathlib import Path

OURS = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "group.id",
        "message.timeout.ms",
        "request.required.acks",
    }
)
"""Properties that decide what an accepted event survives: settings, or ours; not to be changed behind their back."""

INSTALL = "Kafka needs the package confluent-kafka, which is not installed; install it with: pip install 'tutti[kafka]'"


class TopicUnusable(ValueError):
    """What was said about the topic cannot be meant; the message says where."""


def properties(path: Path | None) -> dict[str, str]:
    """
    Properties of librdkafka from a file: `name=value` a line, `#` begins a comment line.

    Raises:
        TopicUnusable: no such file, a line without `=`, or a property that is not for a file to say.
    """
    if path is None:
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TopicUnusable(f"the Kafka properties at {path} cannot be read: {error}") from error
    found = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            # Not the line itself: it may be a password.
            raise TopicUnusable(f"{path}, line {number}: expected name=value")
        if name.strip() in OURS:
            raise TopicUnusable(f"{path}, line {number}: {name.strip()} is decided by the settings; take it out")
        found[name.strip()] = value.strip()
    return found

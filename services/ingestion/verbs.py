"""
`tutti ingest`: how far ingestion is behind, and online state made anew from the event log.

Imported by `tutti --help`, so what is heavy is imported by the verb that needs it. Exit codes: 0 done, 1 with one clear
sentence, 2 wrong usage.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

if TYPE_CHECKING:
    from services.ingestion.broker import Broker
    from services.ingestion.lag import Lag

ingest = typer.Typer(
    help="The event stream and what is made of it. Example: tutti ingest status", no_args_is_help=True, name="ingest"
)

DataDirectory = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Data directory; default $TUTTI_HOME/shop.")
]
RedisUrl = Annotated[
    str | None, typer.Option("--redis", metavar="URL", help="Default: the Redis of the system that runs in DIR.")
]
Kafka = Annotated[
    str | None,
    typer.Option(
        "--kafka", metavar="HOST:PORT", help="Brokers; default: of the system that runs in DIR, if it has any."
    ),
]
Topic = Annotated[str | None, typer.Option("--topic", help="Kafka's topic of events; goes with --kafka.")]
Properties = Annotated[
    Path | None, typer.Option("--kafka-properties", metavar="FILE", help="Further librdkafka properties.")
]


@ingest.command()
def status(
    data: DataDirectory = None,
    redis_url: RedisUrl = None,
    kafka: Kafka = None,
    topic: Topic = None,
    kafka_properties: Properties = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """
    Show what waits: events not in the log yet, features not in the store yet, dead letters, people to be taken out.

    Example: tutti ingest status --data .tutti/shop --json
    """
    import asyncio

    from services.ingestion.lag import look
    from services.ingestion.streams import connect

    place = data or _default_data()
    url = redis_url or _running(place)
    broker = _broker(place, redis_url, kafka, topic, kafka_properties)

    async def asked() -> Lag:
        client, watch = connect(url), broker.watch()
        try:
            return await look(client, watch)
        finally:
            await client.aclose()
            if watch is not None:
                await watch.close()

    try:
        lag = asyncio.run(asked())
    except Exception as error:
        _explain(error, url)
    if as_json:
        typer.echo(json.dumps(asdict(lag)))
        return
    for line in lines(lag):
        typer.echo(line)


def lines(lag: Lag) -> list[str]:
    """A lag in words, a line a thing that can wait."""
    behind = f"oldest {lag.oldest_s:,.1f} s old" if lag.unread + lag.pending else "nothing waits"
    if lag.features_s is None:
        features = "all that the log speaks of is to be computed, or nobody computes"
    else:
        features = (
            f"oldest event not counted {lag.features_s:,.1f} s old" if lag.features_s else "everything is counted"
        )
    dead = f"{lag.dead:,}"
    if lag.last_dead_s is not None:
        dead += f", the last {lag.last_dead_s:,.0f} s ago: {lag.last_dead_reason}"
    if lag.broker == "kafka":
        waits = f"{lag.unread:,} to be written"
        stream = f"topic:         {lag.stream:,} entries in Kafka"
    else:
        waits = f"{lag.unread:,} unread, {lag.pending:,} in hand"
        stream = f"stream:        {lag.stream:,} entries; consumers: {', '.join(lag.consumers) or 'none'}"
    return [
        f"log:           {waits}; {behind}",
        f"features:      {features}",
        f"dead letters:  {dead}",
        f"redactions:    {lag.redactions:,} people's orders wait",
        stream,
    ]


@ingest.command()
def replay(
    since: Annotated[
        datetime,
        typer.Option("--from", metavar="T", help="UTC; everybody who did something from then on is looked at."),
    ],
    data: DataDirectory = None,
    redis_url: RedisUrl = None,
    kafka: Kafka = None,
    topic: Topic = None,
    kafka_properties: Properties = None,
) -> None:
    """
    Make histories, shown lists, watermarks and live features anew from the event log. May be run again, and beside a
    running system: what Redis has and the files have not stays.

    Example: tutti ingest replay --data .tutti/shop --from 2026-03-01
    """
    import redis

    from services.ingestion import replay as replaying

    place = data or _default_data()
    url = redis_url or _running(place)
    broker = _broker(place, redis_url, kafka, topic, kafka_properties)
    moment = since.replace(tzinfo=since.tzinfo or UTC)
    try:
        with Progress(
            "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=_stderr()
        ) as bar:
            task = bar.add_task("shoppers", total=None)
            with redis.Redis.from_url(url, socket_timeout=30.0) as client:
                done = replaying.replay(place, client, moment, lambda n, of: bar.update(task, completed=n, total=of))
            rows = _rebuilt(place, url, broker, moment)
    except Exception as error:
        _explain(error, url)
    typer.echo(
        f"{done.events:,} events of {done.shoppers:,} shoppers, of whom {done.changed:,} lacked something; "
        f"{rows:,} rows of features"
    )


def _rebuilt(data: Path, url: str, broker: Broker, since: datetime) -> int:
    import asyncio

    from services.chassis.telemetry import start_logging
    from services.ingestion.features import FeatureFollower
    from services.ingestion.streams import connect

    async def rebuild() -> int:
        client = connect(url)
        tail = broker.tail(client)
        try:
            follower = FeatureFollower(client, data, tail, start_logging("replay", "warning"))
            return await follower.rebuild(int(since.timestamp() * 1_000_000))
        finally:
            await tail.close()
            await client.aclose()

    return asyncio.run(rebuild())


def _running(data: Path) -> str:
    """URL of the Redis of the system that runs in *data*, from the supervisor's status file."""
    try:
        found: Any = json.loads((data / "run" / "status.json").read_text(encoding="utf-8"))
        address = next(one["address"] for one in found["processes"] if one["name"] == "redis")
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        _fail(f"no Redis is known to run in {data}; start it with: tutti up --data {data}, or name one with --redis")
    return address if "://" in address else f"redis://{address}/0"


def _broker(data: Path, redis_url: str | None, kafka: str | None, topic: str | None, properties: Path | None) -> Broker:
    """The broker that was named, or that of the system that runs in *data*, by the settings it was started with."""
    import tomllib

    from protos.event_topic import TopicUnusable
    from services.ingestion.broker import broker_of

    if redis_url is None and kafka is None:
        try:
            events = tomllib.loads((data / "run" / "settings.toml").read_text(encoding="utf-8"))["events"]
            if events["broker"] == "kafka":
                about = events["kafka"]
                kafka, topic = about["bootstrap_servers"], about["topic"]
                properties = Path(about["properties"]) if about["properties"] else None
        except (OSError, ValueError, KeyError, TypeError):
            pass  # started without `tutti up`, or by one that knew no other broker than Redis
    try:
        return broker_of(kafka, topic, properties)
    except (TopicUnusable, ValueError) as error:
        _fail(str(error))


def _default_data() -> Path:
    return Path(os.environ.get("TUTTI_HOME") or ".tutti") / "shop"


def _explain(error: Exception, url: str) -> NoReturn:
    """Expected failures as one sentence; anything else is a bug and keeps its trace."""
    import redis.exceptions

    from services.training.feature_store import FeatureError

    if isinstance(error, redis.exceptions.RedisError):
        _fail(f"the Redis at {url.rsplit('@', maxsplit=1)[-1]} does not answer: {error}")
    if isinstance(error, OSError | FeatureError):
        _fail(str(error))
    raise error


def _fail(sentence: str) -> NoReturn:
    typer.secho(f"error: {sentence}", fg="red", err=True)
    raise typer.Exit(1)


def _stderr() -> Console:
    return Console(stderr=True)

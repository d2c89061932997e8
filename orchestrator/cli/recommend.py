"""
`tutti recommend`: slates for many users into one file, through the pipeline that serves the storefront.

The model services and Redis run as they do online; only the clock is generous: no cached slates, and a deadline
nobody waits for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import typer
from rich.progress import Progress

from orchestrator import settings as tree
from orchestrator.bootstrap import NotReady, Running, run
from orchestrator.cli.up import default_data
from orchestrator.core.model import Diversity, Placement, Query, Slate, StageList
from orchestrator.ports import Catalogue
from orchestrator.supervisor.backends import start_backends
from orchestrator.supervisor.errors import SupervisorError
from orchestrator.telemetry import configure_logging

CONCURRENCY = 32
"""Requests in flight; more only queue in front of services that compute one at a time."""

PATIENCE_MS = 30_000.0
"""A batch waits for a slow answer rather than lose it; a dead service still ends it."""

ROWS_A_GROUP = 100_000
"""Rows written at once: bounds the memory at about 10 MB whatever the number of users."""

SCHEMA = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("rank", pa.int32()), ("score", pa.float64())])


def recommend(
    users: Annotated[Path, typer.Option(help="Parquet or CSV with a column user_id.")],
    out: Annotated[Path, typer.Option(help="Parquet to write: user_id, item_id, rank, score.")],
    data: Annotated[Path | None, typer.Option(help="Data directory, trained. Default: $TUTTI_HOME/shop.")] = None,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Items a user.")] = 20,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out what the user has touched before.")] = False,
    diversity: Annotated[
        Diversity, typer.Option(help="How little alike a slate's items are to be; off leaves the order.")
    ] = Diversity.OFF,
    stages: Annotated[bool, typer.Option(help="Also write each source's and the fused list (column stage).")] = False,
) -> None:
    """
    Write slates for many users through the serving pipeline.

    Example: tutti recommend --data .tutti/shop --users users.parquet --k 20 --exclude-seen --out slates.parquet
    """
    configure_logging("warning", "text")
    try:
        user_ids = read_users(users)
        writing = _write(data or default_data(), user_ids, out, k, diversity, exclude_seen=exclude_seen, stages=stages)
        counts = asyncio.run(writing)
    except (NotReady, SupervisorError, tree.SettingsError, OSError, ValueError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error
    levels = ", ".join(f"{n} {level}" for level, n in counts.most_common())
    typer.echo(f"{out}: {sum(counts.values())} slates ({levels})")
    if counts["partial"]:
        typer.secho("some slates are partial: a model service did not answer; see the warnings above", err=True)
        raise typer.Exit(1)


def read_users(path: Path) -> list[str]:
    """
    The distinct user ids of a Parquet or CSV file, in order of first appearance.

    Raises:
        ValueError: no column user_id, or no user at all.
        OSError: the file cannot be read.
    """
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: neither Parquet nor CSV: {error}") from error
    if "user_id" not in table.column_names:
        raise ValueError(f"{path}: no column user_id; found {', '.join(table.column_names)}")
    ids = [str(value) for value in table.column("user_id").to_pylist() if value is not None]
    if not ids:
        raise ValueError(f"{path}: no users in column user_id")
    return list(dict.fromkeys(ids))


async def _write(
    data: Path, user_ids: Sequence[str], out: Path, k: int, diversity: Diversity, *, exclude_seen: bool, stages: bool
) -> Counter[str]:
    schema = SCHEMA.append(pa.field("stage", pa.string())) if stages else SCHEMA
    partial = out.with_suffix(out.suffix + ".partial")
    counts: Counter[str] = Counter()
    async with _running(data, k) as running:
        seen = seen_keys(data, user_ids, running.catalogue) if exclude_seen else {}
        with Progress() as progress, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            task = progress.add_task("slates", total=len(user_ids))
            rows: list[tuple[object, ...]] = []
            for start in range(0, len(user_ids), CONCURRENCY):
                batch = user_ids[start : start + CONCURRENCY]
                answers = await asyncio.gather(
                    *(_answer(running, user, k, seen.get(user), diversity) for user in batch)
                )
                for user, (slate, lists) in zip(batch, answers, strict=True):
                    counts[slate.level.value] += 1
                    rows.extend(_rows(running, user, slate, lists if stages else None, k))
                progress.advance(task, len(batch))
                if len(rows) >= ROWS_A_GROUP:
                    writer.write_table(_table(rows, schema))
                    rows = []
            writer.write_table(_table(rows, schema))
    partial.replace(out)
    return counts


async def _answer(
    running: Running, user_id: str, k: int, seen: tuple[int, ...] | None, diversity: Diversity
) -> tuple[Slate, list[StageList]]:
    query = Query(
        f"batch-{user_id}",
        Placement.HOME,
        k,
        user_id=user_id,
        exclude_keys=seen or (),
        exclude_seen=seen is not None,
        diversity=diversity,
    )
    return await running.pipeline.traced(query, PATIENCE_MS / 1000)


def seen_keys(data: Path, user_ids: Sequence[str], catalogue: Catalogue) -> dict[str, tuple[int, ...]]:
    """
    User → keys of every item in the data's events, one entry for each of *user_ids*.

    The online history ends at 200 entries; what was touched before that is known here only.
    """
    wanted = pa.array(user_ids, pa.string())
    seen: dict[str, set[int]] = {user_id: set() for user_id in user_ids}
    file = pq.ParquetFile(data / "events.parquet")
    for batch in file.iter_batches(ROWS_A_GROUP, columns=["user_id", "item_id"]):
        own = batch.filter(pc.is_in(batch.column("user_id"), wanted))
        for user_id, item_id in zip(own.column("user_id").to_pylist(), own.column("item_id").to_pylist(), strict=True):
            if (key := catalogue.key_of(item_id)) is not None:
                seen[user_id].add(key)
    return {user_id: tuple(sorted(keys)) for user_id, keys in seen.items()}


def _rows(
    running: Running, user_id: str, slate: Slate, lists: Sequence[StageList] | None, k: int
) -> Iterator[tuple[object, ...]]:
    name = running.catalogue.id_of
    tail = ("slate",) if lists is not None else ()
    for rank, item in enumerate(slate.items, 1):
        yield (user_id, name(item.key), rank, item.score, *tail)
    for one in lists or ():
        for rank, (key, score) in enumerate(zip(one.keys[:k].tolist(), one.scores[:k].tolist(), strict=True), 1):
            yield (user_id, name(key), rank, score, one.stage)


def _table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


@asynccontextmanager
async def _running(data: Path, k: int) -> AsyncIterator[Running]:
    """The pipeline on backends of its own, with a batch's settings."""
    async with start_backends(data) as overlay, run(_patient(tree.load(overlay), k)) as running:
        yield running


def _patient(settings: tree.Settings, k: int) -> tree.Settings:
    """*settings* for a batch: no cache, no hurry, and as many candidates as items were asked for."""
    stage = tree.Stage(cap_ms=PATIENCE_MS, reserve_after_ms=0, grace_ms=0)
    return settings.model_copy(
        update={
            # A batch is as of the data it was given.
            "data": settings.data.model_copy(update={"clock": "data"}),
            "budget": tree.Budget(total_ms=PATIENCE_MS, reply_ms=0),
            "stages": tree.Stages(cache=stage, user=stage, retrieve=stage, rerank=stage),
            "guard": settings.guard.model_copy(update={"enabled": False}),
            "slate_cache": settings.slate_cache.model_copy(update={"enabled": False}),
            "sources": tuple(s.model_copy(update={"quota": max(s.quota, k)}) for s in settings.sources),
        }
    )

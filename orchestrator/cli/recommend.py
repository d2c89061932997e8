"""
`tutti recommend`: slates for many users into one file, through the pipeline that serves the storefront.

The model services and Redis run as they do online; only the clock is generous: no cached slates, and a deadline
nobody waits for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from orchestrator import settings as tree
from orchestrator.bootstrap import NotReady, Running, run
from orchestrator.cli.asked import Asked, AskedFile, read_asked
from orchestrator.cli.ordered import in_order
from orchestrator.cli.progress import shown
from orchestrator.cli.up import default_data
from orchestrator.core.fusion import fuse
from orchestrator.core.model import Diversity, Retrieved, Slate, StageList
from orchestrator.ports import Catalogue
from orchestrator.supervisor.backends import start_backends
from orchestrator.supervisor.errors import SupervisorError
from orchestrator.telemetry import configure_logging

CONCURRENCY = 32
"""
Pipelines in flight. Derived: half of the 64 calls that a service takes at once, each of them one call as long as calls
are not coalesced; with 64 the last ones were refused and slates partial. A running system has shoppers of its own.
"""

WINDOW = 4 * CONCURRENCY
"""Slates made or in the making that are not written yet; bounds the memory. Derived: a slow one holds up nobody."""

PATIENCE_MS = 30_000.0
"""A batch waits for a slow answer rather than lose it; a dead service still ends it."""

FUSION_METHODS: tuple[str, ...] = get_args(tree.Fusion.model_fields["method"].annotation)

ROWS_A_GROUP = 100_000
"""Rows written at once: bounds the memory at about 10 MB whatever the number of users."""

SCHEMA = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("rank", pa.int32()), ("score", pa.float64())])
QUERY_FIELD = pa.field("query", pa.int32())
"""Row of the users file, from 0; written when that file names pages, because a user may then ask more than once."""


def recommend(
    users: Annotated[
        Path,
        typer.Option(
            help="Parquet or CSV with a column user_id; placement, context_item_ids, cart_item_ids and category make "
            "each row a query of its own."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Parquet to write: user_id, item_id, rank, score.")],
    data: Annotated[Path | None, typer.Option(help="Data directory, trained. Default: $TUTTI_HOME/shop.")] = None,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Items a user.")] = 20,
    diversity: Annotated[
        Diversity, typer.Option(help="How little alike a slate's items are to be; off leaves the order.")
    ] = Diversity.OFF,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out what the user has touched before.")] = False,
    stages: Annotated[bool, typer.Option(help="Also write each source's and the fused list (column stage).")] = False,
) -> None:
    """
    Write slates for many users through the serving pipeline.

    A users file with a column placement (home, item, cart, category), context_item_ids, cart_item_ids or category asks
    row by row; the output then has a column query, the row's number from 0. Item ids: a list, or text with | between.

    Example: tutti recommend --data .tutti/shop --users users.parquet --k 20 --exclude-seen --out slates.parquet
    """
    configure_logging("warning", "text")
    try:
        asked = read_asked(users)
        writing = _write(data or default_data(), asked, out, k, diversity, exclude_seen=exclude_seen, stages=stages)
        counts = asyncio.run(writing)
    except (NotReady, SupervisorError, tree.SettingsError, OSError, ValueError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error
    levels = ", ".join(f"{n} {level}" for level, n in counts.most_common())
    typer.echo(f"{out}: {sum(counts.values())} slates ({levels})")
    if counts["partial"]:
        typer.secho("some slates are partial: a model service did not answer; see the warnings above", err=True)
        raise typer.Exit(1)


async def _write(
    data: Path, asked: AskedFile, out: Path, k: int, diversity: Diversity, *, exclude_seen: bool, stages: bool
) -> Counter[str]:
    schema = SCHEMA.append(pa.field("stage", pa.string())) if stages else SCHEMA
    schema = schema.append(QUERY_FIELD) if asked.has_pages else schema
    counts: Counter[str] = Counter()
    async with _running(data, k) as running:
        seen = seen_keys(data, asked.user_ids(), running.catalogue) if exclude_seen else {}

        async def answer(one: Asked) -> tuple[Slate, list[StageList]]:
            query = replace(one.query(running.catalogue, k, seen.get(one.user_id or "")), diversity=diversity)
            return await running.pipeline.traced(query, PATIENCE_MS / 1000)

        async with aclosing(in_order(asked.rows, answer, CONCURRENCY, WINDOW)) as answers:
            with shown("slates", len(asked.rows)) as advance, _whole(out, schema) as write:
                async for one, (slate, lists) in answers:
                    counts[slate.level.value] += 1
                    number = (one.number,) if asked.has_pages else ()
                    found = _rows(running, one.user_id, slate, lists if stages else None, k)
                    write((*row, *number) for row in found)
                    advance(1)
    return counts


@contextmanager
def _whole(out: Path, schema: pa.Schema) -> Iterator[Callable[[Iterable[tuple[object, ...]]], None]]:
    """
    Yields what takes rows and writes them group by group; *out* is there at the end and holds all of them.

    Half a file under any name would be taken for the answer by somebody: whoever fails leaves nothing new.
    """
    partial = out.with_suffix(out.suffix + ".partial")
    rows: list[tuple[object, ...]] = []
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:

            def write(more: Iterable[tuple[object, ...]]) -> None:
                rows.extend(more)
                if len(rows) >= ROWS_A_GROUP:
                    writer.write_table(_table(rows, schema))
                    rows.clear()

            yield write
            writer.write_table(_table(rows, schema))
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


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
    running: Running, user_id: str | None, slate: Slate, lists: Sequence[StageList] | None, k: int
) -> Iterator[tuple[object, ...]]:
    name = running.catalogue.id_of
    tail = ("slate",) if lists is not None else ()
    for rank, item in enumerate(slate.items, 1):
        yield (user_id, name(item.key), rank, item.score, *tail)
    for one in [*(lists or ()), *other_fusions(running.settings, lists or ())]:
        for rank, (key, score) in enumerate(zip(one.keys[:k].tolist(), one.scores[:k].tolist(), strict=True), 1):
            yield (user_id, name(key), rank, score, one.stage)


def other_fusions(settings: tree.Settings, lists: Sequence[StageList]) -> list[StageList]:
    """
    What the sources' lists would have become under each fusion method that is not the configured one: `fused:<method>`.
    """
    sources = {
        one.stage.removeprefix("source:"): Retrieved(one.keys, one.scores.astype(np.float32), "")
        for one in lists
        if one.stage.startswith("source:")
    }
    weights = {source.name: source.weight for source in settings.sources}
    others = [method for method in FUSION_METHODS if method != settings.fusion.method] if sources else []
    fused = {method: fuse(sources, list(sources), weights, method, settings.fusion.k) for method in others}
    return [StageList(f"fused:{method}", merged.keys, merged.scores) for method, merged in fused.items()]


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

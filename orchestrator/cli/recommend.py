"""
`tutti recommend`: slates for many users into one file, through the pipeline that serves the storefront.

The model services and Redis run as they do online; only the clock is generous: no cached slates, and a deadline
nobody waits for. Slates are written in parts (`parts.py`): a run that was stopped goes on where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from orchestrator import settings as tree
from orchestrator.bootstrap import NotReady, Running, run
from orchestrator.cli.asked import Asked, AskedFile, read_asked
from orchestrator.cli.ordered import in_order
from orchestrator.cli.parts import Parts, digest
from orchestrator.cli.progress import shown
from orchestrator.cli.up import default_data
from orchestrator.core.fusion import fuse
from orchestrator.core.model import Diversity, Retrieved, Slate, StageList
from orchestrator.ports import Catalogue
from orchestrator.supervisor.backends import start_backends
from orchestrator.supervisor.errors import SupervisorError
from orchestrator.telemetry import configure_logging
from protos import artefacts

CONCURRENCY = 128
"""
Pipelines in flight where calls are joined. Derived: a batch takes 64 queries (`core/coalescing.py`), so one is in
flight and another gathers; a service still sees a handful of calls. Measured: docs/performance.md.
"""

CONCURRENCY_ALONE = 32
"""
The same where they are not (`coalesce = false`). Derived: half of the 64 calls that a service takes at once; with 64
the last ones were refused and slates partial. A running system has shoppers of its own.
"""

PATIENCE_MS = 30_000.0
"""A batch waits for a slow answer rather than lose it; a dead service still ends it."""

FUSION_METHODS: tuple[str, ...] = get_args(tree.Fusion.model_fields["method"].annotation)

ROWS_A_PART = 100_000
"""Rows held and written at once, about: bounds the memory at some 30 MB whatever the number of users."""

LISTS_A_SLATE = 8
"""Lists that `stages` writes beside the slate, about."""

SCHEMA = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("rank", pa.int32()), ("score", pa.float64())])
_SETS = re.compile(r"TUTTI_(?!REDIS__)\w+__\w+")
"""Variables that set something; where Redis is changes no slate."""

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
    restart: Annotated[bool, typer.Option(help="Begin anew where a run was stopped, in place of going on.")] = False,
) -> None:
    """
    Write slates for many users through the serving pipeline.

    A users file with a column placement (home, item, cart, category), context_item_ids, cart_item_ids or category asks
    row by row; the output then has a column query, the row's number from 0. Item ids: a list, or text with | between.

    A run that was stopped goes on where it was when the same command is given again: what is done lies in OUT.parts.
    It refuses to where users, data, models or options are others than they were.

    Example: tutti recommend --data .tutti/shop --users users.parquet --k 20 --exclude-seen --out slates.parquet
    """
    configure_logging("warning", "text")
    data = data or default_data()
    try:
        asked = read_asked(users)
        options = {"k": k, "diversity": diversity.value, "exclude_seen": exclude_seen, "stages": stages}
        size = max(1, ROWS_A_PART // (k * (LISTS_A_SLATE if stages else 1)))
        parts = Parts.of(out, _inputs(data, users, options), size, len(asked.rows), restart)
        if parts.done:
            typer.echo(f"{len(parts.done)} of {len(parts)} parts are in {parts.folder} already", err=True)
        counts = asyncio.run(_write(data, asked, parts, k, diversity, exclude_seen=exclude_seen, stages=stages))
    except (NotReady, SupervisorError, tree.SettingsError, OSError, ValueError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error
    levels = ", ".join(f"{n} {level}" for level, n in counts.most_common())
    typer.echo(f"{out}: {sum(counts.values())} slates ({levels})")
    if counts["partial"]:
        typer.secho("some slates are partial: a model service did not answer; see the warnings above", err=True)
        raise typer.Exit(1)


async def _write(
    data: Path, asked: AskedFile, parts: Parts, k: int, diversity: Diversity, *, exclude_seen: bool, stages: bool
) -> Counter[str]:
    schema = SCHEMA.append(pa.field("stage", pa.string())) if stages else SCHEMA
    schema = schema.append(QUERY_FIELD) if asked.has_pages else schema
    if missing := parts.missing():
        async with _running(data, k) as running:
            rows = [row for number in missing for row in asked.rows[parts.questions(number)]]
            users = [row.user_id for row in rows if row.user_id is not None]
            seen = seen_keys(data, users, running.catalogue) if exclude_seen else {}
            at_once = CONCURRENCY if running.settings.coalesce else CONCURRENCY_ALONE

            async def answer(one: Asked) -> tuple[Slate, list[StageList]]:
                query = replace(one.query(running.catalogue, k, seen.get(one.user_id or "")), diversity=diversity)
                return await running.pipeline.traced(query, PATIENCE_MS / 1000)

            # A window of four times as many: a slow one holds up nobody, and no more slates exist at once.
            async with aclosing(in_order(rows, answer, at_once, 4 * at_once)) as answers:
                with shown("slates", len(rows)) as advance, _kept(parts, schema) as keep:
                    async for one, (slate, lists) in answers:
                        number = (one.number,) if asked.has_pages else ()
                        found = _rows(running, one.user_id, slate, lists if stages else None, k)
                        keep(((*row, *number) for row in found), slate.level.value)
                        advance(1)
    counts = parts.counts
    parts.join(schema)
    return counts


@contextmanager
def _kept(parts: Parts, schema: pa.Schema) -> Iterator[Callable[[Iterable[tuple[object, ...]], str], None]]:
    """
    Yields what takes the rows of each answer, in the order of the missing parts, and keeps every part that is whole.

    What belongs to a part that is not whole is made again by the next run.
    """
    missing = parts.missing()
    rows: list[tuple[object, ...]] = []
    levels: Counter[str] = Counter()

    def keep(more: Iterable[tuple[object, ...]], level: str) -> None:
        rows.extend(more)
        levels[level] += 1
        questions = parts.questions(missing[0])
        if levels.total() == questions.stop - questions.start:
            parts.keep(missing.pop(0), _table(rows, schema), levels)
            rows.clear()
            levels.clear()

    yield keep


def _inputs(data: Path, users: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the slates are made of that can change between two runs; a borrowed system's histories are not."""
    models = sorted((data / "models").glob(f"*/{artefacts.ALIASES}"))
    champions = {path.parent.name: artefacts.read_aliases(data / "models", path.parent.name) for path in models}
    config = os.environ.get("TUTTI_CONFIG")
    written = "\n".join(sorted(f"{name}={value}" for name, value in os.environ.items() if _SETS.match(name)))
    return {
        "the users file": digest(users),
        "the data": {name: digest(data / name) for name in ("events.parquet", "items.parquet")},
        "the models": {name: aliases.get(artefacts.CHAMPION) for name, aliases in champions.items()},
        "the settings": [
            digest(Path(config)) if config else "",
            hashlib.sha256("\n".join(written).encode()).hexdigest(),
        ],
        **{f"--{name.replace('_', '-')}": value for name, value in options.items()},
    }


def seen_keys(data: Path, user_ids: Sequence[str], catalogue: Catalogue) -> dict[str, tuple[int, ...]]:
    """
    User → keys of every item in the data's events, one entry for each of *user_ids*.

    The online history ends at 200 entries; what was touched before that is known here only.
    """
    wanted = pa.array(user_ids, pa.string())
    seen: dict[str, set[int]] = {user_id: set() for user_id in user_ids}
    file = pq.ParquetFile(data / "events.parquet")
    for batch in file.iter_batches(ROWS_A_PART, columns=["user_id", "item_id"]):
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

"""`tutti items import`: put a file of items into a running tutti."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TimeRemainingColumn, TransferSpeedColumn

app = typer.Typer(help="The shop's items.", no_args_is_help=True)

CHUNK_BYTES = 65_536
"""Judged: sent at once; the server reads on when it has stored what came before, so the bar tells how far it is."""

ANSWER_WITHIN_S = 60.0
"""Judged: from one sign of life to the next; a whole chunk is a fraction of a second."""

SHOWN = 20
"""Refused lines that are printed. Judged: a screen."""


@app.callback()
def _group() -> None:
    """Keeps `import` a verb of its own."""


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="One JSON object a line, with item_id.")],
    url: Annotated[str, typer.Option(help="Where tutti's edge is.")] = "http://127.0.0.1:8000",
) -> None:
    """
    Put every item of a file: new ones are added, known ones replaced. A file may be sent again.

    A line has item_id and title, and what is known of description, category ("A > B"), brand, price, in_stock and
    attributes. Exit code 1 when a line was refused or tutti did not answer.

    Example: tutti items import items.ndjson --url http://127.0.0.1:8000
    """
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            answer = _sent(url, _chunks(file, bar, bar.add_task(file.name, total=file.stat().st_size)))
    except httpx.HTTPError as error:
        _fail(f"{url} does not answer: {error or type(error).__name__}; is tutti up?")
    for refused in answer.get("rejected", [])[:SHOWN]:
        typer.secho(f"line {refused['line']}: {refused['field']}: {refused['message']}", fg="yellow", err=True)
    if problem := answer.get("problem"):
        _fail(f"stopped after {answer['accepted']} items: {problem['detail']}")
    if "accepted" not in answer:
        _fail(str(answer.get("detail", "the answer is none of tutti's")))
    typer.echo(f"{answer['accepted']} items taken, {answer['rejected_count']} lines refused")
    if answer["rejected_count"]:
        raise typer.Exit(1)


def _chunks(file: Path, bar: Progress, task: TaskID) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk
            bar.advance(task, len(chunk))


def _sent(url: str, body: Iterator[bytes]) -> dict[str, Any]:
    """The last line of the answer, or the problem document."""
    media_type = "application/x-ndjson"
    headers = {"content-type": media_type, "accept": media_type}
    timeout = httpx.Timeout(ANSWER_WITHIN_S)
    reply = httpx.post(f"{url.rstrip('/')}/v1/items:import", content=body, headers=headers, timeout=timeout)
    lines = reply.content.strip().splitlines()
    try:
        answer = orjson.loads(lines[-1])
    except (IndexError, orjson.JSONDecodeError):
        return {"detail": f"{reply.status_code} without a word"}
    return answer if isinstance(answer, dict) else {}


def _fail(message: str) -> NoReturn:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(1)

"""
What an importer is: a name, the files it wants, and a function that streams them into a `Staging`.

An importer only translates. It cleans one chunk at a time and names the reason of every row it leaves out;
sorting, removing duplicates, completing the catalogue and writing are the same for all and happen after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.training.importers.staging import Staging

# Borrowed: "4 stars and better" is how Liang et al. (WWW 2018) and most work on MovieLens turn ratings into
# positive feedback. Lower admits lukewarm ratings, higher leaves fewer events to learn from.
POSITIVE_RATING = 4.0


class Progress(Protocol):
    """Told how far the import is. Stages come one after another; each starts with `start`."""

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """A new stage begins; *total* in *unit* ("bytes" or "rows"), None when nobody knows."""

    def advance(self, amount: int) -> None:
        """*amount* more units of the current stage are done."""


class Silent:
    """Progress for nobody."""

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Nobody looks."""

    def advance(self, amount: int) -> None:
        """Nobody looks."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may decide about an import. `min_rating`: the lowest rating that counts as positive feedback."""

    min_rating: float = POSITIVE_RATING


@dataclass(frozen=True, slots=True)
class Importer:
    """
    One public data set.

    Attributes:
        name: what users type, and the prefix of generated event ids.
        about: one line for help texts: what it is and which files are read.
        read: streams the files at a path (a folder or a file) into a staging area; raises `DatasetError`.
        has_ratings: `Options.min_rating` means something here.
        keeps_unsold_items: False leaves catalogue rows without any kept event out.
    """

    name: str
    about: str
    read: Callable[[Path, Staging, Progress, Options], None]
    has_ratings: bool = False
    keeps_unsold_items: bool = True

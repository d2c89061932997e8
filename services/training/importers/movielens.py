"""
MovieLens: ratings of films, in the three shapes GroupLens has published them.

    100K        u.data (tabs), u.item (bars, Latin-1), u.genre
    1M, 10M     ratings.dat, movies.dat (divided by "::", Latin-1)
    20M, 25M    ratings.csv, movies.csv (with header, UTF-8)

A rating of at least `Options.min_rating` is a `purchase`: the film was watched and liked. Lower ratings are
dropped, because a dislike is no event this system knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from services.training.importers.base import Importer, Options, Progress
from services.training.importers.chunks import Chunk
from services.training.importers.delimited import read_delimited
from services.training.importers.errors import DatasetError, quote
from services.training.importers.files import find, find_one, stage_bytes
from services.training.importers.staging import Sieve, Staging
from services.training.importers.text import blocks

# Borrowed: the nineteen flags of u.item, in the order of the 100K data set's README.
# fmt: off
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
_NO_GENRE = frozenset({"", "(no genres listed)", "unknown"})
_YEAR = re.compile(r"\((\d{4})\)\s*$")


@dataclass(frozen=True, slots=True)
class Shape:
    """One published shape: the ratings file, its columns, and the film file that goes with it."""

    title: str
    ratings: str
    films: str
    user: str
    item: str
    rating: str
    at: str
    header: bool
    delimiter: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.user, self.item, self.rating, self.at)


SHAPES = (
    Shape("MovieLens 20M/25M", "ratings.csv", "movies.csv", "userId", "movieId", "rating", "timestamp", True, ","),
    Shape("MovieLens 1M", "ratings.dat", "movies.dat", "UserID", "MovieID", "Rating", "Timestamp", False, "::"),
    Shape("MovieLens 100K", "u.data", "u.item", "user id", "item id", "rating", "timestamp", False, "\t"),
)


@dataclass(frozen=True, slots=True)
class Film:
    """One line of a film file. *genres* in the file's order."""

    item_id: str
    title: str
    genres: Sequence[str]


def read(path: Path, staging: Staging, progress: Progress, options: Options) -> None:
    """Stream the ratings, then the films beside them if there are any."""
    ratings = find_one(path, [shape.ratings for shape in SHAPES], "MovieLens")
    shape = _shape(ratings)
    films = find(ratings.parent, [shape.films])
    progress.start(f"reading {ratings.name}", stage_bytes([ratings]), "bytes")
    for chunk in read_delimited(
        ratings,
        progress,
        required=shape.columns,
        header=shape.header,
        delimiter=shape.delimiter,
        quoted=shape.header,
        hint=f"is this the {shape.title} format?",
    ):
        _stage_ratings(chunk, shape, staging, options)
    if films is not None:
        progress.start(f"reading {films.name}", stage_bytes([films]), "bytes")
        _stage_films(list(_films(films, shape, progress)), staging)


def _shape(ratings: Path) -> Shape:
    """The shape a ratings file has, by its name."""
    name = ratings.name.lower()
    for shape in SHAPES:
        if name == shape.ratings or Path(name).suffix == Path(shape.ratings).suffix:
            return shape
    expected = ", ".join(f"{shape.ratings} ({shape.title})" for shape in SHAPES)
    raise DatasetError(ratings, found="an unknown kind of file", expected=f"one of {expected}")


def _stage_ratings(chunk: Chunk, shape: Shape, staging: Staging, options: Options) -> None:
    user = chunk.integers(shape.user, "a user's number", 0).cast(pa.string())
    item = chunk.integers(shape.item, "a film's number", 0).cast(pa.string())
    rating = chunk.numbers(shape.rating, "a number from 0.5 to 5", 0.5, 5.0)
    at_us = chunk.epoch_us(shape.at, 1_000_000, "seconds since 1970")

    sieve = Sieve(len(chunk))
    sieve.drop(f"rating below {options.min_rating:g}", pc.less(rating, options.min_rating))
    staging.add_events({"user_id": user, "item_id": item, "event_type": "purchase", "timestamp_us": at_us}, sieve)


def _films(file: Path, shape: Shape, progress: Progress) -> Iterator[Film]:
    if shape.header:
        for chunk in read_delimited(file, progress, required=("movieId", "title", "genres")):
            ids = chunk.integers("movieId", "a film's number", 0).to_pylist()
            names = (chunk.table.column(name).to_pylist() for name in ("title", "genres"))
            for item, title, genres in zip(ids, *names, strict=True):
                yield Film(str(item), title, genres.split("|"))
        return
    for block in blocks(file, progress):
        for number, line in block.lines():
            # Latin-1 gives every byte a letter, so decoding cannot fail here.
            text = line.decode("latin-1")
            yield _film_1m(file, number, text) if shape.delimiter == "::" else _film_100k(file, number, text)


def _film_1m(file: Path, number: int, text: str) -> Film:
    # A title may hold "::" itself; the number before it and the genres after it may not.
    item, _, rest = text.partition("::")
    title, divider, genres = rest.rpartition("::")
    if not divider:
        raise DatasetError(
            file,
            line=number,
            found=quote(text),
            expected="MovieID::Title (Year)::Genre|Genre",
            hint="is this MovieLens 1M?",
        )
    return Film(_film_number(file, number, "MovieID", item), title, genres.split("|"))


def _film_100k(file: Path, number: int, text: str) -> Film:
    fields = text.split("|")
    flags = fields[5:]
    if len(flags) != len(GENRES_100K) or not set(flags) <= {"0", "1"}:
        raise DatasetError(
            file,
            line=number,
            found=f"{len(fields)} fields in {quote(text)}",
            expected=f"5 fields and {len(GENRES_100K)} flags of 0 or 1, divided by |",
            hint="is this MovieLens 100K?",
        )
    genres = [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]
    return Film(_film_number(file, number, "movie id", fields[0]), fields[1], genres)


def _film_number(file: Path, number: int, column: str, text: str) -> str:
    if not (text.isascii() and text.isdigit()):
        raise DatasetError(file, line=number, column=column, found=quote(text), expected="a film's number")
    return str(int(text))


def _stage_films(films: Sequence[Film], staging: Staging) -> None:
    """Stage the catalogue; genres have no order of rank, so the first one is the category and all are attributes."""
    if not films:
        return
    genres = [[genre for genre in film.genres if genre not in _NO_GENRE] for film in films]
    staging.add_items(
        {
            "item_id": pa.array([film.item_id for film in films], pa.string()),
            "title": pa.array([film.title.strip() or None for film in films], pa.string()),
            "category": pa.array([names[0] if names else None for names in genres], pa.string()),
            "attributes": pa.array(
                [_attributes(film.title, names) for film, names in zip(films, genres, strict=True)], pa.string()
            ),
        },
        Sieve(len(films)),
    )


def _attributes(title: str, genres: Sequence[str]) -> str:
    year = _YEAR.search(title)
    known: dict[str, object] = {"genres": list(genres)}
    if year:
        known["year"] = int(year[1])
    return json.dumps(known, ensure_ascii=False)


IMPORTER = Importer(
    "movielens",
    "MovieLens 100K, 1M, 10M, 20M, 25M",
    read,
    has_ratings=True,
)

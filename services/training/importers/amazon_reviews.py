"""
Amazon Reviews of 2014, 2018 and 2023: reviews and product lines, one object a line, packed or not.

    2014, 2018    reviewerID, asin, overall, unixReviewTime (s)        reviews_Books_5.json.gz, Books_5.json.gz
    2023          user_id, parent_asin, rating, timestamp (ms)         Books.jsonl.gz
    products      asin or parent_asin, title, price, categories, …     meta_Books.json.gz, meta_Books.jsonl.gz

A rating of at least `Options.min_rating` is a `purchase`. Products nobody reviewed well are left out: product files
describe the whole of Amazon, not one shop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from services.training.importers.base import Importer, Options, Progress
from services.training.importers.errors import DatasetError, quote
from services.training.importers.files import stage_bytes
from services.training.importers.json_lines import read_objects
from services.training.importers.staging import Sieve, Staging

# Rows staged at once, and how much text of theirs. Derived: reviews keep four short values, products whatever their
# description holds, so the first bound counts for reviews and the second for products.
BATCH = 20_000
BATCH_CHARACTERS = 32 * 1024 * 1024

_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_HINT = "is this an Amazon Reviews file of 2014, 2018 or 2023?"
_PRICE = re.compile(r"\$?\s*(\d[\d,]{0,12}(?:\.\d{1,4})?)")
# 1996 is Amazon's first full year; a time in the wrong unit misses this range by a factor of a thousand.
_EARLIEST_S, _LATEST_S = 820_454_400, 4_102_444_800


def read(path: Path, staging: Staging, progress: Progress, options: Options) -> None:
    """Stream the review files, then the product files that go with them."""
    reviews, products = _files(path)
    progress.start("reading reviews", stage_bytes(reviews), "bytes")
    for file in reviews:
        rows = (_review(file, line, found) for line, found in read_objects(file, progress, _HINT))
        while batch := list(islice(rows, BATCH)):
            _stage_reviews(batch, staging, options)
    if products:
        progress.start("reading products", stage_bytes(products), "bytes")
        for file in products:
            lines = (_product(file, line, found) for line, found in read_objects(file, progress, _HINT))
            for group in _groups(lines):
                _stage_products(group, staging)


def _files(path: Path) -> tuple[list[Path], list[Path]]:
    """Review files and product files at *path*; a review file brings the product file named like it."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir() or not path.exists():
        raise DatasetError(path, found="nothing there", expected="Amazon Reviews files, or the folder that holds them")
    there = sorted(file for file in folder.iterdir() if file.is_file() and file.name.endswith(_SUFFIXES))
    products = [file for file in there if _is_product(file)]
    if path.is_dir():
        reviews = [file for file in there if not _is_product(file)]
    else:
        reviews = [path]
        products = [file for file in products if _subject(file) == _subject(path)]
    if not reviews or (reviews == [path] and _is_product(path)):
        raise DatasetError(
            path,
            found="only product lines (meta_…)" if products or reviews else "no file of the expected kind",
            expected=f"a file of reviews ending in {', '.join(_SUFFIXES)}",
            hint=_HINT,
        )
    return reviews, products


def _is_product(file: Path) -> bool:
    return file.name.lower().startswith("meta_")


def _subject(file: Path) -> str:
    """The department in a file's name: reviews_Books_5.json.gz → books."""
    stem = file.name.lower().split(".")[0]
    return re.sub(r"_5$", "", re.sub(r"^(meta|reviews)_", "", stem))


def _review(file: Path, line: int, found: Mapping[str, object]) -> tuple[str, str, float, int]:
    """(user, item, rating, microseconds since 1970) of one review."""
    is_2023 = "user_id" in found
    user_key, rating_key, time_key = (
        ("user_id", "rating", "timestamp") if is_2023 else ("reviewerID", "overall", "unixReviewTime")
    )
    item_key = "parent_asin" if "parent_asin" in found else "asin"
    user, item = (_identifier(file, line, found, key) for key in (user_key, item_key))

    rating = found.get(rating_key)
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not 1 <= rating <= 5:
        raise _wrong(file, line, rating_key, rating, "a number from 1 to 5")
    per_s = 1_000 if is_2023 else 1
    moment = found.get(time_key)
    if isinstance(moment, bool) or not isinstance(moment, int) or not _EARLIEST_S <= moment / per_s <= _LATEST_S:
        raise _wrong(file, line, time_key, moment, f"{'milli' if is_2023 else ''}seconds since 1970")
    return user, item, float(rating), moment * (1_000_000 // per_s)


def _stage_reviews(batch: Sequence[tuple[str, str, float, int]], staging: Staging, options: Options) -> None:
    users, items, ratings, moments = zip(*batch, strict=True)
    user, item = pa.array(users, pa.string()), pa.array(items, pa.string())
    at_us = pa.array(moments, pa.int64())
    sieve = Sieve(len(batch))
    sieve.drop(f"rating below {options.min_rating:g}", pc.less(pa.array(ratings, pa.float64()), options.min_rating))
    staging.add_events(
        {
            "user_id": user,
            "item_id": item,
            "event_type": "purchase",
            "timestamp_us": at_us,
            "duplicate_key": pc.binary_join_element_wise(user, item, at_us.cast(pa.string()), "\x1f"),
        },
        sieve,
    )


def _product(file: Path, line: int, found: Mapping[str, object]) -> dict[str, object]:
    """One product line as a row of the catalogue. Everything but the id may be missing or odd: then it is null."""
    item = _identifier(file, line, found, "parent_asin" if "parent_asin" in found else "asin")
    attributes = {"features": features} if (features := _texts(found.get("features") or found.get("feature"))) else {}
    return {
        "item_id": item,
        "title": _title(found.get("title")),
        "description": " ".join(_texts(found.get("description"))) or None,
        "category": _category(found),
        "brand": _one_text(found.get("brand")) or _one_text(found.get("store")),
        "price": _price(found.get("price")),
        "attributes": json.dumps(attributes, ensure_ascii=False) if attributes else None,
    }


def _groups(rows: Iterable[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    """*rows* in groups of at most `BATCH` rows and about `BATCH_CHARACTERS` of text."""
    group: list[dict[str, object]] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(group) == BATCH or characters >= BATCH_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _stage_products(group: Sequence[Mapping[str, object]], staging: Staging) -> None:
    staging.add_items(
        {
            name: pa.array([row[name] for row in group], pa.float64() if name == "price" else pa.string())
            for name in group[0]
        },
        Sieve(len(group)),
    )


def _identifier(file: Path, line: int, found: Mapping[str, object], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _wrong(file, line, key, value, "an id")
    return value.strip()


def _wrong(file: Path, line: int, key: str, value: object, expected: str) -> DatasetError:
    return DatasetError(file, line=line, column=key, found=quote(value), expected=expected, hint=_HINT)


def _title(value: object) -> str | None:
    title = _one_text(value)
    # The 2018 data set's own notes: lines whose title holds this script are pages that were not unpacked.
    return None if title is None or "getTime" in title else title


def _category(found: Mapping[str, object]) -> str | None:
    """The path of the product: 2014 has a list of paths (the first counts), 2018 one list, 2023 one list or a word."""
    categories = found.get("categories") or found.get("category")
    if isinstance(categories, list) and categories and isinstance(categories[0], list):
        categories = categories[0]
    path = _texts(categories) or _texts(found.get("main_category") or found.get("main_cat"))
    return " > ".join(part.replace(" > ", " ") for part in path) or None


def _price(value: object) -> float | None:
    """A price in dollars, from a number or "$1,299.00"; a range or a word is no price."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 < value < float("inf") else None
    match = _PRICE.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(match[1].replace(",", "")) if match else None


def _one_text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _texts(value: object) -> list[str]:
    """The texts in *value*, a text or a list of them; whatever else is in there is left out."""
    parts: Iterable[object] = value if isinstance(value, list) else [value]
    return [part.strip() for part in parts if isinstance(part, str) and part.strip()]


IMPORTER = Importer(
    "amazon-reviews",
    "Amazon Reviews 2014, 2018, 2023 (.json, .jsonl, .gz)",
    read,
    has_ratings=True,
    keeps_unsold_items=False,
)

"""
Feature columns of one entity → numbers a network can take: skew taken out, gaps named, words numbered.

The rule: everything an encoder knows was learnt from training rows and is stored as JSON beside the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32

# Words kept a column, the most frequent first; the rest is "another". Derived: 500 embeddings of 8 are 4,000 weights,
# and the 501st most frequent value of a catalogue of thousands of items is seen too rarely to learn from.
VOCABULARY_LIMIT = 500
# A word seen less often than this is "another" too.
_RARE = 3
# Above this skewness (third standardised moment) a column is read on a logarithmic scale. Borrowed: 1 is usual.
_SKEWED = 1.0


@dataclass(frozen=True, slots=True)
class Encoded:
    """
    dense  (n, d) float32, finite; codes (n, c) int64: 0 missing, 1 another word, 2… the vocabulary.
    """

    dense: Float32
    codes: NDArray[np.int64]

    def take(self, rows: NDArray[np.integer]) -> Encoded:
        """These rows, in this order."""
        return Encoded(self.dense[rows], self.codes[rows])


@dataclass(frozen=True)
class Encoder:
    """
    numeric      column names; logarithmic[i]: read column i as sign(x)·log(1 + |x|); fill[i]: what a gap counts as;
                 gappy[i]: a second column says whether the first was missing
    categorical  column names; vocabularies[i]: words in code order
    """

    numeric: tuple[str, ...]
    logarithmic: tuple[bool, ...]
    fill: tuple[float, ...]
    gappy: tuple[bool, ...]
    categorical: tuple[str, ...]
    vocabularies: tuple[tuple[str, ...], ...]

    @classmethod
    def learn(
        cls,
        numeric: Sequence[str],
        categorical: Sequence[str],
        rows: Float32,
        words: NDArray[np.object_],
    ) -> Encoder:
        """Learn from training rows (n, numeric) float32, NaN for gaps, and words (n, categorical), "" for gaps."""
        logarithmic, fill, gappy = [], [], []
        for i in range(len(numeric)):
            present = rows[:, i][np.isfinite(rows[:, i])].astype(np.float64)
            logarithmic.append(_skewness(present) > _SKEWED)
            scaled = signed_log(present) if logarithmic[-1] else present
            fill.append(float(scaled.mean()) if len(scaled) else 0.0)
            # A column without one gap in training gets its indicator too when it had no value at all.
            gappy.append(len(present) < len(rows))
        vocabularies = [_vocabulary(words[:, i]) for i in range(len(categorical))]
        return cls(
            tuple(numeric), tuple(logarithmic), tuple(fill), tuple(gappy), tuple(categorical), tuple(vocabularies)
        )

    def encode(self, numeric: Float32, categorical: NDArray[np.object_]) -> Encoded:
        """Columns (n, numeric) and (n, categorical) as a read plan gives them."""
        missing = ~np.isfinite(numeric)
        scaled = np.where(missing, 0.0, numeric).astype(np.float32)
        log = np.array(self.logarithmic, bool)
        scaled[:, log] = signed_log(scaled[:, log])
        scaled = np.where(missing, np.array(self.fill, np.float32), scaled)
        dense = np.hstack([scaled, missing[:, np.array(self.gappy, bool)]]).astype(np.float32)
        codes = np.zeros((len(numeric), len(self.categorical)), np.int64)
        for i, words in enumerate(self._code_of):
            codes[:, i] = [words.get(word, 1) for word in categorical[:, i]]
        return Encoded(dense, codes)

    @cached_property
    def _code_of(self) -> tuple[dict[str, int], ...]:
        """Code of each word of each column; built once, since a call encodes its shoppers."""
        return tuple({word: at for at, word in enumerate(words, 2)} | {"": 0} for words in self.vocabularies)

    @property
    def dense_names(self) -> tuple[str, ...]:
        """Names of the columns of `Encoded.dense`."""
        gaps = (f"{name} missing" for name, has in zip(self.numeric, self.gappy, strict=True) if has)
        return (*self.numeric, *gaps)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each categorical column."""
        return tuple(len(words) + 2 for words in self.vocabularies)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Encoder:
        """What `to_json` gave, through JSON."""
        return cls(
            tuple(value["numeric"]),
            tuple(value["logarithmic"]),
            tuple(value["fill"]),
            tuple(value["gappy"]),
            tuple(value["categorical"]),
            tuple(tuple(words) for words in value["vocabularies"]),
        )


def signed_log(x: NDArray[Any]) -> NDArray[Any]:
    """sign(x)·log(1 + |x|), elementwise: logarithmic far from 0, linear near it."""
    scaled: NDArray[Any] = np.sign(x) * np.log1p(np.abs(x))
    return scaled


def _skewness(x: NDArray[np.float64]) -> float:
    spread = x.std() if len(x) else 0.0
    return float(np.mean(((x - x.mean()) / spread) ** 3)) if spread > 0 else 0.0


def _vocabulary(words: NDArray[np.object_]) -> tuple[str, ...]:
    """The most frequent words, ties in alphabetical order; rare ones left out."""
    distinct, counts = np.unique(words.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    kept = [str(distinct[i]) for i in order if distinct[i] and counts[i] >= _RARE]
    return tuple(kept[:VOCABULARY_LIMIT])

"""
Documents as weighted terms: what they are split into, which terms count, and how much each says (TF-IDF).

Pure numpy and scipy: training counts with it, serving weighs a new item with it. The rule: one arithmetic for both.
The splits are scikit-learn's `word` and `char_wb` analysers, written again because serving does not import it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse

from protos.arrays import Float32

_WORD = re.compile(r"\b\w\w+\b")
_PIECES = (4, 5)


def words(text: str) -> list[str]:
    """Words of two letters or more, and pairs of neighbouring ones."""
    found = _WORD.findall(text.lower())
    return found + [f"{one} {other}" for one, other in pairwise(found)]


def pieces(text: str) -> list[str]:
    """Four and five letters inside a word, its edges included: for plurals, compounds and typing errors."""
    found: list[str] = []
    for word in text.lower().split():
        padded = f" {word} "
        for n in _PIECES:
            last = len(padded) - n
            found += [padded[at : at + n] for at in range(max(last, 0) + 1)]
            if last <= 0:  # a short word counts once
                break
    return found


def path(category: str) -> list[str]:
    """Every beginning of a path: siblings share their parents' terms."""
    levels = [level.strip() for level in category.split(">") if level.strip()]
    return [" > ".join(levels[: i + 1]) for i in range(len(levels))]


def name(brand: str) -> list[str]:
    """The brand itself, if there is one."""
    return [brand] if brand else []


SPLITS: Mapping[str, Callable[[str], list[str]]] = {"words": words, "pieces": pieces, "path": path, "name": name}
"""By the name under which an artefact remembers them."""

_SUBLINEAR = ("words", "pieces")
"""Where a term's tenth time in a document says little more than its ninth."""


@dataclass(frozen=True, slots=True)
class Terms:
    """
    Which terms count, and how much.

    split   name in SPLITS
    number  term → column
    idf     (columns,) float32: ln((1 + documents) / (1 + documents that have it)) + 1
    """

    split: str
    number: Mapping[str, int]
    idf: Float32

    @classmethod
    def count(cls, split: str, documents: Sequence[str], most: int, least_documents: int = 1) -> Terms:
        """
        The terms of *documents*.

        Args:
            most: terms kept at most, those that most documents have; ties by name.
            least_documents: in how many documents a term has to be.
        """
        having: Counter[str] = Counter()
        for document in documents:
            having.update(set(SPLITS[split](document)))
        usual = sorted((-n, term) for term, n in having.items() if n >= least_documents)[:most]
        kept = sorted(term for _, term in usual)
        counts = np.asarray([having[term] for term in kept], np.float64)
        idf = np.log((1 + len(documents)) / (1 + counts)) + 1
        return cls(split, {term: i for i, term in enumerate(kept)}, idf.astype(np.float32))

    def matrix(self, documents: Sequence[str]) -> sparse.csr_matrix:
        """(documents, columns) float32, rows of length 1; of terms that do not count there is nothing."""
        take, number = SPLITS[self.split], self.number
        columns: list[int] = []
        counts: list[int] = []
        offsets = [0]
        for document in documents:
            found = Counter(number[term] for term in take(document) if term in number)
            # In order of columns, so that a sum does not depend on the order of words.
            for column in sorted(found):
                columns.append(column)
                counts.append(found[column])
            offsets.append(len(columns))
        weights = np.asarray(counts, np.float32)
        if self.split in _SUBLINEAR:
            weights = 1 + np.log(weights)
        at = np.asarray(columns, np.int32)
        matrix = sparse.csr_matrix((weights * self.idf[at], at, offsets), (len(documents), len(self.idf)))
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1), np.float32).ravel())
        lengths[lengths == 0] = 1
        matrix.data /= np.repeat(lengths, np.diff(matrix.indptr))
        return matrix

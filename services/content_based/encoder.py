"""
An item's vector from what the catalogue says: blocks for text, category path, brand and price, side by side.

Training makes every vector of the index with it, serving the vector of an item that came a second ago. What it needs
is arrays and lists of terms, stored beside the index; nothing of scikit-learn reaches serving. The rule: one
arithmetic, so an item encoded online has the vector that training would have given it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protos.arrays import Float32
from protos.artefacts import Artefact
from services.content_based.model import Parameters
from services.content_based.sentences import MODEL_FILE, SentenceEncoder
from services.content_based.terms import Terms

TERMS_FILE = "encoder.json"
ARRAYS_FILE = "encoder.npz"

# Soft price steps: centres this far apart in log price, overlapping by half. Derived: ln 2, so that items whose
# prices differ by a factor of two are neighbours, by four strangers.
PRICE_STEP = float(np.log(2))
# Descriptions are long and repeat the title; a title word counts this many times. Borrowed: the usual small boost.
_TITLE_BOOST = 2


@dataclass(frozen=True, slots=True)
class Described:
    """What the catalogue says of n items, row by row; texts "" and prices NaN where it says nothing."""

    titles: Sequence[str]
    descriptions: Sequence[str]
    categories: Sequence[str]
    brands: Sequence[str]
    prices: Float32

    def texts(self) -> list[str]:
        """One document an item."""
        pairs = zip(self.titles, self.descriptions, strict=True)
        return [" ".join([title] * _TITLE_BOOST + [description]) for title, description in pairs]

    def sentences(self) -> list[str]:
        """The same for who reads sentences: what is said twice is not said better."""
        pairs = zip(self.titles, self.descriptions, strict=True)
        return [". ".join(filter(None, pair)) for pair in pairs]


@dataclass(frozen=True, slots=True)
class Block:
    """
    One of the blocks that are made of terms.

    components  (terms of all parts, d) float32 with no more digits than half precision has, which is how it is stored:
                everybody computes with the same; None: the terms themselves are few enough to be the dimensions
    """

    parts: tuple[Terms, ...]
    components: Float32 | None

    def matrix(self, documents: Sequence[str]) -> Any:
        """(n, terms of all parts) sparse, each part's rows of length 1."""
        return sparse.hstack([part.matrix(documents) for part in self.parts]).tocsr()

    def vectors(self, documents: Sequence[str]) -> Float32:
        """(n, d) float32, each row of length 1, or of zeros."""
        if not self.parts:
            return np.zeros((len(documents), 0), np.float32)
        matrix = self.matrix(documents)
        if self.components is None:
            return unit(np.asarray(matrix.todense(), np.float32))
        return unit(np.asarray(matrix @ self.components, np.float32))


@dataclass(frozen=True, slots=True)
class Encoder:
    """
    Everything that makes vectors.

    centres    (c,) float32 centres of the price steps, in log price
    sentences  reads titles and descriptions in place of *text*, where one was asked for
    """

    text: Block
    category: Block
    brand: Block
    centres: Float32
    parameters: Parameters
    sentences: SentenceEncoder | None = None

    def vectors(self, items: Described) -> Float32:
        """(n, d) float32, each row of length 1; a row of zeros for an item about which nothing is known."""
        of = self.parameters
        blocks = [
            (of.text_weight, self._texts(items)),
            (of.category_weight, self.category.vectors(items.categories)),
            (of.brand_weight, self.brand.vectors(items.brands)),
            (of.price_weight, self._prices(items.prices)),
        ]
        return unit(np.hstack([np.sqrt(weight) * block for weight, block in blocks]).astype(np.float32))

    def _texts(self, items: Described) -> Float32:
        if self.sentences is None:
            return self.text.vectors(items.texts())
        return self.sentences.encode(items.sentences())

    def _prices(self, prices: Float32) -> Float32:
        """Soft one-hot steps of log price; zeros where the price is unknown."""
        if not len(self.centres):
            return np.zeros((len(prices), 0), np.float32)
        known = np.isfinite(prices) & (prices > 0)
        logs = np.log(np.where(known, prices, 1.0))
        # A price outside all that training saw lies on the outermost step, not beyond all of them.
        logs = np.clip(logs, self.centres[0], self.centres[-1])
        bumps = np.exp(-0.5 * ((logs[:, None] - self.centres[None, :]) / (PRICE_STEP / 2)) ** 2)
        return unit(np.where(known[:, None], bumps, 0.0).astype(np.float32))

    def save(self, out: Path) -> None:
        """Write `TERMS_FILE` and `ARRAYS_FILE` into *out*, and a copy of the sentence encoder where there is one."""
        if self.sentences is not None:
            self.sentences.copy_to(out)
        terms: dict[str, list[dict[str, object]]] = {}
        arrays: dict[str, NDArray[Any]] = {"centres": self.centres}
        for name, block in self._blocks().items():
            terms[name] = [{"split": part.split, "terms": list(part.number)} for part in block.parts]
            for i, part in enumerate(block.parts):
                arrays[f"{name}.idf.{i}"] = part.idf
            if block.components is not None:
                arrays[f"{name}.components"] = block.components.astype(np.float16)
        (out / TERMS_FILE).write_text(json.dumps(terms, ensure_ascii=False), encoding="utf-8")
        np.savez(out / ARRAYS_FILE, **arrays)  # type: ignore[arg-type]  # its stub takes a bool among the arrays

    def _blocks(self) -> dict[str, Block]:
        return {"text": self.text, "category": self.category, "brand": self.brand}

    @classmethod
    def load(cls, artefact: Artefact, parameters: Parameters) -> Encoder | None:
        """What `save` wrote; None for an artefact from before there was an encoder."""
        if TERMS_FILE not in artefact.manifest.files:
            return None
        terms, arrays = artefact.json(TERMS_FILE), artefact.arrays(ARRAYS_FILE)

        def block(name: str) -> Block:
            parts = tuple(
                Terms(part["split"], {term: n for n, term in enumerate(part["terms"])}, arrays[f"{name}.idf.{i}"])
                for i, part in enumerate(terms[name])
            )
            components = arrays.get(f"{name}.components")
            return Block(parts, None if components is None else components.astype(np.float32))

        sentences = SentenceEncoder(artefact.path) if MODEL_FILE in artefact.manifest.files else None
        return cls(block("text"), block("category"), block("brand"), arrays["centres"], parameters, sentences)


def unit(vectors: Float32) -> Float32:
    """Rows of length 1; rows of (nearly) zeros stay so."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-8), np.float32)

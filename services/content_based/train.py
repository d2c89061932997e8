"""
Fits the encoder on the catalogue and writes it with the vectors it gives to all items.

Only arrays and lists of terms are stored: nothing of scikit-learn reaches serving. An item nobody ever bought has a
vector like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD

from protos import needs
from protos.arrays import Float32
from services.chassis.model import Fitted
from services.chassis.retrieval import write_index
from services.content_based.encoder import PRICE_STEP, Block, Described, Encoder
from services.content_based.model import Parameters
from services.content_based.sentences import SentenceEncoder
from services.content_based.terms import Terms
from services.training.dataset import Dataset, Items

# A piece of a word that one item has says nothing of others.
_LEAST_DOCUMENTS = {"pieces": 2}


def fit(dataset: Dataset, parameters: Mapping[str, Any], seed: int, out: Path) -> Fitted:
    """
    Write the encoder and the vectors of all items of the catalogue into *out*; events are not looked at.

    Args:
        parameters: overrides of the defaults in `model.Parameters`.

    Raises:
        EncoderUnusable: a sentence encoder is asked for and cannot be opened.
    """
    used = Parameters(**parameters)
    items = described(dataset.items)
    encoder = fitted(items, used, seed)
    encoder.save(out)
    vectors = encoder.vectors(items)
    known = np.flatnonzero(np.abs(vectors).sum(1) > 0)
    # Measured with items for shoppers: what is fitted here must not depend on events.
    index = write_index(out, vectors[known], known.astype(np.int32), seed=seed)
    said = {"items_with_vectors": float(len(known)), "dimensions": float(vectors.shape[1])}
    return Fitted(asdict(used), {**said, **index, **needs.figures("items_with_vectors", 1, len(known))})


def described(items: Items) -> Described:
    """The catalogue's columns as the encoder takes them."""
    titles, descriptions, categories, brands = (
        column.tolist() for column in (items.titles, items.descriptions, items.categories, items.brands)
    )
    return Described(titles, descriptions, categories, brands, items.prices)


def fitted(items: Described, parameters: Parameters, seed: int) -> Encoder:
    """
    The encoder of a catalogue.

    Raises:
        EncoderUnusable: a sentence encoder is asked for and cannot be opened.
    """
    few, many, most = parameters.path_dimensions, parameters.text_dimensions, parameters.most_terms
    sentences = SentenceEncoder(Path(parameters.sentence_encoder)) if parameters.sentence_encoder else None
    splits = () if sentences else ("words", "pieces")
    return Encoder(
        text=_block(splits, items.texts(), many, most, seed),
        category=_block(("path",), items.categories, few, most, seed),
        brand=_block(("name",), items.brands, few, most, seed),
        centres=_centres(items.prices),
        parameters=parameters,
        sentences=sentences,
    )


def _block(splits: Sequence[str], documents: Sequence[str], dimensions: int, most: int, seed: int) -> Block:
    counted = (Terms.count(split, documents, most, _LEAST_DOCUMENTS.get(split, 1)) for split in splits)
    # Not one term in the whole catalogue: that part says nothing.
    parts = tuple(terms for terms in counted if len(terms.idf))
    if not parts:
        return Block((), None)
    block = Block(parts, None)
    matrix = block.matrix(documents)
    rank = min(dimensions, min(matrix.shape) - 1)
    if rank < 1 or matrix.shape[1] <= dimensions:
        return block
    components = TruncatedSVD(rank, random_state=seed).fit(matrix).components_
    # Half precision halves the file, and the vectors of the index are to be those that serving computes with it.
    return Block(parts, np.ascontiguousarray(components.T.astype(np.float16).astype(np.float32)))


def _centres(prices: Float32) -> Float32:
    known = prices[np.isfinite(prices) & (prices > 0)]
    if not len(known):
        return np.zeros(0, np.float32)
    logs = np.log(known)
    return np.arange(logs.min(), logs.max() + PRICE_STEP, PRICE_STEP).astype(np.float32)

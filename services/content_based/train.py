"""
Item vectors from what the catalogue says: blocks for text, category path, brand and price, side by side.

Only vectors are stored: nothing of scikit-learn reaches serving. A new item gets its vector at the next training run;
an item nobody ever bought has one like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from protos.arrays import Float32
from services.chassis.model import Fitted
from services.chassis.retrieval import write_index
from services.content_based.model import Parameters
from services.content_based.sentences import SentenceEncoder
from services.training.dataset import Dataset, Items

# Soft price steps: centres this far apart in log price, overlapping by half. Derived: ln 2, so that items whose
# prices differ by a factor of two are neighbours, by four strangers.
_PRICE_STEP = float(np.log(2))
# Descriptions are long and repeat the title; a title word counts this many times. Borrowed: the usual small boost.
_TITLE_BOOST = 2


def fit(dataset: Dataset, parameters: Mapping[str, Any], seed: int, out: Path) -> Fitted:
    """
    Write vectors of all items of the catalogue into *out*; events are not looked at.

    Args:
        parameters: overrides of the defaults in `model.Parameters`.

    Raises:
        EncoderUnusable: a sentence encoder is asked for and cannot be opened.
    """
    used = Parameters(**parameters)
    encoder = SentenceEncoder(Path(used.sentence_encoder)) if used.sentence_encoder else None
    vectors = item_vectors(dataset.items, used, seed, encoder)
    if encoder is not None:
        encoder.copy_to(out)
    described = np.flatnonzero(np.abs(vectors).sum(1) > 0)
    write_index(out, vectors[described], described.astype(np.int32))
    return Fitted(asdict(used), {"items_with_vectors": float(len(described)), "dimensions": float(vectors.shape[1])})


def item_vectors(items: Items, parameters: Parameters, seed: int, encoder: SentenceEncoder | None = None) -> Float32:
    """
    (n_items, d) float32, each row of length 1; a row of zeros for an item about which nothing is known.

    encoder  reads the texts in place of TF-IDF
    """
    words = [" ".join([t] * _TITLE_BOOST + [d]).lower() for t, d in zip(items.titles, items.descriptions, strict=True)]
    blocks = [
        (parameters.text_weight, _sentences(encoder, items) if encoder else _text(words, parameters, seed)),
        (parameters.category_weight, _tokens([_path(c) for c in items.categories], parameters.path_dimensions, seed)),
        (parameters.brand_weight, _tokens([[b] if b else [] for b in items.brands], parameters.path_dimensions, seed)),
        (parameters.price_weight, _prices(items.prices)),
    ]
    vectors = np.hstack([np.sqrt(weight) * block for weight, block in blocks]).astype(np.float32)
    return _unit(vectors)


def _sentences(encoder: SentenceEncoder, items: Items) -> Float32:
    return encoder.encode(
        [". ".join(filter(None, both)) for both in zip(items.titles, items.descriptions, strict=True)]
    )


def _text(documents: list[str], parameters: Parameters, seed: int) -> Float32:
    """Words and pairs of words, and pieces of words (for plurals, compounds and typing errors), reduced by SVD."""
    word = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32)
    piece = TfidfVectorizer(analyzer="char_wb", sublinear_tf=True, ngram_range=(4, 5), min_df=2, dtype=np.float32)
    parts = []
    for vectoriser in (word, piece):
        try:
            parts.append(vectoriser.fit_transform(documents))
        except ValueError:  # not one word in the whole catalogue: the block says nothing
            continue
    if not parts:
        return _nothing(len(documents))
    return _reduced(sparse.hstack(parts).tocsr(), parameters.text_dimensions, seed)


def _tokens(tokens: list[list[str]], dimensions: int, seed: int) -> Float32:
    if not any(tokens):
        return _nothing(len(tokens))
    vectoriser = TfidfVectorizer(analyzer=lambda document: document, dtype=np.float32)
    return _reduced(vectoriser.fit_transform(tokens), dimensions, seed)


def _path(category: str) -> list[str]:
    """Every prefix of a path: siblings share their parents' tokens."""
    levels = [level.strip() for level in category.split(">") if level.strip()]
    return [" > ".join(levels[: i + 1]) for i in range(len(levels))]


def _prices(prices: Float32) -> Float32:
    """Soft one-hot steps of log price; zeros where the price is unknown."""
    known = np.isfinite(prices) & (prices > 0)
    if not known.any():
        return _nothing(len(prices))
    logs = np.log(np.where(known, prices, 1.0))
    low, high = logs[known].min(), logs[known].max()
    centres = np.arange(low, high + _PRICE_STEP, _PRICE_STEP)
    bumps = np.exp(-0.5 * ((logs[:, None] - centres[None, :]) / (_PRICE_STEP / 2)) ** 2)
    return _unit(np.where(known[:, None], bumps, 0.0).astype(np.float32))


def _reduced(matrix: Any, dimensions: int, seed: int) -> Float32:
    """SVD of a sparse matrix with unit rows out; a matrix already that small stays as it is."""
    rank = min(dimensions, min(matrix.shape) - 1)
    if rank < 1 or matrix.shape[1] <= dimensions:
        return _unit(np.asarray(matrix.todense(), np.float32))
    return _unit(TruncatedSVD(rank, random_state=seed).fit_transform(matrix).astype(np.float32))


def _unit(vectors: Float32) -> Float32:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-8), np.float32)


def _nothing(n: int) -> Float32:
    return np.zeros((n, 0), np.float32)

"""
The messages of both roles and the columnar dataclasses of `model.py`, both ways.

Nothing is allocated from a number a caller wrote: every size is first proved by bytes that really arrived.
Reading gives views on the message's memory; the servicer keeps the message alive for the length of the call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protos.arrays import Float32, Rows, WireError, pack_rows, unpack, unpack_rows
from protos.tutti.v1 import candidate_generation_pb2, common_pb2, reranking_pb2
from services.chassis.model import Candidates, GenerateQueries, RerankQueries, Shoppers

MAX_COUNT = 1000
"""Borrowed from candidate_generation.proto: candidates one query may ask for."""


class ModelFault(RuntimeError):
    """The model's answer breaks its own contract: a bug of the model, not of the caller."""


def read_generate(request: candidate_generation_pb2.GenerateRequest) -> GenerateQueries:
    """
    Decode and check.

    Raises:
        WireError: no query, arrays that contradict each other, or a count outside 1 to 1000.
    """
    q = _queries(request.queries)
    counts = unpack(request.counts, "<i4", (q,), "counts")
    if counts.min() < 1 or counts.max() > MAX_COUNT:
        raise WireError(f"counts must lie in 1 to {MAX_COUNT}; found {counts.min()} to {counts.max()}")
    return GenerateQueries(
        counts=counts,
        shoppers=_shoppers(request.shoppers, q),
        exclude=unpack_rows(request.exclude, q, "exclude"),
        within=unpack_rows(request.within, q, "within"),
    )


def read_rerank(request: reranking_pb2.RerankRequest) -> RerankQueries:
    """
    Decode and check. The widths of the user columns are the caller's; the feature digest vouches for them.

    Raises:
        WireError: no query, or arrays that contradict each other.
    """
    q = _queries(request.queries)
    shoppers = _shoppers(request.shoppers, q)
    candidates = unpack_rows(request.candidates, q, "candidates")
    n, s = len(candidates.values), len(request.sources)
    columns = _columns(len(request.user_numeric), q * np.dtype("<f4").itemsize, "user_numeric")
    words = _columns(len(request.user_categorical), q, "user_categorical")
    categorical = np.array(request.user_categorical, dtype=object).reshape(q, words)
    return RerankQueries(
        shoppers=shoppers,
        candidates=candidates,
        sources=tuple(request.sources),
        source_scores=unpack(request.source_scores, "<f4", (n, s), "source_scores"),
        source_ranks=unpack(request.source_ranks, "<u2", (n, s), "source_ranks"),
        user_numeric=unpack(request.user_numeric, "<f4", (q, columns), "user_numeric"),
        user_categorical=categorical,
        feature_digest=request.feature_digest,
    )


def write_candidates(
    candidates: Candidates, counts: Sequence[int] | np.ndarray, version: str
) -> candidate_generation_pb2.GenerateReply:
    """
    Encode, after checking what the proto promises.

    Raises:
        ModelFault: another number of rows, a row longer than asked for, or scores that are not finite.
    """
    rows, scores = candidates.rows, candidates.scores
    if len(rows) != len(counts) or (np.diff(rows.offsets) > np.asarray(counts)).any():
        raise ModelFault(f"{len(rows)} rows of lengths {np.diff(rows.offsets).tolist()} for counts {list(counts)}")
    _finite(scores, len(rows.values))
    return candidate_generation_pb2.GenerateReply(
        candidates=pack_rows(rows), scores=scores.astype("<f4", copy=False).tobytes(), model_version=version
    )


def write_scores(scores: Float32, candidates: Rows, version: str) -> reranking_pb2.RerankReply:
    """
    Encode, after checking what the proto promises.

    Raises:
        ModelFault: another number of scores than candidates, or scores that are not finite.
    """
    _finite(scores, len(candidates.values))
    return reranking_pb2.RerankReply(scores=scores.astype("<f4", copy=False).tobytes(), model_version=version)


def _queries(q: int) -> int:
    if q < 1:
        raise WireError("queries is 0; a request carries at least one query")
    return q


def _shoppers(message: common_pb2.Shoppers, q: int) -> Shoppers:
    placements = unpack(message.placements, "u1", (q,), "shoppers.placements")
    history = unpack_rows(message.history, q, "shoppers.history")
    n = len(history.values)
    ages = unpack(message.history_ages_s, "<f4", (n,), "shoppers.history_ages_s")
    if not (ages >= 0).all():
        raise WireError(
            "shoppers.history_ages_s must be seconds before the request, 0 or more; found a negative or NaN"
        )
    return Shoppers(
        history=history,
        history_types=unpack(message.history_types, "u1", (n,), "shoppers.history_types"),
        history_ages_s=ages,
        context=unpack_rows(message.context, q, "shoppers.context"),
        placements=placements,
    )


def _columns(size: int, row: int, name: str) -> int:
    if size % row:
        raise WireError(f"{name} has size {size}, which is no multiple of {row} (one row for each query)")
    return size // row


def _finite(scores: Float32, n: int) -> None:
    if scores.shape != (n,) or not np.isfinite(scores).all():
        raise ModelFault(
            f"scores of shape {scores.shape} for {n} candidates, finite: {bool(np.isfinite(scores).all())}"
        )

"""
The conditions under which the same seed gives the same artefact: one thread a library, deterministic kernels.

Sums in another order differ in the last bit, training grows the bit into another model, and another model has another
version. At this size it is no sacrifice: pools of threads that wait for each other on a shared machine are slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Fix threads, kernels and torch's seed; everything is as before afterwards, but for torch's seed."""
    threads, was_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(was_deterministic)

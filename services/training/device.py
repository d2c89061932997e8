"""
Where factors and networks are trained: on a GPU where torch sees one, else on the processor.

The rule: chosen once a run, named in its report, and never in the artefact's way: what is written is on the processor
again. A GPU adds in another order, so the same data gives the same artefact on the same kind of device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch

Device = Literal["auto", "cpu", "cuda"]

_CURRENT: ContextVar[str] = ContextVar("device", default="cpu")


class DeviceUnusable(ValueError):
    """The device that was asked for is not there; the message says what is."""


def chosen(asked: Device, sees_gpu: Callable[[], bool] = torch.cuda.is_available) -> str:
    """
    "cpu" or "cuda".

    Raises:
        DeviceUnusable: a GPU is asked for and torch sees none.
    """
    if asked == "cuda" and not sees_gpu():
        raise DeviceUnusable(
            f"--device cuda: torch {torch.__version__} sees no GPU; it needs a build with CUDA and a driver. "
            "--device auto takes the processor then"
        )
    return "cuda" if asked == "cuda" or (asked == "auto" and sees_gpu()) else "cpu"


@contextmanager
def using(name: str) -> Iterator[None]:
    """What is trained inside is trained on device *name* of `chosen`."""
    if name == "cuda":
        # Asked for by torch.use_deterministic_algorithms, before the first product on the GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    token = _CURRENT.set(name)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current() -> torch.device:
    """Where to train now; the processor, unless `using` says otherwise."""
    return torch.device(_CURRENT.get())

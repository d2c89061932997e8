"""Who may import whom, and what must be generated, written or explained in one place only."""

import ast
import filecmp
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "protos/tutti/v1").glob("*.proto"))
ON_BOTH_SIDES = [ROOT / "services/bench" / name for name in ("bare.py", "orchestra.py", "growth/points.py")]
DEFAULTS = ROOT / "orchestrator/defaults.toml"


def modules(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "_pb2" not in path.name)


def imported(path: Path) -> set[str]:
    """Every module named in an import statement of *path*, wherever it stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def offenders(paths: list[Path], *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in sorted(imported(path))
        if any(name == one or name.startswith(f"{one}.") for one in forbidden)
    ]


def test_the_contracts_of_import_linter_hold():
    ran = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_core_decides_and_touches_nothing():
    outside = ("asyncio", "time", "socket", "grpc", "redis", "feast", "fastapi", "torch", "structlog", "pydantic")
    ours = [
        f"orchestrator.{name}" for name in ("adapters", "bootstrap", "edge", "guard", "pipeline", "ports", "settings")
    ]

    assert offenders(modules("orchestrator/core"), *outside, *ours, "protos", "services") == []


def test_core_takes_its_chance_from_the_caller():
    """`random.Random` may be a parameter's type; the module's own functions are one hidden generator for all."""
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules("orchestrator/core")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
        and node.attr != "Random"
    ]

    assert calls == []


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("orchestrator/adapters", ("orchestrator.pipeline", "orchestrator.bootstrap", "orchestrator.edge")),
        ("orchestrator", ("services", "feast")),
        ("services", ("orchestrator",)),
        ("services/chassis", ("services.training",)),
        ("protos", ("orchestrator", "services", "feast")),
    ],
)
def test_imports_run_one_way(folder, forbidden):
    # An offline verb may score with the pipeline that serves (docs/adr/0010); nothing online comes the other way.
    paths = [path for path in modules(folder) if "training" not in path.parts or folder != "services"]
    if folder == "services":
        paths = [path for path in paths if path not in ON_BOTH_SIDES]

    assert offenders(paths, *forbidden) == []


def test_what_stands_on_both_sides_is_there_and_nobody_leans_on_it():
    """The bench measures the pipeline beside the models in it (docs/adr/0040)."""
    others = [
        path
        for path in modules("orchestrator") + modules("services") + modules("protos")
        if ROOT / "services/bench" not in path.parents
    ]

    assert all(offenders([path], "orchestrator") for path in ON_BOTH_SIDES)
    assert offenders(others, "services.bench") == []


def test_a_server_of_a_model_never_needs_the_offline_way():
    assert offenders(sorted((ROOT / "services").glob("*/serve.py")), "services.training") == []


def test_ports_know_neither_guard_nor_pipeline_and_the_pipeline_no_adapter():
    assert offenders([ROOT / "orchestrator/ports.py"], "orchestrator.guard", "orchestrator.pipeline") == []
    assert offenders([ROOT / "orchestrator/pipeline.py"], "orchestrator.adapters", "orchestrator.bootstrap") == []


def test_models_do_not_import_each_other():
    names = sorted(path.parent.name for path in (ROOT / "services").glob("*/serve.py"))

    for name in names:
        others = [f"services.{other}" for other in names if other != name]
        assert offenders(modules(f"services/{name}"), *others) == []


def test_nothing_is_ever_unpickled():
    paths = modules("orchestrator") + modules("services") + modules("protos")

    assert offenders(paths, "pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve") == []


def test_the_generated_code_is_what_the_protos_say(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT)),
            *(f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")),
            *(str(path) for path in PROTOS),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )

    # protoc writes a _grpc file for every proto; one without a service has nothing to say and is not kept.
    committed = {path.name for path in (ROOT / "protos/tutti/v1").glob("*_pb2*")}
    fresh = tmp_path / "protos/tutti/v1"
    assert committed
    different = [
        name for name in sorted(committed) if not filecmp.cmp(fresh / name, ROOT / "protos/tutti/v1" / name, False)
    ]
    assert different == [], "regenerate the code from the protos"
    expected = {f"{path.stem}_pb2{end}" for path in PROTOS for end in (".py", ".pyi")}
    expected |= {f"{path.stem}_pb2_grpc.py" for path in PROTOS if "\nservice " in path.read_text()}
    assert expected <= committed


def unexplained(lines: list[str]) -> list[str]:
    """
    Keys of a TOML text without a comment above them.

    A key right under an explained key, or a table explained as a whole, shares that comment: `cap_ms` of a stage, a
    priority's thresholds, the fields of `[[sources]]`, whose comment names each of them.
    """
    missing, explained, table = [], False, ""
    for line in lines:
        if line.startswith("#"):
            explained = True
        elif line.startswith("["):
            table = line
            # `# about the table` stands above its header, and one for a group above the first of the group.
            explained = explained or table.split(".")[0] in {"[admission", "[stages", "[placements", "[[sources]]"}
        elif "=" in line:
            if not explained:
                missing.append(f"{table} {line}")
            explained = table.split(".")[0] in {"[admission", "[stages", "[placements", "[[sources]]"}
        elif not line.strip():
            explained = False
    return missing


def test_every_setting_says_what_it_does():
    lines = DEFAULTS.read_text().splitlines()
    # The reranker's name and address are a source's, explained with theirs.
    known = {'[reranker] name = "reranking"', '[reranker] targets = { champion = "127.0.0.1:50053" }'}

    assert set(unexplained(lines)) <= known


def test_a_setting_without_a_word_is_found():
    assert unexplained(["[a]", "# what it does", "b = 1", "c = 2"]) == ["[a] c = 2"]


@pytest.mark.parametrize("folder", ["orchestrator", "services", "protos"])
def test_every_file_says_what_it_is_for(folder):
    silent = [
        str(path.relative_to(ROOT))
        for path in modules(folder)
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]

    assert silent == []


def test_every_port_has_a_contract():
    tree = ast.parse((ROOT / "orchestrator/ports.py").read_text())
    ports = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Protocol" for base in node.bases)
    }
    contracts = {
        node.name.removesuffix("Contract")
        for path in (ROOT / "tests/contract").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Contract")
    }

    assert ports <= contracts


def test_every_module_of_core_has_its_tests():
    core = {path.stem for path in (ROOT / "orchestrator/core").glob("*.py")} - {"__init__"}
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests/unit/core").glob("test_*.py")}

    assert core <= tested

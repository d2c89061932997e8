"""
Feast as the offline side uses it: the feature repository applied to the registry of one data directory.

The only place that opens a `FeatureStore`. A data directory is always given explicitly, and what Feast reads from the
environment (TUTTI_DATA) is set for the length of one call, so several shops can live in one process.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml  # type: ignore[import-untyped]  # comes with Feast; its stubs are not worth a dependency

DEFAULT_REPOSITORY = Path(__file__).resolve().parents[2] / "feature_repo"

# A materialised batch is 2,000 rows, twice over the wire; readers' 50 ms would cut it off. Borrowed from the usual
# limit of a batch job: long enough for a loaded machine, short enough to notice a dead Redis.
WRITE_TIMEOUT_S = 30


class FeatureError(Exception):
    """The feature definitions, or the data behind them, cannot be used; the message says where and why."""


def repository() -> Path:
    """Folder with the feature definitions: TUTTI_FEATURE_REPO, or the one in this source tree."""
    path = Path(os.environ.get("TUTTI_FEATURE_REPO") or DEFAULT_REPOSITORY).resolve()
    if not (path / "feature_store.yaml").is_file():
        raise FeatureError(f"no feature_store.yaml in {path}; TUTTI_FEATURE_REPO names the folder of the definitions")
    return path


def open_store(data: Path, redis_url: str | None = None) -> Any:
    """
    A `feast.FeatureStore` on the registry of *data*, without applying anything.

    Args:
        redis_url: writes and SDK reads go there, with `WRITE_TIMEOUT_S`, and a row is written even where the store has
            one of the same moment; without it Feast's own settings hold.

    Raises:
        FeatureError: no feature repository, or a URL that Feast cannot express.
    """
    with _no_runtime_type_checks():
        from feast import FeatureStore
        from feast.repo_config import RepoConfig

    repo = repository()
    settings = Path(os.environ.get("FEAST_FS_YAML_FILE_PATH") or repo / "feature_store.yaml")
    with _environment(TUTTI_DATA=str(data.resolve())):
        raw = yaml.safe_load(os.path.expandvars(settings.read_text()))
    if redis_url is not None:
        raw["online_store"] |= {"connection_string": connection_string(redis_url), "skip_dedup": True}
    (data / "feature_store").mkdir(parents=True, exist_ok=True)
    config = RepoConfig(**raw)
    config.repo_path = repo
    return FeatureStore(config=config)


def apply(data: Path) -> None:
    """
    Bring the registry of *data* to what the feature repository says, like `TUTTI_DATA=<data> feast apply`.

    Touches no Redis. Idempotent.

    Raises:
        FeatureError: a definition does not import or Feast refuses it.
    """
    from feast.repo_operations import apply_total_with_repo_instance

    repo = repository()
    store = open_store(data)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            contents = _definitions(repo, store.config.project, data)
            apply_total_with_repo_instance(
                store, store.config.project, store.registry, contents, skip_source_validation=True
            )
    except (Exception, SystemExit) as error:
        raise FeatureError(
            f"the definitions in {repo} cannot be applied: {error} {output.getvalue()}".strip()
        ) from error


def connection_string(redis_url: str) -> str:
    """
    A redis:// or unix:// URL in Feast's notation `host:port,parameter=value,…`, with `WRITE_TIMEOUT_S`.

    Raises:
        FeatureError: another scheme, or a password with a comma, which Feast's notation cannot hold.
    """
    url = urlsplit(redis_url)
    parameters = {"socket_timeout": str(WRITE_TIMEOUT_S), "socket_connect_timeout": str(WRITE_TIMEOUT_S)}
    if url.scheme == "unix":
        parameters["unix_socket_path"] = url.path
        host, port = "localhost", 6379
    elif url.scheme == "redis":
        host, port = url.hostname or "localhost", url.port or 6379
        if database := url.path.strip("/"):
            parameters["db"] = database
    else:
        raise FeatureError(f"{redis_url.rsplit('@', maxsplit=1)[-1]} is not a redis://host:port/db or unix:///path URL")
    for name, value in (("username", url.username), ("password", url.password)):
        if value:
            if "," in unquote(value):
                raise FeatureError(f"the {name} in the Redis URL contains a comma, which Feast cannot be told")
            parameters[name] = f'"{unquote(value)}"'
    return ",".join([f"{host}:{port}", *(f"{name}={value}" for name, value in parameters.items())])


def _definitions(repo: Path, project: str, data: Path) -> Any:
    """
    Import every definition of *repo* afresh and collect the Feast objects.

    Feast imports the files as top-level modules relative to the working directory. Their names are ordinary words
    (`entities`), so modules of those names are put aside meanwhile and nothing of ours stays behind.
    """
    from feast.repo_operations import _get_repo_contents

    names = {path.relative_to(repo).with_suffix("").parts[0] for path in repo.glob("**/*.py")}
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in names}
    write_bytecode, before = sys.dont_write_bytecode, Path.cwd()
    # Before the directory changes: a relative path means the caller's.
    data = data.resolve()
    sys.path.insert(0, str(repo))
    try:
        os.chdir(repo)
        with _environment(TUTTI_DATA=str(data)):
            return _get_repo_contents(repo, project)
    finally:
        os.chdir(before)
        sys.path.remove(str(repo))
        sys.dont_write_bytecode = write_bytecode
        for name in [name for name in sys.modules if name.split(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(aside)


@contextlib.contextmanager
def _no_runtime_type_checks() -> Iterator[None]:
    """
    Import Feast without the type checks that typeguard would compile into its classes.

    They check what we check with mypy, and recompiling Feast's sources at every start is most of its import: 10.1 s
    of CPU with them, 3.9 s without (Feast 0.67 with torch, two loaded cores; measured with `python -O`, which also
    turns them off).
    """
    import typeguard

    def unchanged(target: Any = None, **_: Any) -> Any:
        return target if target is not None else unchanged

    before = typeguard.typechecked
    typeguard.typechecked = unchanged
    try:
        yield
    finally:
        typeguard.typechecked = before


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

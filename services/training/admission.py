"""
Brings the gate its figures: profiles the data, asks candidate and champion the same, and remembers the verdict.

The rule: measured here, decided in gate.py. Candidate and champion are asked about the same shoppers at the same
moment; what was never measured on the same ground is handed over as unknown.

    DIR/models/training.json            the run whose models serve, with its profile and verdict
    DIR/models/training.previous.json   the run that served before it
    DIR/models/candidate.json           a run that was refused: published, not promoted
"""

from __future__ import annotations

import json
import statistics
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protos import artefacts
from protos.arrays import Rows
from protos.artefacts import Artefact, Manifest
from protos.feast_layout import ReadPlan
from services.chassis.model import GenerateQueries, Generator, Ranker, RerankQueries, Resources
from services.training import comparison, gate, recipe, registry, validation
from services.training.dataset import Dataset
from services.training.gate import Figures, HeldOut, Speed, Variety, Verdict
from services.training.sources import DEFAULTS, SourceSpec, service

RUN_FILE, PREVIOUS_FILE, CANDIDATE_FILE = "training.json", "training.previous.json", "candidate.json"

_SHOPPERS = 200
"""Asked for variety, drawn by seed: their lists take a second, and half of a coverage cannot hide in the sample."""

_NOBODY_ASKED = "no shopper to ask yet: neither speed nor variety was measured"

_TIMED, _WARM_UP = 30, 5
_LENGTH = 20


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, and the block of the run's report that says how it came."""

    verdict: Verdict
    report: Mapping[str, Any]


def judge(
    data: Path,
    dataset: Dataset,
    published: Sequence[Artefact],
    sources: Sequence[SourceSpec],
    last: Mapping[str, Any] | None,
    seed: int,
    version: int,
    now_us: int,
    tuned: str = "",
) -> Decision:
    """
    Judge *published* against what serves in *data* now.

    Args:
        dataset: what they were trained on.
        last: the report of the run whose models serve; None when there is none.
        version, tuned: of the offline run, see recipe.py.
    """
    models = data / registry.MODELS
    champions = {a.name: _champion(models, a.name) for a in published}
    found = validation.profile(dataset)
    before = validation.Profile.from_json(last["gate"]["profile"]) if last and "gate" in last else None
    mine, theirs = recipe.digest(sources, version, tuned), str((last or {}).get("gate", {}).get("recipe", ""))
    caps = _caps_ms()
    shoppers = _shoppers(dataset, seed)
    speeds, varieties = [], []
    # Nobody to ask: what was not measured is no reason to refuse, and is said below.
    for artefact in published if len(shoppers) else ():
        if artefact.manifest.role == "generator":
            speed, variety = _generator(data, artefact, champions[artefact.name], dataset, shoppers, caps["retrieve"])
            speeds.append(speed)
            varieties.append(variety)
        elif artefact.manifest.role == "reranker":
            speeds.append(_reranker(data, artefact, dataset, shoppers, [s.name for s in sources], caps["rerank"]))
    has_champion = any(champions.values())
    reranker = next((a for a in published if a.manifest.role == "reranker"), None)
    champion = champions.get(reranker.name) if reranker is not None else None
    figures = Figures(
        has_champion=has_champion,
        data_faults=validation.faults(found, before, now_us),
        candidate=_held_out(reranker.manifest) if reranker is not None else None,
        champion=_held_out(champion.manifest) if champion is not None else None,
        # The same recipe is the same model up to its data and its seed: there is nothing to compare.
        paired=() if mine == theirs else comparison.of_recipes(data, mine, theirs, seed),
        speeds=tuple(speeds),
        varieties=tuple(varieties),
    )
    verdict = gate.decide(figures)
    report = {
        "admitted": verdict.admits,
        "reasons": [asdict(reason) for reason in verdict.reasons],
        "notes": [*verdict.notes, *(() if len(shoppers) else (_NOBODY_ASKED,))],
        "recipe": mine,
        "profile": found.as_json(),
        "speed": [asdict(one) for one in speeds],
        "variety": [asdict(one) for one in varieties],
    }
    return Decision(verdict, report)


def against_champion(data: Path, mine: str, last: Mapping[str, Any] | None, seed: int) -> Figures:
    """
    What evaluations that were kept say of recipe *mine* and the champion's; nothing else is known.

    Args:
        last: the report of the run whose models serve; None when there is none.
    """
    theirs = str((last or {}).get("gate", {}).get("recipe", ""))
    paired = () if mine == theirs else comparison.of_recipes(data, mine, theirs, seed)
    return Figures(has_champion=last is not None, paired=paired)


def remember(models: Path, report: Mapping[str, Any], is_promoted: bool) -> None:
    """Write a run's *report*: as that of what serves, or as that of the candidate that was refused."""
    if not is_promoted:
        artefacts.write_json(models / CANDIDATE_FILE, report)
        return
    if (models / RUN_FILE).is_file():
        (models / RUN_FILE).replace(models / PREVIOUS_FILE)
    artefacts.write_json(models / RUN_FILE, report)
    (models / CANDIDATE_FILE).unlink(missing_ok=True)


def promote_candidate(data: Path) -> dict[str, str]:
    """
    Let the run that was refused last serve after all.

    Returns:
        model → version that serves now.

    Raises:
        ArtefactMissing: no run was refused since the last promotion; ArtefactBroken: it is not what was published.
    """
    models = data / registry.MODELS
    report = read(models / CANDIDATE_FILE)
    if report is None:
        raise artefacts.ArtefactMissing(f"no refused run under {models}; `tutti models list` shows what there is")
    versions = {str(name): str(version) for name, version in report["versions"].items()}
    for name, version in versions.items():
        artefacts.load(models, name, version)
    for name, version in versions.items():
        registry.promote(models, name, version)
    remember(models, report, is_promoted=True)
    return versions


def rollback(data: Path) -> dict[str, str]:
    """
    Let the champions before the last promotion serve again, and their run be the one that candidates are judged by.

    Raises: as registry.rollback.
    """
    models = data / registry.MODELS
    changed = registry.rollback(models)
    last, before = read(models / RUN_FILE), read(models / PREVIOUS_FILE)
    if last is not None and before is not None:
        artefacts.write_json(models / RUN_FILE, before)
        artefacts.write_json(models / PREVIOUS_FILE, last)
    return changed


def read(path: Path) -> dict[str, Any] | None:
    """A run's report; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _champion(models: Path, name: str) -> Artefact | None:
    try:
        return artefacts.load(models, name)
    except artefacts.ArtefactError:
        # Nothing that could be verified serves: whatever is new cannot be worse than that.
        return None


def _caps_ms() -> dict[str, float]:
    """Stage → what it may take, from the orchestrator's defaults; read as plain TOML, as sources.py does."""
    stages = tomllib.loads(DEFAULTS.read_text(encoding="utf-8"))["stages"]
    return {name: float(stages[name]["cap_ms"]) for name in ("retrieve", "rerank")}


def _shoppers(dataset: Dataset, seed: int) -> np.ndarray:
    active = np.unique(dataset.users)
    return np.sort(np.random.default_rng(seed).permutation(active)[:_SHOPPERS])


def _generator(
    data: Path,
    candidate: Artefact,
    champion: Artefact | None,
    dataset: Dataset,
    users: np.ndarray,
    cap_ms: float,
) -> tuple[Speed, Variety]:
    load = service(candidate.name, "serve").load
    mine: Generator = load(candidate, Resources(data))
    took = _median_ms(lambda i: mine.generate(_queries(dataset, users[i % len(users)][None], 100)))
    shown = _distinct(mine, dataset, users)
    known = None
    if champion is not None:
        try:
            known = _distinct(load(champion, Resources(data)), dataset, users)
        except (artefacts.ArtefactError, KeyError, ValueError):
            # An artefact of another version of its service: nothing is known of it.
            known = None
    return Speed(candidate.name, took, cap_ms), Variety(candidate.name, shown, known, len(users))


def _distinct(generator: Generator, dataset: Dataset, users: np.ndarray) -> int:
    return len(np.unique(generator.generate(_queries(dataset, users, _LENGTH)).rows.values))


def _queries(dataset: Dataset, users: np.ndarray, count: int) -> GenerateQueries:
    q = len(users)
    shoppers = dataset.shoppers(users, np.full(q, dataset.until_us))
    return GenerateQueries(np.full(q, count, np.int32), shoppers, Rows.empty(q), Rows.empty(q))


def _reranker(
    data: Path, artefact: Artefact, dataset: Dataset, users: np.ndarray, sources: Sequence[str], cap_ms: float
) -> Speed:
    """How long it takes over 300 candidates of one shopper, whose features are missing."""
    ranker: Ranker = service(artefact.name, "serve", "reranker").load(artefact, Resources(data))
    plan = ReadPlan.load(artefact.file((artefact.manifest.features or {})["plan"]))
    candidates = np.arange(min(300, dataset.n_items), dtype=np.int32)
    n, s = len(candidates), len(sources)

    def ask(i: int) -> None:
        who = users[i % len(users)][None]
        ranker.rank(
            RerankQueries(
                shoppers=dataset.shoppers(who, np.full(1, dataset.until_us)),
                candidates=Rows.of([candidates]),
                sources=tuple(sources),
                source_scores=np.ones((n, s), np.float32),
                source_ranks=np.tile(np.arange(1, n + 1, dtype=np.uint16)[:, None], (1, s)),
                user_numeric=np.full((1, len(plan.user.numeric)), np.nan, np.float32),
                user_categorical=np.full((1, len(plan.user.categorical)), "", object),
                feature_digest=ranker.feature_digest,
            )
        )

    return Speed(artefact.name, _median_ms(ask), cap_ms)


def _median_ms(ask: Callable[[int], object]) -> float:
    """Median of single queries once it is warm: a busy machine has a tail, and the tail is not the model's."""
    took = []
    for i in range(_WARM_UP + _TIMED):
        began = time.perf_counter()
        ask(i)
        took.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(took[_WARM_UP:]), 3)


def _held_out(manifest: Manifest) -> HeldOut:
    """What a re-ranker's manifest says of shoppers it did not learn from; no query where it says nothing."""
    metrics = manifest.metrics
    fused = metrics.get("ndcg_at_10_fused")
    return HeldOut(
        float(metrics.get("ndcg_at_10", 0.0)),
        None if fused is None else float(fused),
        int(metrics.get("judged_queries", 0)) if "ndcg_at_10" in metrics else 0,
    )

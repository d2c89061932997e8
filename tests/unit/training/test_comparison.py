"""Two recipes on one ground, and going back to what served before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protos import artefacts
from services.chassis.model import Fitted
from services.training import comparison, registry
from tests.support.small_dataset import a_dataset

MINE, THEIRS = "a" * 64, "b" * 64


def judged(path, gain=0.0, tasks=("rebuy",), n=200, seed=1):
    base = np.random.default_rng(seed).random((len(tasks), n))
    parts = []
    for i, task in enumerate(tasks):
        for method, plus in (("slate", gain), ("popularity", 5.0)):
            parts.append({"task": [task] * n, "method": [method] * n, "query": range(n), "ndcg_at_10": base[i] + plus})
    table = pa.concat_tables([pa.table({k: pa.array(v) for k, v in part.items()}) for part in parts])
    pq.write_table(table, path)
    return path


def test_slates_are_compared_query_by_query_and_nothing_else(tmp_path):
    better, base = judged(tmp_path / "mine", 0.02), judged(tmp_path / "theirs")
    comparison.keep(tmp_path, better, "ground", MINE)
    comparison.keep(tmp_path, base, "ground", THEIRS)

    (paired,) = comparison.of_recipes(tmp_path, MINE, THEIRS, seed=7)

    assert (paired.task, paired.queries) == ("rebuy", 200)
    assert paired.gain == pytest.approx(0.02)
    assert (paired.low, paired.high) == (pytest.approx(0.02), pytest.approx(0.02))


def test_recipes_judged_on_other_ground_are_not_compared(tmp_path):
    comparison.keep(tmp_path, judged(tmp_path / "mine"), "one", MINE)
    comparison.keep(tmp_path, judged(tmp_path / "theirs"), "other", THEIRS)

    assert comparison.of_recipes(tmp_path, MINE, THEIRS, seed=7) is None
    assert comparison.of_recipes(tmp_path, MINE, "", seed=7) is None


def test_a_task_that_only_one_of_them_had_is_left_out(tmp_path):
    comparison.keep(tmp_path, judged(tmp_path / "mine", tasks=("rebuy", "cart")), "on", MINE)
    comparison.keep(tmp_path, judged(tmp_path / "theirs"), "on", THEIRS)

    assert [one.task for one in comparison.of_recipes(tmp_path, MINE, THEIRS, seed=7)] == ["rebuy"]


def publish(models, name, content):
    staged = registry.staging(models, name)
    (staged / "weights.txt").write_text(content)
    return registry.publish(models, name, "generator", staged, Fitted(), a_dataset(), 7).version


def test_going_back_lets_every_earlier_champion_serve_and_going_back_again_undoes_it(tmp_path):
    first = {name: publish(tmp_path, name, "one") for name in ("one", "two")}
    second = {"one": publish(tmp_path, "one", "better"), "two": first["two"]}
    for versions in (first, second):
        for name, version in versions.items():
            registry.promote(tmp_path, name, version)

    changed = registry.rollback(tmp_path)

    assert changed == {"one": first["one"]}
    assert artefacts.load(tmp_path, "one").version == first["one"]
    assert artefacts.load(tmp_path, "two").version == second["two"]
    assert registry.rollback(tmp_path) == {"one": second["one"]}
    assert registry.names(tmp_path) == ["one", "two"]


def test_without_an_earlier_champion_there_is_nothing_to_go_back_to(tmp_path):
    registry.promote(tmp_path, "one", publish(tmp_path, "one", "only"))

    with pytest.raises(artefacts.ArtefactMissing, match=r"no model under .* has an earlier champion"):
        registry.rollback(tmp_path)


def test_going_back_to_what_was_tampered_with_changes_nothing(tmp_path):
    versions = [publish(tmp_path, "one", content) for content in ("one", "two")]
    for version in versions:
        registry.promote(tmp_path, "one", version)
    (tmp_path / "one" / versions[0] / "weights.txt").write_text("other")

    with pytest.raises(artefacts.ArtefactBroken):
        registry.rollback(tmp_path)
    assert artefacts.load(tmp_path, "one").version == versions[1]

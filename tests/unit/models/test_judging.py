"""Who has how much to say in the re-ranker, chosen for each kind of list on shoppers that nobody learnt from."""

import numpy as np
import pytest

from services.reranking import judging
from services.reranking.blend import Blends
from services.reranking.judging import Opinions
from services.reranking.lists import Lists

FUSED = 0
ROWS = 20


def some_lists(new, known, seed=0):
    """Lists with noise for a fused order; the last column says which are new. The gains are the truth."""
    rng = np.random.default_rng(seed)
    n = (new + known) * ROWS
    is_new = np.repeat([True] * new + [False] * known, ROWS)
    truth = rng.normal(size=n)
    # The first of each list is wanted, so that none is without.
    truth[::ROWS] += 3
    gains = (truth > 1.3).astype(np.float32)
    gains[::ROWS] = 1
    dense = np.column_stack([rng.normal(size=n), np.where(is_new, 0.0, 0.4)]).astype(np.float32)
    return Lists(np.arange(0, n + 1, ROWS), dense, np.empty((n, 0), np.int64), gains), truth, is_new, rng


def opinions(rows, truth, is_new, rng):
    """The network knows the truth about new things and nothing else, the trees the other way round."""
    noise = rng.normal(size=len(truth))
    network = np.where(is_new, truth, noise).astype(np.float32)
    trees = np.where(is_new, noise, truth).astype(np.float32)
    return Opinions.of(rows, network, trees)


def judged(new=80, known=80):
    rows, truth, is_new, rng = some_lists(new, known)
    taught_rows, *rest = some_lists(new, known, seed=1)
    taught = opinions(taught_rows, *rest)
    blends, figures = judging.chosen(taught, opinions(rows, truth, is_new, rng), rows, FUSED)
    return blends, figures, rows, opinions(rows, truth, is_new, rng)


def test_each_kind_of_list_is_ordered_by_who_orders_it_best():
    blends, figures, *_ = judged()

    assert blends.new.trees == 0
    assert blends.new.network > 0
    assert blends.known.network == 0
    assert blends.known.trees > 0
    assert (figures["share_of_trees"], figures["share_of_trees_new"]) == (1.0, 0.0)
    assert figures["ndcg_at_10"] > 0.99
    assert figures["ndcg_at_10"] > max(figures["ndcg_at_10_network"], figures["ndcg_at_10_lambdamart"]) + 0.1
    assert figures["judged_queries"] == 160


def test_a_kind_with_too_few_lists_follows_what_is_best_for_all():
    blends, figures, *_ = judged(new=judging.LEAST_JUDGED - 1, known=200)

    assert figures["share_of_trees_new"] >= 0.5, "alone it would be 0"
    assert blends.new.trees > 0


def test_a_kind_that_nobody_judged_is_answered_all_the_same():
    blends, figures, _, said = judged(new=0, known=80)

    likely = blends.of(said.network, said.trees, np.zeros(len(said.trees), np.float32))
    assert np.isfinite(likely).all()
    assert figures["calibration_error"] == pytest.approx(0, abs=0.1)


def test_the_blend_of_a_row_is_that_of_its_list():
    blends, _, rows, said = judged()

    likely = blends.of(said.network, said.trees, rows.dense[:, -1])

    np.testing.assert_array_equal(likely[said.is_new], blends.new.of(said.network, said.trees)[said.is_new])
    np.testing.assert_array_equal(likely[~said.is_new], blends.known.of(said.network, said.trees)[~said.is_new])


def test_without_judges_both_have_an_equal_say_everywhere():
    rows, *rest = some_lists(10, 10)
    blends = judging.equal_say(opinions(rows, *rest))

    assert blends.known == blends.new
    assert blends.known.network * np.std(opinions(rows, *some_lists(10, 10)[1:]).network) == pytest.approx(0.5)


def test_blends_survive_json():
    import json

    blends, *_ = judged()

    assert Blends.from_json(json.loads(json.dumps(blends.to_json()))) == blends

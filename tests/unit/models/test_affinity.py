"""What is close to what: each method sees what it is for, and the same numbers come out of a file."""

from dataclasses import replace

import numpy as np
import pytest

from protos.arrays import Rows
from protos.tutti.v1 import common_pb2
from services.chassis.affinity import IMPERSONAL, NAMES, TABLES, Affinities, Demand, Peers, Table, standardised
from services.chassis.model import Shoppers
from services.training import affinity
from tests.support.dense_closeness import spread
from tests.support.small_dataset import PURCHASE, UNTOUCHED, a_dataset

DATASET = a_dataset()
LEARNT = affinity.learn(DATASET)


def shopper(history, context=(), placement=common_pb2.PLACEMENT_HOME, ages_d=None):
    rows = Rows.of([list(history)])
    n = len(rows.values)
    ages = np.zeros(n, np.float32) if ages_d is None else np.array(ages_d, np.float32) * np.float32(86_400)
    return Shoppers(
        rows, np.full(n, PURCHASE, np.uint8), ages, Rows.of([list(context)]), np.array([placement], np.uint8)
    )


def closeness(who, learnt=LEARNT):
    (rows,) = learnt.of(who, 10.0)
    return dict(zip(NAMES, rows, strict=True))


def some_affinities(cosine=None, peers=None, demand=None):
    """One thing given, and nothing known by any other method."""
    n_items = 4 if demand is not None else 3
    keys, strengths = np.empty(0, np.int32), np.empty(0, np.float32)
    nothing = Table(np.zeros(n_items + 1, np.int64), keys, strengths)
    nobody = Peers(
        np.ones(n_items, np.float32), nothing.offsets, keys, strengths, np.zeros(1, np.int64), keys, strengths, 1
    )
    zeros = np.zeros(n_items, np.float32)
    return Affinities(
        dict.fromkeys(TABLES, nothing) | ({"cosine": cosine} if cosine else {}),
        peers or nobody,
        demand or Demand(zeros, np.full(n_items, -1, np.int32), zeros),
    )


@pytest.mark.parametrize("method", ["cosine", "linear", "basket", "text", "peers"])
def test_every_method_brings_mugs_to_who_likes_mugs(method):
    close = closeness(shopper([0, 2, 4]))[method]

    mugs, lamps = np.delete(close[0::2], [0, 1, 2]), np.delete(close[1::2], (UNTOUCHED - 1) // 2)
    assert mugs.mean() > 2 * lamps.mean()


def test_behaviour_reaches_an_item_that_nobody_touched_through_its_look_alikes():
    close = closeness(shopper([1, 3, 37]))

    assert {name for name, row in close.items() if row[UNTOUCHED] > 0} == {"cosine", "linear", "basket", "text"}
    for name in ("cosine", "basket"):
        assert close[name][UNTOUCHED] < close[name][1::2].max(), name


def test_trending_is_the_same_for_everybody_and_counts_shoppers_not_events():
    one, other = closeness(shopper([0, 2, 4]))["trending"], closeness(shopper([1]))["trending"]

    np.testing.assert_array_equal(one, other)
    assert one[UNTOUCHED] == 0


def test_a_category_brings_what_is_wanted_in_it_and_nothing_else():
    demand = Demand(
        wanted=np.array([3, 1, 8, 2], np.float32),
        category=np.array([0, 0, 1, -1], np.int32),
        share=np.array([0.75, 0.25, 1.0, 0.0], np.float32),
    )

    learnt = some_affinities(demand=demand)

    # A purchase counts 5.
    assert closeness(shopper([1]), learnt)["category"].tolist() == [3.75, 1.25, 0, 0]
    assert closeness(shopper([3]), learnt)["category"].tolist() == [0, 0, 0, 0]


def test_a_method_that_is_not_asked_stays_silent():
    (rows,) = LEARNT.of(shopper([0, 2, 4]), 10.0, unasked=("peers", "cosine"))
    close = dict(zip(NAMES, rows, strict=True))

    assert not close["peers"].any()
    assert not close["cosine"].any()
    np.testing.assert_array_equal(close["linear"], closeness(shopper([0, 2, 4]))["linear"])


def test_one_s_own_items_count_by_how_often_and_how_lately():
    own = closeness(shopper([6, 8, 8, 10], ages_d=[400, 1, 0, 0]))["own"]

    assert own[8] > own[10] > own[6] > 0
    assert np.count_nonzero(own) == 3


def test_on_a_product_page_the_item_looked_at_outweighs_the_history():
    page = closeness(shopper([0, 2, 4], [7], common_pb2.PLACEMENT_ITEM))

    for method in ("cosine", "basket", "text"):
        assert page[method][1::2].sum() > page[method][0::2].sum(), method


def test_a_shopper_of_whom_nothing_is_known_is_close_to_nothing_but_what_everybody_wants():
    for who in (shopper([]), shopper([-1, 10_000])):
        assert {name for name, row in closeness(who).items() if row.any()} == set(IMPERSONAL)


def test_a_batch_gives_what_each_gives_alone():
    both = Shoppers(
        Rows.of([[0, 2], [1, 3, 5]]),
        np.full(5, PURCHASE, np.uint8),
        np.arange(5, dtype=np.float32) * 86_400,
        Rows.of([[], [7]]),
        np.array([common_pb2.PLACEMENT_HOME, common_pb2.PLACEMENT_ITEM], np.uint8),
    )

    together = list(LEARNT.of(both, 10.0))

    for i, rows in enumerate(together):
        (alone,) = LEARNT.of(both.take(np.array([i])), 10.0)
        np.testing.assert_array_equal(rows, alone)


def test_a_file_holds_everything(tmp_path):
    LEARNT.save(tmp_path / "affinities.npz")
    with np.load(tmp_path / "affinities.npz", allow_pickle=False) as arrays:
        read = Affinities.of_arrays(dict(arrays))

    assert set(read.tables) == set(TABLES)
    for name, row in closeness(shopper([0, 2, 4]), read).items():
        np.testing.assert_allclose(row, closeness(shopper([0, 2, 4]))[name], rtol=2e-3)


def test_a_file_weighs_a_history_as_it_was_learnt_to_be_weighed(tmp_path):
    short = affinity.learn(DATASET, affinity.Parameters(history_d={"own": 1.0}))
    short.save(tmp_path / "affinities.npz")
    with np.load(tmp_path / "affinities.npz", allow_pickle=False) as arrays:
        read = Affinities.of_arrays(dict(arrays))
    late_and_early = shopper([0, 2], ages_d=[0, 30])

    own = closeness(late_and_early, read)["own"]

    assert own[2] < 1e-6 < own[0]
    assert closeness(late_and_early)["own"][2] > 1
    assert short.half_lives_d == read.half_lives_d


def test_a_file_from_before_half_lives_were_written_has_the_usual_ones(tmp_path):
    LEARNT.save(tmp_path / "affinities.npz")
    with np.load(tmp_path / "affinities.npz", allow_pickle=False) as arrays:
        old = {name: value for name, value in arrays.items() if not name.startswith("half_life.")}

    assert Affinities.of_arrays(old).half_lives_d == LEARNT.half_lives_d


def test_what_was_learnt_with_other_parameters_is_learnt_again():
    usual, shrunk = affinity.learn(DATASET), affinity.learn(DATASET, affinity.Parameters(shrink=50.0))

    assert shrunk.tables["cosine"].strengths.max() < usual.tables["cosine"].strengths.max()
    assert affinity.learn(DATASET, affinity.Parameters(shrink=50.0)) is shrunk
    assert affinity.learn(DATASET) is not shrunk


def test_a_half_life_of_no_method_is_refused():
    with pytest.raises(ValueError, match="colour"):
        affinity.learn(a_dataset(), affinity.Parameters(history_d={"colour": 1.0}))


def test_a_table_adds_up_weight_times_strength():
    table = Table(np.array([0, 2, 3, 3]), np.array([1, 2, 0], np.int32), np.array([0.5, 0.25, 0.5], np.float32))

    close = closeness(shopper([0, 1], ages_d=[0, 60]), some_affinities(cosine=table))["cosine"]

    # A purchase counts 5, and half as much when it is one half-life older than the newest.
    assert close.tolist() == [1.25, 2.5, 1.25]


def test_only_the_peers_most_alike_have_a_say():
    peers = Peers(
        rarity=np.ones(3, np.float32),
        item_offsets=np.array([0, 2, 3, 3]),
        users=np.array([0, 1, 1], np.int32),
        likeness=np.array([0.2, 0.9, 0.4], np.float32),
        shopper_offsets=np.array([0, 1, 2]),
        keys=np.array([1, 2], np.int32),
        wants=np.array([1.0, 0.5], np.float32),
        most=1,
    )

    wanted = closeness(shopper([0]), some_affinities(peers=peers))["peers"]

    assert wanted.tolist() == pytest.approx([0.0, 0.0, 0.45])


def test_the_linear_model_leaves_out_the_least_wanted_and_keeps_their_place(monkeypatch):
    monkeypatch.setattr(affinity, "LINEAR_ITEMS", 10)
    from scipy import sparse

    wanted = sparse.csr_matrix(np.tile(np.arange(1, 41, dtype=np.float32), (5, 1)))

    table = affinity.linear(wanted)

    assert len(table.offsets) == 41
    assert set(table.keys.tolist()) <= set(range(30, 40))
    assert np.diff(table.offsets)[:30].sum() == 0


@pytest.mark.parametrize("n", [1, 4, 5, 11])
def test_a_symmetric_matrix_is_inverted_block_by_block(monkeypatch, n):
    monkeypatch.setattr(affinity, "_BLOCK", 4)
    rows = np.random.default_rng(n).normal(size=(20, n))
    gram = rows.T @ rows + np.eye(n)

    inverse = affinity._inverted(gram.copy())

    np.testing.assert_allclose(inverse, np.linalg.inv(gram), atol=1e-9)
    np.testing.assert_array_equal(inverse, inverse.T)


def test_a_matrix_without_an_inverse_is_said_to_have_none():
    with pytest.raises(np.linalg.LinAlgError, match="the 2 most wanted items have no inverse"):
        affinity._inverted(np.zeros((2, 2)))


def test_affinities_of_the_lessons_are_remembered_as_long_as_they_fit(monkeypatch):
    shop = a_dataset()
    pasts = [shop.before(int(at)) for at in shop.at_us[[1, 2]]]
    first, second = (affinity.learn(past) for past in pasts)

    assert affinity.learn(pasts[0]) is first
    assert affinity.learn(pasts[1]) is second
    monkeypatch.setattr(affinity, "_REMEMBERED_BYTES", 0)
    third = affinity.learn(shop)
    assert affinity.learn(shop) is third
    assert affinity.learn(pasts[0]) is not first


def test_words_are_compared_once_a_catalogue():
    shop = a_dataset()
    other = replace(shop.items, titles=shop.items.titles.copy())

    assert affinity.words(shop.items) is affinity.words(shop.before(int(shop.at_us[1])).items)
    assert affinity.words(other) is not affinity.words(shop.items)


def test_the_linear_model_is_the_closed_form():
    from scipy import sparse

    rng = np.random.default_rng(1)
    rows = (rng.random((30, 6)) < 0.4).astype(np.float32)

    table = affinity.linear(sparse.csr_matrix(rows))

    inverse = np.linalg.inv(rows.T @ rows + 30.0 * np.eye(6))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(spread(table, [2], [1.0]), np.maximum(expected[2], 0), atol=1e-6)


def test_what_comes_after_the_moment_changes_nothing():
    """Leakage: everything is learnt from `before(moment)`, so a future of another kind leaves no trace."""
    moment = DATASET.until_us - 20 * 86_400_000_000
    n = int(np.searchsorted(DATASET.at_us, moment))
    turned = np.concatenate([DATASET.keys[:n], DATASET.keys[n:][::-1]])
    from dataclasses import replace

    one, other = (affinity.learn(d.before(moment)) for d in (DATASET, replace(DATASET, keys=turned)))

    for name in one.tables:
        np.testing.assert_array_equal(one.tables[name].strengths, other.tables[name].strengths)
    np.testing.assert_array_equal(one.peers.wants, other.peers.wants)


def test_standardised_rows_have_no_mean_and_one_spread_and_equals_say_nothing():
    rows = standardised(np.array([[1, 2, 3], [4, 4, 4]], np.float32))

    assert rows[0].mean() == pytest.approx(0, abs=1e-6)
    assert rows[0].std() == pytest.approx(1, abs=1e-6)
    assert rows[1].tolist() == [0, 0, 0]


def many_pairs(n_items=300, n_rows=400, seed=4):
    """Shoppers who wanted some of few popular items and some of many others; no two pairs weigh the same."""
    from scipy import sparse

    rng = np.random.default_rng(seed)
    wanted = rng.random((n_rows, n_items)) < np.linspace(0.9, 0.05, n_items)
    return sparse.csr_matrix(np.where(wanted, rng.random((n_rows, n_items)) + 0.1, 0).astype(np.float32))


def same_table(one, other):
    np.testing.assert_array_equal(one.offsets, other.offsets)
    np.testing.assert_array_equal(one.keys, other.keys)
    np.testing.assert_array_equal(one.strengths, other.strengths)


def test_the_cosine_table_holds_the_closest_of_every_item_by_the_formula():
    rows = many_pairs()
    dense = rows.toarray().astype(np.float64)
    lengths = np.sqrt((dense**2).sum(0))
    close = dense.T @ dense / (np.outer(lengths, lengths) + 2.0)
    np.fill_diagonal(close, 0)

    table = affinity.cosines(rows, 2.0)

    for item in range(300):
        nearest = np.sort(close[:, item])[::-1][: affinity.K]
        speaks = np.repeat(np.arange(300), np.diff(table.offsets))[table.keys == item]
        np.testing.assert_allclose(np.sort(close[speaks, item])[::-1], nearest, rtol=1e-4)


def test_rows_of_a_large_catalogue_keep_what_whole_rows_keep(monkeypatch):
    whole = affinity.cosines(many_pairs(), 2.0)
    monkeypatch.setattr(affinity, "_WHOLE_ROWS_UP_TO", 0)

    few = affinity.cosines(many_pairs(), 2.0)

    assert np.diff(whole.offsets).sum() == 300 * affinity.K
    same_table(few, whole)


def test_in_a_large_catalogue_the_last_place_of_equals_goes_to_the_smaller_key(monkeypatch):
    from scipy import sparse

    monkeypatch.setattr(affinity, "_WHOLE_ROWS_UP_TO", 0)
    monkeypatch.setattr(affinity, "K", 3)

    table = affinity.cosines(sparse.csr_matrix(np.ones((2, 6), np.float32)), 0.0)

    speaks = np.repeat(np.arange(6), np.diff(table.offsets))
    assert sorted(speaks[table.keys == 5].tolist()) == [0, 1, 2]
    assert sorted(speaks[table.keys == 0].tolist()) == [1, 2, 3]


@pytest.mark.parametrize("cells", [1, 700, 10**9])
def test_how_a_product_is_cut_changes_nothing(monkeypatch, cells):
    whole = affinity.cosines(many_pairs(), 2.0)
    monkeypatch.setattr(affinity, "_BLOCK_CELLS", cells)

    same_table(affinity.cosines(many_pairs(), 2.0), whole)


def test_blocks_cover_every_row_once_and_hold_no_more_than_fits(monkeypatch):
    monkeypatch.setattr(affinity, "_BLOCK_CELLS", 10)
    cells = np.array([4, 4, 4, 30, 1, 1, 1])

    cuts = affinity._cuts(cells)

    assert cuts == [0, 2, 3, 4, 7]


def test_long_rows_are_cut_shorter_where_all_pairs_together_are_too_many(monkeypatch):
    rows = many_pairs()
    sizes = np.diff(rows.indptr)
    monkeypatch.setattr(affinity, "_MOST_PAIRS", int((sizes.astype(np.int64) ** 2).sum()) // 4)

    cut = affinity._bounded(rows)

    kept = np.diff(cut.indptr)
    assert int((kept.astype(np.int64) ** 2).sum()) <= affinity._MOST_PAIRS
    assert kept.max() < sizes.max()
    for row in (0, 200):
        strongest = np.sort(rows[row].data)[::-1][: kept[row]]
        np.testing.assert_array_equal(np.sort(cut[row].data)[::-1], strongest)

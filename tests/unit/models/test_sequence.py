"""The transformer: it reads order, what it reads is the same everywhere, and it is taken only where order tells."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from protos.arrays import Rows
from protos.tutti.v1 import common_pb2
from services.chassis.model import GenerateQueries, Resources, Shoppers
from services.chassis.retrieval import VectorIndex
from services.collaborative_filtering import choice, sequence, sequence_network, sequence_train
from services.collaborative_filtering import serve as cf_serve
from services.collaborative_filtering import train as cf_train
from services.collaborative_filtering.model import METHODS
from services.collaborative_filtering.sequence import SequenceModel, Windows
from services.collaborative_filtering.sequence_train import Training
from services.training import registry
from services.training.dataset import DAY_US
from services.training.repeatable import repeatable
from tests.support.small_dataset import PURCHASE, START_US, VIEW, a_dataset

N_ITEMS = 40
"""Keys 0 to 38 are wanted in the rings below, 39 by nobody."""

HOUR_US = DAY_US // 24


def a_shop(is_ordered, n_users=150, events_a_user=30, seed=5):
    """
    Everybody wants the items of one of 13 rings k → k + 13 → k + 26 → k, and mostly jumps to another ring at random.

    In order, the step after k is k + 13 two times of three; without order, the same wishes are shuffled a shopper.
    """
    rng = np.random.default_rng(seed)
    keys = np.zeros((n_users, events_a_user), np.int32)
    keys[:, 0] = rng.integers(0, 39, n_users)
    for step in range(1, events_a_user):
        follows = rng.random(n_users) < 2 / 3
        keys[:, step] = np.where(follows, (keys[:, step - 1] + 13) % 39, rng.integers(0, 39, n_users))
    if not is_ordered:
        keys = rng.permuted(keys, axis=1)
    days = 100
    at_us = START_US + np.sort(rng.integers(0, days * DAY_US, keys.shape), axis=1)
    order = np.argsort(at_us.ravel(), kind="stable")
    users = np.repeat(np.arange(n_users), events_a_user)
    base = a_dataset()
    return replace(
        base,
        user_ids=[f"u{u}" for u in range(n_users)],
        users=users[order].astype(np.int32),
        keys=keys.ravel()[order],
        types=np.full(len(order), VIEW, np.uint8),
        at_us=at_us.ravel()[order],
        sessions=np.arange(len(order), dtype=np.int32),
        until_us=START_US + days * DAY_US,
    )


def start(width=16, seed=2):
    return np.random.default_rng(seed).normal(size=(N_ITEMS, width)).astype(np.float32)


QUICK = Training(dropout=0.1, passes=16, batch_guesses=256, learning_rate=5e-3)


@pytest.fixture(scope="module")
def ordered():
    return a_shop(is_ordered=True)


@pytest.fixture(scope="module")
def learnt(ordered):
    with repeatable(7):
        return sequence_train.learn(ordered, start(), 7, QUICK)


@pytest.fixture(scope="module")
def model(learnt):
    return SequenceModel(learnt.graph, VectorIndex(learnt.vectors, learnt.keys))


def shoppers(*histories, contexts=None, ages_s=None, types=None):
    rows = Rows.of([list(h) for h in histories])
    n = len(rows.values)
    return Shoppers(
        rows,
        np.full(n, VIEW, np.uint8) if types is None else np.array(types, np.uint8),
        np.zeros(n, np.float32) if ages_s is None else np.array(ages_s, np.float32),
        Rows.of([list(c) for c in contexts]) if contexts else Rows.empty(len(histories)),
        np.full(len(histories), common_pb2.PLACEMENT_HOME, np.uint8),
    )


def queries(who, count=5):
    q = len(who)
    return GenerateQueries(np.full(q, count, np.int32), who, Rows.empty(q), Rows.empty(q))


def likeliest(model, who, count=1):
    following = model.following(queries(who, count), np.ones(len(who), bool))
    return [following.keys(i).tolist() for i in range(len(who))]


def test_it_learns_which_item_follows_which(model):
    asked = shoppers(*[[(k + 7) % 39, (k + 20) % 39, k] for k in range(39)], ages_s=[7e5, 3e5, 2e5] * 39)

    right = [found == [(k + 13) % 39] for k, found in enumerate(likeliest(model, asked))]

    assert sum(right) >= 35


def test_the_same_items_in_another_order_are_another_past(model):
    assert likeliest(model, shoppers([2, 15], [15, 2])) == [[28], [15]]


def test_the_context_is_read_last(model):
    with_context = shoppers([2], contexts=[[15]], ages_s=[0.0])

    (state,), _ = model.states(with_context)
    (as_history,), _ = model.states(shoppers([2, 15], ages_s=[0.0, 0.0]))

    np.testing.assert_array_equal(state, as_history)
    assert likeliest(model, with_context) == [[28]]


def test_the_graph_gives_what_torch_gives(learnt, model):
    windows = sequence.of_shoppers(shoppers([3, 16, 1, 7], [5], [9, 9, 12], types=[VIEW, PURCHASE] * 4), model.index)
    embedded = torch.from_numpy(windows.inputs(learnt.vectors)[sequence.EMBEDDED])

    with torch.no_grad():
        expected = learnt.network(embedded, *(torch.from_numpy(part) for part in windows.codes()))[:, -1]
    states, speaks = model.states(shoppers([3, 16, 1, 7], [5], [9, 9, 12], types=[VIEW, PURCHASE] * 4))

    assert speaks.all()
    np.testing.assert_allclose(states, expected.numpy(), atol=1e-5)


def test_a_batch_gives_what_each_gives_alone(model):
    together = shoppers([3, 16, 1, 7, 30, 2], [], [5], [9, 12], contexts=[[], [], [8], [1, 2]])

    states, speaks = model.states(together)

    assert speaks.tolist() == [True, False, True, True]
    assert not states[1].any()
    for i in range(len(together)):
        alone, _ = model.states(together.take(np.array([i])))
        np.testing.assert_allclose(states[i], alone[0], atol=1e-5)
        assert likeliest(model, together, 5)[i] == likeliest(model, together.take(np.array([i])), 5)[0]


def test_filling_up_changes_nothing(learnt):
    one = sequence.of_shoppers(shoppers([3, 16, 1]), VectorIndex(learnt.vectors, learnt.keys))
    wide = Windows(
        *(
            np.pad(part, ((0, 0), (9, 0)), constant_values=none)
            for part, none in zip((one.rows, one.kinds, one.gaps), (-1, 0, 0), strict=True)
        )
    )

    with torch.no_grad():
        states = [
            learnt.network(
                torch.from_numpy(w.inputs(learnt.vectors)[sequence.EMBEDDED]),
                *(torch.from_numpy(part) for part in w.codes()),
            )[:, -1].numpy()
            for w in (one, wide)
        ]

    np.testing.assert_allclose(*states, atol=1e-5)


def test_what_nobody_wanted_is_neither_read_nor_proposed(model):
    np.testing.assert_array_equal(*(model.states(shoppers(h))[0] for h in ([3, 39, 16, 39], [3, 16])))
    assert 39 not in likeliest(model, shoppers([3, 16]), 40)[0]
    following = model.following(queries(shoppers([3, 16])), np.ones(1, bool))
    assert following.closeness(0, np.array([39, 1_000], np.int32)).tolist() == [0, 0]
    assert not model.states(shoppers([39]))[1].any()


def test_who_it_is_not_asked_about_it_says_nothing_of(model):
    who = shoppers([3, 16], [2, 15])

    following = model.following(queries(who), np.array([False, True]))

    assert [len(following.keys(i)) for i in range(2)] == [0, 5]
    assert not following.closeness(0, np.arange(39, dtype=np.int32)).any()
    assert following.keys(1).tolist() == likeliest(model, who, 5)[1]


def test_being_shown_an_item_is_no_step_and_looking_again_is_none_either(model):
    shown = shoppers([3, 8, 16], types=[VIEW, common_pb2.EVENT_TYPE_IMPRESSION, VIEW])
    again = shoppers([3, 3, 16, 16], types=[VIEW, VIEW, VIEW, VIEW])

    for who in (shown, again):
        np.testing.assert_array_equal(model.states(who)[0], model.states(shoppers([3, 16]))[0])


def test_a_run_of_one_item_counts_as_its_strongest_event_at_its_latest_moment():
    ends, kinds = sequence.collapsed(np.array([0, 0, 0, 1, 1]), np.array([4, 4, 5, 5, 4]), np.array([3, 1, 1, 2, 1]))

    assert ends.tolist() == [1, 2, 3, 4]
    assert kinds.tolist() == [3, 1, 2, 1]


def test_only_the_latest_items_are_read(learnt):
    long = list(range(39)) * 2
    index = VectorIndex(learnt.vectors, learnt.keys)

    windows = sequence.of_shoppers(shoppers(long), index)

    assert windows.rows.tolist() == [index.rows_of(np.array(long[-sequence.LONGEST :])).tolist()]


def test_training_and_serving_make_the_same_sequence(ordered):
    asked, known = sequence_train.guesses(ordered)
    index = VectorIndex(start()[known], known)
    n_events = int((ordered.users == 4).sum())
    last_us = int(ordered.at_us[ordered.users == 4][-1])
    served = sequence.of_shoppers(ordered.shoppers(np.array([4]), np.array([last_us])), index)

    windows, targets = asked.windows(np.array([4]))

    assert len(asked.ends) == len(ordered.user_ids), "30 events a shopper are one chunk each"
    assert served.rows.shape[1] in (n_events - 1, n_events - 2)
    for part, expected in zip(
        (served.rows, served.kinds, served.gaps), (windows.rows, windows.kinds, windows.gaps), strict=True
    ):
        np.testing.assert_array_equal(part, expected[:, -part.shape[1] :])
    assert targets[0, -1] == index.rows_of(ordered.keys[ordered.users == 4][-1:])[0]


def test_long_pasts_are_cut_into_chunks_from_the_end():
    shop = a_shop(is_ordered=True, n_users=3, events_a_user=130)

    asked, _ = sequence_train.guesses(shop)

    n = [len(sequence_train.steps_of(shop)[0][sequence_train.steps_of(shop)[0] == u]) - 1 for u in range(3)]
    assert asked.lengths.sum() == len(asked.targets) == sum(n)
    assert asked.lengths.tolist() == [length for steps in n for length in (steps - 100, 50, 50)]
    assert (np.diff(asked.newest.reshape(3, 3), axis=1) > 0).all()


def test_events_after_the_moment_change_nothing(ordered):
    moment = START_US + 60 * DAY_US
    n = int(np.searchsorted(ordered.at_us, moment))
    turned = replace(ordered, keys=np.concatenate([ordered.keys[:n], ordered.keys[n:][::-1]]))

    how = replace(QUICK, passes=1)
    with repeatable(7):
        one, other = (sequence_train.learn(d.before(moment), start(), 7, how) for d in (ordered, turned))

    assert one.graph == other.graph
    np.testing.assert_array_equal(one.vectors, other.vectors)


def test_many_items_are_learnt_by_sampling(ordered):
    with repeatable(7):
        sampled = sequence_train.learn(ordered, start(), 7, replace(QUICK, passes=20, full_up_to=10, negatives=30))
    model = SequenceModel(sampled.graph, VectorIndex(sampled.vectors, sampled.keys))

    asked = shoppers(*[[(k + 20) % 39, k] for k in range(39)], ages_s=[3e5, 2e5] * 39)

    assert sum(found == [(k + 13) % 39] for k, found in enumerate(likeliest(model, asked))) >= 35


def test_sampling_every_other_item_once_is_the_full_softmax():
    generator = torch.Generator().manual_seed(1)
    states, vectors = torch.randn(4, 8, generator=generator), torch.randn(50, 8, generator=generator)
    wanted = torch.tensor([0, 0, 0, 0])

    full = torch.nn.functional.cross_entropy(states @ vectors.T, wanted)
    by_all = sequence_train.sampled(states, vectors, wanted, torch.arange(1, 50))
    by_half = [
        sequence_train.sampled(states, vectors, wanted, torch.randperm(49, generator=generator)[:25] + 1)
        for _ in range(300)
    ]

    assert float(by_all) == pytest.approx(float(full), rel=1e-5)
    assert float(torch.stack(by_half).mean()) == pytest.approx(float(full), rel=0.05)


def test_an_item_drawn_against_itself_does_not_count():
    states, vectors = torch.ones(1, 2), torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])

    loss = sequence_train.sampled(states, vectors, torch.tensor([0]), torch.tensor([0, 1]))

    assert float(loss) == pytest.approx(float(np.log(1 + np.exp(-2))), rel=1e-5)


def test_nobody_wanting_two_things_is_nothing_to_learn_from(ordered):
    with pytest.raises(ValueError, match="no sequence"):
        sequence_train.learn(ordered.before(int(ordered.at_us[1])), start(), 7, QUICK)


@pytest.fixture
def quick_trials(monkeypatch):
    monkeypatch.setattr(cf_train, "LEAST_SHOPPERS", 100)
    monkeypatch.setattr(cf_train, "TRAINING", replace(QUICK, passes=10))


@pytest.mark.usefixtures("quick_trials")
def test_it_is_taken_where_order_tells_and_stored_and_served(ordered, tmp_path):
    with repeatable(7):
        chosen = cf_train.choose(ordered, 7)
        staged = registry.staging(tmp_path, "collaborative_filtering")
        fitted = cf_train.fit(ordered, chosen, 7, staged)
    artefact = registry.publish(tmp_path, "collaborative_filtering", "generator", staged, fitted, ordered, 7)
    served = cf_serve.load(artefact, Resources(tmp_path))
    found = served.generate(queries(shoppers(*[[(k + 20) % 39, k] for k in range(39)], ages_s=[3e5, 2e5] * 39), 3))

    assert chosen["sequence"] is True
    trial = chosen["sequence_trial"]["weights"]
    assert trial["ndcg_at_10_with"] - trial["ndcg_at_10_without"] > trial["difference_low"] > 0
    assert chosen["weights"][METHODS.index("sequence")] > 0.5
    assert artefact.manifest.parameters["sequence_trial"]["weights"]["why"].startswith("taken")
    assert {"sequence.onnx", "sequence_item_vectors.npy", "sequence_item_keys.npy"} <= set(artefact.manifest.files)
    assert sum((k + 13) % 39 in found.rows.row(k) for k in range(39)) >= 35


@pytest.mark.usefixtures("quick_trials")
def test_it_is_left_out_where_order_says_nothing(tmp_path):
    shop = a_shop(is_ordered=False)

    with repeatable(7):
        chosen = cf_train.choose(shop, 7)
        staged = registry.staging(tmp_path, "collaborative_filtering")
        fitted = cf_train.fit(shop, chosen, 7, staged)

    assert "sequence" not in chosen
    assert chosen["weights"][METHODS.index("sequence")] == 0
    assert fitted.parameters["sequence_trial"]["weights"]["why"].startswith("left out")
    assert not list(staged.glob("sequence*"))


def test_a_small_shop_holds_no_trial_and_says_so():
    chosen = cf_train.choose(a_dataset(), 7)

    assert "sequence" not in chosen
    assert chosen["sequence_trial"] == {"why": "no trial: 60 shoppers with 5 steps or more, 500 needed"}


def test_a_method_that_only_repeats_another_is_not_better_than_noise():
    rng = np.random.default_rng(0)
    lists = []
    for _ in range(80):
        closeness = rng.normal(size=(len(METHODS), 30)).astype(np.float32)
        closeness[-1] = closeness[0]
        gains = np.zeros(30, np.float32)
        gains[np.argmax(closeness[0] + rng.normal(size=30))] = 1
        lists.append(choice.Shown(closeness, gains, 1))

    verdict = choice.compare(lists, lists, len(METHODS) - 1, np.arange(80) // 2, 7)

    assert not verdict.is_taken
    assert verdict.low <= 0 <= verdict.high


def test_the_same_seed_learns_the_same(ordered):
    how = replace(QUICK, passes=1)

    with repeatable(7):
        one = sequence_train.learn(ordered, start(), 7, how)
        other = sequence_train.learn(ordered, start(), 7, how)

    assert one.graph == other.graph
    np.testing.assert_array_equal(one.vectors, other.vectors)


def test_the_graph_is_written_for_any_width_and_depth():
    network = sequence_network.Transformer(8, 1, 1, 0.0).eval()

    model = SequenceModel(
        sequence_network.onnx_graph(network), VectorIndex(np.eye(8, dtype=np.float32), np.arange(8, dtype=np.int32))
    )

    assert model.states(shoppers([1, 2]))[0].shape == (1, 8)

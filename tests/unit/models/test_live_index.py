"""The index follows the catalogue: what came is found, what went is not, and who is reading is not disturbed."""

import numpy as np
import pytest

from protos.catalogue import NO_KEY, ItemState
from services.content_based import live as lives
from services.content_based import serve, train
from services.content_based.live import LiveIndex
from services.training import registry
from tests.support.small_dataset import N_ITEMS, a_dataset
from tests.unit.models.test_generators import ask

DATASET = a_dataset()
MUG = {"title": "mug number 100", "category": "Home > Kitchen", "brand": "brand1", "price": 20.0}
LAMP = {"title": "lamp number 7", "category": "Home > Light", "brand": "brand1", "price": 10.0}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    staged = registry.staging(models, "content_based")
    fitted = train.fit(DATASET, {}, 7, staged)
    return registry.publish(models, "content_based", "generator", staged, fitted, DATASET, 7)


@pytest.fixture
def content(artefact, tmp_path):
    return serve.load(artefact, serve.Resources(tmp_path))


def state(key, document, item_id="x"):
    return ItemState(item_id, 1, key, document)


def found(content, history, count=60, **about):
    return content.generate(ask(history, count=count, **about)).rows.row(0).tolist()


def test_a_new_item_is_proposed_like_those_it_resembles(content):
    assert N_ITEMS not in found(content, [0, 2, 4])

    content.live.take([state(N_ITEMS, MUG)])

    proposed = found(content, [0, 2, 4])
    assert N_ITEMS in proposed
    assert proposed.index(N_ITEMS) < min(proposed.index(key) for key in proposed if key % 2 and key < N_ITEMS)


def test_a_shopper_of_a_new_item_is_understood(content):
    content.live.take([state(N_ITEMS, MUG)])

    assert (np.asarray(found(content, [N_ITEMS], count=5)) % 2 == 0).all()


def test_what_has_no_key_yet_is_not_proposed(content):
    content.live.take([state(NO_KEY, MUG)])

    assert max(found(content, [0, 2, 4])) < N_ITEMS


def test_a_deleted_item_is_left_out_and_the_list_is_as_long_as_before(content):
    gone = found(content, [0, 2, 4], count=5)[0]

    content.live.take([state(gone, None)])

    proposed = found(content, [0, 2, 4], count=5)
    assert gone not in proposed
    assert len(proposed) == 5
    content.live.take([state(N_ITEMS, MUG), state(N_ITEMS, None)])
    assert N_ITEMS not in found(content, [0, 2, 4])


def test_an_item_that_became_another_is_found_among_its_new_kind(content):
    content.live.take([state(0, LAMP)])

    lamps = found(content, [1, 3, 5])
    assert lamps.index(0) < min(lamps.index(key) for key in (2, 4, 6))
    content.live.take(
        [state(0, {"title": "mug number 0", "category": "Home > Kitchen", "brand": "brand0", "price": 1.0})]
    )
    assert content.live.edition.alive is None, "and as it was, where it was"
    assert not content.live.edition.is_current.any()


def test_a_repricing_alone_moves_nothing(content):
    before = content.live.edition.row_of.copy()

    content.live.take(
        [state(2, {"title": "mug number 2", "category": "Home > Kitchen", "brand": "brand2", "price": 900})]
    )

    assert content.live.edition.row_of.tolist() == before.tolist()
    assert len(content.live.edition.added) == 0


def test_exclude_and_within_hold_for_new_items_too(content):
    content.live.take([state(N_ITEMS, MUG), state(N_ITEMS + 1, MUG)])
    queries = ask([0, 2, 4], count=60)
    fence = type(queries)(queries.counts, queries.shoppers, queries.exclude, lives.Rows.of([[N_ITEMS, 2]]))
    without = type(queries)(queries.counts, queries.shoppers, lives.Rows.of([[N_ITEMS]]), queries.within)

    assert set(content.generate(fence).rows.row(0).tolist()) == {N_ITEMS, 2}
    rest = content.generate(without).rows.row(0).tolist()
    assert N_ITEMS not in rest
    assert N_ITEMS + 1 in rest


def test_an_answer_is_distinct_falling_and_no_longer_than_asked(content):
    content.live.take([state(N_ITEMS + n, MUG) for n in range(30)])

    answer = content.generate(ask([0, 2, 4], count=7))

    assert len(set(answer.rows.row(0).tolist())) == 7
    assert (np.diff(answer.scores) <= 0).all()


def test_who_holds_an_edition_is_not_disturbed(content):
    content.live.take([state(N_ITEMS, MUG)])
    held = content.live.edition
    before = held.row_of.tolist(), held.added.tolist(), held.is_current.tolist(), held.alive

    content.live.take([state(N_ITEMS, LAMP), state(0, None), state(N_ITEMS + 5, MUG)])

    assert (held.row_of.tolist(), held.added.tolist(), held.is_current.tolist(), held.alive) == before


def test_rows_that_were_replaced_make_room_and_a_full_index_takes_no_more(content, monkeypatch):
    monkeypatch.setattr(lives, "MAX_ADDED", 3)
    for _ in range(3):
        content.live.take([state(N_ITEMS, MUG), state(N_ITEMS + 1, LAMP)])

    content.live.take([state(N_ITEMS + 2, MUG), state(N_ITEMS + 3, MUG)])

    proposed = found(content, [0, 2, 4])
    assert {N_ITEMS, N_ITEMS + 1, N_ITEMS + 2} <= set(proposed)
    assert N_ITEMS + 3 not in proposed


def test_an_item_that_is_told_again_keeps_its_row(content):
    content.live.take([state(N_ITEMS, MUG), state(N_ITEMS + 1, LAMP)])
    before = content.live.edition.added_keys.tolist()

    content.live.take([state(N_ITEMS, MUG), state(N_ITEMS + 1, MUG)])

    assert content.live.edition.added_keys.tolist() == [*before, N_ITEMS + 1]
    assert content.live.edition.is_current.tolist() == [True, False, True]


# An import of a million items kept the service busy with encoding nine hundred thousand it had no room for.
def test_a_full_index_encodes_whom_it_has_and_nobody_else(content, monkeypatch):
    monkeypatch.setattr(lives, "MAX_ADDED", 2)
    content.live.take([state(N_ITEMS, MUG), state(N_ITEMS + 1, MUG)])
    encoder, asked = content.live._encoder, []

    class Counting:
        def vectors(self, described):
            asked.append(len(described.titles))
            return encoder.vectors(described)

    monkeypatch.setattr(content.live, "_encoder", Counting())
    content.live.take([state(N_ITEMS + n, MUG) for n in range(2, 50)])
    assert asked == []

    content.live.take([state(N_ITEMS, None), state(N_ITEMS + 50, MUG)])
    content.live.take([state(N_ITEMS + 51, MUG)])

    assert asked == [0, 1]
    proposed = found(content, [0, 2, 4])
    assert N_ITEMS + 51 in proposed, "there is room again"
    assert N_ITEMS not in proposed


def test_all_can_be_forgotten(content):
    before = found(content, [0, 2, 4])
    content.live.take([state(N_ITEMS, MUG), state(0, None)])

    content.live.begin_anew()

    assert found(content, [0, 2, 4]) == before


@pytest.mark.parametrize("document", [{"title": 5, "price": "dear"}, {}, {"title": "zzz"}])
def test_a_strange_document_says_nothing_and_breaks_nothing(content, document):
    content.live.take([state(N_ITEMS, document), state(N_ITEMS + 1, MUG)])

    proposed = found(content, [0, 2, 4])
    assert N_ITEMS not in proposed
    assert N_ITEMS + 1 in proposed


def test_an_artefact_without_encoder_stays_as_it_was_trained(content):
    still = LiveIndex(content.live.edition.trained, N_ITEMS, None)

    still.take([state(0, None)])

    assert still.edition.alive is None

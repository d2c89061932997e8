"""A catalogue that changes while it runs: old facts or new ones, never a mixture, and keys for ever."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.catalogue import MAX_LEAP, MAX_TOUCHED_UP, Catalogue, documents_of
from orchestrator.core.model import ItemFilter
from protos.catalogue import NO_KEY, ItemState

IDS = ["mug", "pot", "hoe"]
CHEAP = ItemFilter(price_max=10.0)
RED = ItemFilter(attributes=(("colour", ("red",)),))


@pytest.fixture
def catalogue():
    columns = {
        "title": ["Mug", "Pot", "Hoe"],
        "description": ["For tea", None, None],
        "category": ["Home > Kitchen", "Home > Kitchen", "Garden"],
        "price": [5.0, 20.0, 8.0],
        "in_stock": [True, True, False],
        "attributes": ['{"colour": "red", "size": 3}', None, None],
    }
    return Catalogue(IDS, columns, np.asarray([2, 1, 0], np.int32))


def state(item_id, version=1, key=NO_KEY, **document):
    return ItemState(item_id, version, key, document or None)


def which(catalogue, wanted):
    return {catalogue.id_of(int(key)) for key in np.flatnonzero(catalogue.allowed(wanted))}


def popular(catalogue):
    return [catalogue.id_of(int(key)) for key in catalogue.popular]


def keys(*of_items):
    return np.asarray(of_items, np.int32)


def test_a_document_is_what_the_data_directory_says(catalogue):
    assert catalogue.document("mug") == {
        "title": "Mug",
        "description": "For tea",
        "category": "Home > Kitchen",
        "price": 5.0,
        "in_stock": True,
        "attributes": {"colour": "red", "size": 3},
    }
    assert catalogue.document("never listed") is None
    assert catalogue.version_of("mug") == 0


def test_every_fact_of_a_changed_item_is_new(catalogue):
    before = catalogue.kinds(keys(0, 1)).copy()

    catalogue.apply([state("mug", title="Cup", category="Toys", brand="Alba", price=2.5, in_stock=False)])

    assert catalogue.properties(0) == {"title": "Cup", "category": "Toys", "brand": "Alba", "price": 2.5}
    facts = catalogue.facts(keys(0, 1))
    assert facts.price.tolist() == [2.5, 20.0]
    assert facts.in_stock.tolist() == [False, True]
    assert catalogue.kinds(keys(0, 1))[0].tolist() != before[0].tolist()
    assert catalogue.kinds(keys(0, 1))[1].tolist() == before[1].tolist()
    assert catalogue.document("mug") == {
        "title": "Cup",
        "category": "Toys",
        "brand": "Alba",
        "price": 2.5,
        "in_stock": False,
    }
    assert (catalogue.version_of("mug"), catalogue.n_changes) == (1, 1)


def test_remembered_masks_know_of_changes(catalogue):
    assert which(catalogue, CHEAP) == {"mug", "hoe"}
    assert which(catalogue, RED) == {"mug"}

    catalogue.apply([state("mug", title="Mug", price=50), state("pot", 2, title="Pot", attributes={"colour": "red"})])

    assert which(catalogue, CHEAP) == {"hoe"}
    assert which(catalogue, RED) == {"pot"}


def test_a_mask_that_a_request_holds_is_left_as_it_is(catalogue):
    held = catalogue.allowed(CHEAP)

    catalogue.apply([state("mug", title="Mug", price=50)])

    assert catalogue.allowed(CHEAP).tolist() == [False, False, True]
    assert held.tolist() == [True, False, True]


def test_a_mask_that_missed_too_many_changes_is_made_anew(catalogue):
    assert which(catalogue, CHEAP) == {"mug", "hoe"}

    catalogue.apply(state("mug", n, title="Mug", price=50) for n in range(1, MAX_TOUCHED_UP + 10))
    catalogue.apply([state("hoe", MAX_TOUCHED_UP + 10, title="Hoe", price=60)])

    assert which(catalogue, CHEAP) == set()


def test_sold_out_restocked_and_deleted_items_leave_the_popular_order_and_come_back(catalogue):
    assert popular(catalogue) == ["pot", "mug"]

    catalogue.apply([state("hoe", 1, title="Hoe"), state("pot", 2)])

    assert popular(catalogue) == ["hoe", "mug"]
    assert not catalogue.is_listed(1)
    assert catalogue.document("pot") is None
    assert catalogue.properties(1) == {}
    catalogue.apply([state("pot", 3, title="Pot")])
    assert popular(catalogue) == ["hoe", "pot", "mug"]


def test_an_older_change_and_the_same_again_change_nothing(catalogue):
    catalogue.apply([state("mug", 5, title="Cup")])

    catalogue.apply([state("mug", 4, title="Old"), state("mug", 5, title="Cup")])

    assert catalogue.properties(0)["title"] == "Cup"
    assert catalogue.n_changes == 1


def test_a_new_item_waits_for_its_key_and_is_then_like_any_other(catalogue):
    catalogue.apply([state("toy", 1, title="Toy", price=3.0)])

    assert catalogue.key_of("toy") is None
    assert catalogue.document("toy") == {"title": "Toy", "price": 3.0}
    assert catalogue.size == 3

    catalogue.apply([state("toy", 1, key=3, title="Toy", price=3.0)])

    assert (catalogue.key_of("toy"), catalogue.id_of(3), catalogue.size) == (3, "toy", 4)
    assert popular(catalogue) == ["pot", "mug", "toy"], "behind all that anybody ever touched"
    assert which(catalogue, CHEAP) == {"mug", "hoe", "toy"}
    assert catalogue.facts(keys(3)).price.tolist() == [3.0]


def test_a_hundred_new_items_are_all_there(catalogue):
    catalogue.allowed(CHEAP)

    catalogue.apply(state(f"n{n}", n, key=2 + n, title=f"N {n}", price=float(n)) for n in range(1, 101))

    assert catalogue.size == 103
    assert len(catalogue.popular) == 102
    assert catalogue.facts(keys(102)).price.tolist() == [100.0]
    assert catalogue.allowed(CHEAP).sum() == 12
    assert catalogue.marks(keys(50, 102)).likeness(0)[1] < 1


def test_keys_that_were_left_out_have_no_item_until_it_is_told(catalogue):
    catalogue.apply([state("late", 1, key=5, title="Late")])

    assert catalogue.size == 6
    assert not catalogue.is_listed(4)
    assert popular(catalogue) == ["pot", "mug", "late"]

    catalogue.apply([state("between", 2, key=4, title="Between")])

    assert catalogue.id_of(4) == "between"
    assert popular(catalogue) == ["pot", "mug", "between", "late"]


@pytest.mark.parametrize("key", [0, -7, 3 + MAX_LEAP])
def test_a_key_that_cannot_be_true_is_refused_and_told(catalogue, key):
    with capture_logs() as lines:
        catalogue.apply([state("toy", 1, key=key, title="Toy")])

    assert [line["event"] for line in lines] == ["item_key_refused"]
    assert catalogue.key_of("toy") is None
    assert catalogue.id_of(0) == "mug"
    assert catalogue.size == 3


def test_an_item_that_changed_is_described_anew(catalogue):
    assert catalogue.marks(keys(0, 1)).likeness(0)[1] < 0.9

    catalogue.apply([state("mug", 1, title="Pot", category="Home > Kitchen", price=20.0)])

    assert catalogue.marks(keys(0, 1)).likeness(0)[1] == pytest.approx(1, abs=1e-5)


def test_the_digest_is_of_what_models_know(catalogue):
    grown = Catalogue([*IDS, "toy"], {}, np.asarray([0], np.int32), n_trained=3)

    assert grown.digest == catalogue.digest


def test_items_can_be_put_back_to_what_the_data_directory_says(catalogue, tmp_path):
    rows = {"item_id": ["pot", "mug"], "title": ["Pot", "Mug"], "price": [20.0, None], "attributes": ['{"a": 1}', None]}
    pq.write_table(pa.table(rows), tmp_path / "items.parquet")
    catalogue.apply([state("mug", 1, title="Cup"), state("hoe", 2), state("toy", 3, title="Toy")])

    catalogue.put_back(documents_of(tmp_path, catalogue.changed()))

    assert catalogue.document("mug") == {"title": "Mug"}
    assert catalogue.document("hoe") is None
    assert catalogue.document("toy") is None
    assert catalogue.changed() == {}
    assert documents_of(tmp_path, ["pot"]) == {"pot": {"title": "Pot", "price": 20.0, "attributes": {"a": 1}}}


def test_when_numbers_begin_anew_any_change_is_newer(catalogue):
    catalogue.apply([state("mug", 9, title="Cup")])

    catalogue.forget_versions()
    catalogue.apply([state("mug", 1, title="Beaker")])

    assert catalogue.properties(0)["title"] == "Beaker"
    assert catalogue.version_of("mug") == 1

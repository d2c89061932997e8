"""The contract of a Catalogue."""

import numpy as np
import pytest

from orchestrator.core.model import ItemFilter
from protos import vocabulary

IDS = ["mug", "pot", "hoe", "toy", "gone"]
ROWS = {
    "item_id": ["toy", "mug", "pot", "hoe"],  # not in key order, and one key is not listed any more
    "title": ["Toy", "Mug", "Pot", "Hoe"],
    "category": [None, "Home > Kitchen > Mugs", "Home > Kitchen", "Home > Garden"],
    "brand": ["Alba", "Alba", None, "Brix"],
    "price": [20.0, 5.0, None, 10.0],
    "in_stock": [True, None, False, True],
    "attributes": ['{"colour": "red", "size": 3, "parent": "P1"}', None, "not json", '{"parent": "P1"}'],
}
POPULAR = [4, 3, 1, 0, 2]


class CatalogueContract:
    """A subclass gives `catalogue`, of the items IDS with the facts ROWS, popular in the order POPULAR."""

    def allowed(self, catalogue, **wanted):
        mask = catalogue.allowed(ItemFilter(**wanted))
        assert mask.dtype == np.bool_
        assert mask.shape == (catalogue.size,)
        return {catalogue.id_of(int(key)) for key in np.flatnonzero(mask)}

    def test_ids_and_keys_are_each_others_inverse(self, catalogue):
        assert catalogue.size == len(IDS)
        assert [catalogue.id_of(key) for key in range(catalogue.size)] == IDS
        assert [catalogue.key_of(item_id) for item_id in IDS] == list(range(len(IDS)))
        assert catalogue.key_of("never listed") is None

    def test_the_digest_is_the_vocabularys(self, catalogue):
        assert catalogue.digest == vocabulary.digest(IDS)

    def test_popular_is_every_item_that_may_be_shown_best_first(self, catalogue):
        assert catalogue.popular.tolist() == [3, 0, 2]
        assert catalogue.popular.dtype == np.int32

    def test_facts_are_aligned_with_the_keys_asked_for(self, catalogue):
        facts = catalogue.facts(np.asarray([3, 1, 0, 4, 3], np.int32))

        assert facts.in_stock.tolist() == [True, False, True, False, True]
        np.testing.assert_array_equal(facts.price, np.asarray([20, np.nan, 5, np.nan, 20], np.float32))
        known = facts.category >= 0
        assert known.tolist() == [False, True, True, False, False]

    def test_stock_nobody_told_us_of_may_be_shown(self, catalogue):
        assert catalogue.facts(np.asarray([0], np.int32)).in_stock.tolist() == [True]

    def test_several_are_in_stock_when_each_of_them_is(self, catalogue):
        for keys in ([0], [0, 1, 2, 3, 4], [0, 2, 3], [2], []):
            wanted = np.array(keys, np.int32)

            assert catalogue.are_in_stock(wanted) is bool(catalogue.facts(wanted).in_stock.all())

    def test_no_keys_have_no_facts(self, catalogue):
        facts = catalogue.facts(np.empty(0, np.int32))

        assert len(facts.in_stock) == len(facts.price) == len(facts.category) == 0

    def test_kinds_tell_which_items_share_a_category_a_brand_or_a_parent(self, catalogue):
        category, brand, parent = catalogue.kinds(np.arange(catalogue.size, dtype=np.int32)).T

        assert len({*category[:3].tolist()}) == 3
        assert (category[3:] == -1).all()
        assert brand[0] == brand[3] >= 0
        assert brand[2] not in (-1, brand[0])
        assert parent[2] == parent[3] >= 0
        assert parent[[0, 1, 4]].tolist() == [-1] * 3

    def test_no_keys_have_no_kinds_and_no_marks(self, catalogue):
        none = np.empty(0, np.int32)

        assert catalogue.kinds(none).shape == (0, 3)
        assert len(catalogue.marks(none).tokens) == 0

    def test_marks_tell_how_alike_the_items_asked_for_are(self, catalogue):
        mug, pot, gone = catalogue.marks(np.asarray([0, 1, 4], np.int32)).likeness(0).tolist()

        assert mug == pytest.approx(1)
        assert 0 < pot < 1, "both are of the kitchen"
        assert gone == 0

    def test_a_mask_that_is_kept_says_the_same_as_one_that_is_shared(self, catalogue):
        wanted = ItemFilter(brands=("Alba",))

        assert catalogue.mask(wanted).tolist() == catalogue.allowed(wanted).tolist()
        assert catalogue.mask(wanted) is not catalogue.mask(wanted)

    def test_an_empty_filter_allows_everything(self, catalogue):
        assert self.allowed(catalogue) == set(IDS)

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ({"categories": ("Home > Kitchen",)}, {"mug", "pot"}),
            ({"categories": ("Home",)}, {"mug", "pot", "hoe"}),
            ({"categories": ("Home > Kit",)}, set()),
            ({"categories": ("Home > Garden", "Home > Kitchen > Mugs")}, {"hoe", "mug"}),
            ({"brands": ("Alba",)}, {"mug", "toy"}),
            ({"brands": ("alba",)}, set()),
            ({"price_min": 10.0}, {"hoe", "toy"}),
            ({"price_max": 10.0}, {"mug", "hoe"}),
            ({"price_min": 6.0, "price_max": 19.0}, {"hoe"}),
            ({"in_stock": True}, {"mug", "hoe", "toy"}),
            ({"in_stock": False}, set(IDS)),
            ({"attributes": (("colour", ("red", "blue")),)}, {"toy"}),
            ({"attributes": (("size", ("3",)),)}, {"toy"}),
            ({"attributes": (("colour", ("red",)), ("size", ("4",)))}, set()),
            ({"brands": ("Alba",), "price_max": 10.0}, {"mug"}),
        ],
    )
    def test_every_wish_of_a_filter_is_respected_and_all_together(self, catalogue, wanted, expected):
        assert self.allowed(catalogue, **wanted) == expected
        assert self.allowed(catalogue, **wanted) == expected, "and a remembered mask says the same"

    def test_what_a_page_shows_leaves_out_what_is_not_known(self, catalogue):
        assert catalogue.properties(0) == {
            "title": "Mug",
            "category": "Home > Kitchen > Mugs",
            "brand": "Alba",
            "price": 5.0,
        }
        assert catalogue.properties(1) == {"title": "Pot", "category": "Home > Kitchen"}
        assert catalogue.properties(4) == {}

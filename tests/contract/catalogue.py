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
    "attributes": ['{"colour": "red", "size": 3}', None, "not json", "[1]"],
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

    def test_no_keys_have_no_facts(self, catalogue):
        facts = catalogue.facts(np.empty(0, np.int32))

        assert len(facts.in_stock) == len(facts.price) == len(facts.category) == 0

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

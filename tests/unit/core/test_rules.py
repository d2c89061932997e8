"""Rules: whose window is open, whom they fit, and what all that apply amount to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Placement
from orchestrator.core.rules import (
    MAX_EFFECTS,
    NOTHING,
    Action,
    Feature,
    Pin,
    Reach,
    Rule,
    Rulebook,
    Shopper,
    When,
)
from tests.support.builders import IMPRESSION, a_query, a_user, changed

SIZE = 6


def a_rule(name="r", action=Action.HIDE, **about):
    return Rule(name, action, **about)


def reach(rule, *keys, columns=()):
    mask = np.zeros(SIZE, np.bool_)
    mask[list(keys)] = True
    return Reach(rule, np.asarray(keys, np.int32), mask, columns)


def applied(*reaches, query=None, user=None, now=0.0):
    query = query or a_query()
    return Rulebook(reaches).in_force(query.placement, now).applied(query, user or a_user((1,)))


def names(found):
    return [reach.rule.name for reach in found.reaches]


class TestWindows:
    def test_a_rule_holds_from_its_first_second_to_just_before_its_last(self):
        book = Rulebook([reach(a_rule(opens_at=10.0, ends_at=20.0), 1)])

        held = [now for now in (9.99, 10.0, 19.99, 20.0) if names(book.in_force(Placement.HOME, now))]

        assert held == [10.0, 19.99]

    def test_a_rule_without_a_window_always_holds(self):
        book = Rulebook([reach(a_rule(), 1)])

        assert all(book.in_force(Placement.HOME, now).reaches for now in (-1e12, 0.0, 1e12))

    @given(
        windows=st.lists(
            st.tuples(st.sampled_from([-math.inf, 0.0, 1.0, 2.0, 3.0]), st.sampled_from([1.0, 2.0, 4.0, math.inf])),
            max_size=5,
        ),
        moments=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 9.0]), min_size=1, max_size=12),
    )
    def test_at_any_moment_just_the_rules_whose_window_is_open_are_in_force(self, windows, moments):
        rules = [a_rule(f"r{n}", opens_at=opens, ends_at=ends) for n, (opens, ends) in enumerate(windows)]
        book = Rulebook([reach(rule, 1) for rule in rules])

        for now in moments:  # in any order: clocks are set back
            expected = [rule.name for rule in rules if rule.opens_at <= now < rule.ends_at]
            assert names(book.in_force(Placement.HOME, now)) == expected

    def test_the_digest_changes_when_a_window_opens_or_closes_and_comes_back(self):
        book = Rulebook([reach(a_rule("a", ends_at=10.0), 1), reach(a_rule("b", opens_at=5.0, ends_at=10.0), 2)])

        digests = [book.in_force(Placement.HOME, now).digest for now in (0.0, 5.0, 9.0, 10.0, 0.0)]

        assert digests[0] not in digests[1:4]
        assert digests[1] == digests[2] != digests[3]
        assert digests[3] == "", "without rules slates have the names they would have had"
        assert digests[4] == digests[0]

    def test_the_digest_is_of_what_the_rules_say(self):
        one, other = (Rulebook([reach(a_rule(factor=factor), 1)]) for factor in (2.0, 3.0))

        assert one.in_force(Placement.HOME, 0.0).digest != other.in_force(Placement.HOME, 0.0).digest

    def test_a_shop_without_rules_has_none_in_force(self):
        assert applied() is NOTHING


class TestWhomARuleIsAbout:
    @pytest.mark.parametrize(
        ("when", "about", "fits"),
        [
            (When(), {}, True),
            (When(placements=(Placement.CART,)), {}, False),
            (When(placements=(Placement.CART, Placement.HOME)), {}, True),
            (When(devices=("mobile",)), {"device": "mobile"}, True),
            (When(devices=("mobile",)), {"device": "desktop"}, False),
            (When(devices=("mobile",)), {}, False),
            (When(categories=("Home",)), {"category": "Home"}, True),
            (When(categories=("Home",)), {"category": "Home > Kitchen"}, True),
            (When(categories=("Home",)), {"category": "Homeware"}, False),
            (When(categories=("Home",)), {}, False),
            (When(devices=("mobile",), categories=("Home",)), {"device": "mobile"}, False),
        ],
    )
    def test_all_that_it_asks_of_the_request_must_hold(self, when, about, fits):
        found = applied(reach(a_rule(when=when), 1), query=a_query(**about))

        assert names(found) == ["r"] * fits

    @pytest.mark.parametrize(
        ("shopper", "of_known", "of_new"),
        [(Shopper.ANY, True, True), (Shopper.KNOWN, True, False), (Shopper.NEW, False, True)],
    )
    def test_known_shoppers_have_a_history(self, shopper, of_known, of_new):
        rule = reach(a_rule(when=When(shopper=shopper)), 1)

        assert names(applied(rule, user=a_user((3,)))) == ["r"] * of_known
        assert names(applied(rule, user=a_user())) == ["r"] * of_new

    def test_being_shown_something_makes_nobody_known(self):
        rule = reach(a_rule(when=When(shopper=Shopper.NEW)), 1)
        shown = changed(a_user((3,)), history_types=np.asarray([IMPRESSION], np.uint8))

        assert names(applied(rule, user=shown)) == ["r"]

    @pytest.mark.parametrize(
        ("feature", "column", "fits"),
        [
            (Feature("segment", values=("gold", "vip")), 0, True),
            (Feature("segment", values=("vip",)), 0, False),
            (Feature("segment", values=("vip",)), 7, False),
            (Feature("orders", at_least=3), 0, True),
            (Feature("orders", at_least=4), 0, False),
            (Feature("orders", at_least=1, at_most=3), 0, True),
            (Feature("orders", at_most=2), 0, False),
            (Feature("missing", at_least=-1e9), 1, False),
        ],
    )
    def test_features_are_compared_in_their_column_and_missing_ones_fit_nothing(self, feature, column, fits):
        user = a_user((1,), numeric=(3.0, math.nan), categorical=("gold",))

        found = applied(reach(a_rule(when=When(features=(feature,))), 1, columns=(column,)), user=user)

        assert names(found) == ["r"] * fits

    def test_what_can_only_be_told_of_the_shopper_is_known_beforehand(self):
        plain = Rulebook([reach(a_rule(when=When(devices=("mobile",))), 1)])
        personal = Rulebook([reach(a_rule(when=When(shopper=Shopper.NEW)), 1)])

        assert not plain.in_force(Placement.HOME, 0.0).ask_the_shopper
        assert personal.in_force(Placement.HOME, 0.0).ask_the_shopper

    def test_a_ranking_is_the_callers_own_list(self):
        assert applied(reach(a_rule(), 1), query=a_query(only_keys=(1, 2))) is NOTHING


class TestWhatTheyAmountTo:
    def test_boosts_divide_and_buries_multiply_the_place_and_places_are_added(self):
        found = applied(
            reach(a_rule("a", Action.BOOST, factor=2.0), 1, 2),
            reach(a_rule("b", Action.BURY, factor=4.0, places=3.0), 2, 3),
            reach(a_rule("c", Action.BOOST, places=5.0), 3),
        )

        assert found.factor.tolist() == [1, 0.5, 2, 4, 1, 1]
        assert found.shift.tolist() == [0, 0, 3, -2, 0, 0]
        assert found.shown is None

    def test_what_any_rule_hides_is_hidden(self):
        found = applied(reach(a_rule("a"), 1), reach(a_rule("b"), 1, 4))

        assert found.shown.tolist() == [True, False, True, True, False, True]
        assert found.factor is None

    def test_hidden_and_filtered_items_are_both_invisible(self):
        found, allowed = applied(reach(a_rule(), 1)), np.asarray([True, True, False, True, True, True])

        assert found.visible(allowed).tolist() == [True, False, False, True, True, True]
        assert found.visible(None).tolist() == found.shown.tolist()
        assert NOTHING.visible(allowed) is allowed
        assert NOTHING.visible(None) is None

    def test_the_items_of_a_pin_follow_each_other_and_rules_keep_their_order(self):
        found = applied(reach(a_rule("a", Action.PIN, position=3), 5, 2), reach(a_rule("b", Action.PIN, position=1), 4))

        assert found.pins == (Pin(3, 5), Pin(4, 2), Pin(1, 4))

    def test_the_rules_that_touch_an_item_are_named_in_order(self):
        found = applied(
            reach(a_rule("a", Action.BOOST, factor=2.0), 1, 2),
            reach(a_rule("b", Action.PIN), 2),
            reach(a_rule("c", Action.BURY, factor=2.0), 3),
        )

        assert found.touching(2) == ("a", "b")
        assert found.touching(0) == ()

    def test_the_same_combination_is_put_together_once_and_only_so_many_are_kept(self):
        reaches = [reach(a_rule(f"r{n}", when=When(devices=(f"d{n}",))), 1) for n in range(MAX_EFFECTS + 5)]
        in_force = Rulebook(reaches).in_force(Placement.HOME, 0.0)

        found = [in_force.applied(a_query(device=f"d{n}"), a_user()) for n in range(MAX_EFFECTS + 5)]

        assert in_force.applied(a_query(device="d20"), a_user()) is found[20]
        assert in_force.applied(a_query(device="d0"), a_user()) is not found[0], "forgotten, and made anew"
        assert len(in_force._effects) == MAX_EFFECTS

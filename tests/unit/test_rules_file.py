"""The file of rules: what it may say, how a wrong one is refused, and how a new one is taken over."""

import math
import os
from datetime import UTC, datetime

import pytest

from orchestrator.adapters.rules_file import MAX_RULES, RulesError, RulesFile, bound, parse, read
from orchestrator.core.model import ItemFilter, Placement
from orchestrator.core.rules import Action, Feature, Rule, Shopper, When
from orchestrator.telemetry import new_metrics
from protos.catalogue import ItemState
from tests.support.worlds import BRANDS, a_catalogue

PIN = '[[rules]]\nname = "p"\naction = "pin"\nposition = 2\nitems = { ids = ["i03"] }\n'
HIDE = '[[rules]]\nname = "h"\naction = "hide"\nitems = { brands = ["Dune"] }\n'


def a_rule(text):
    (rule,) = parse(f'[[rules]]\nname = "r"\n{text}')
    return rule


def the_refusal(text):
    with pytest.raises(RulesError) as refused:
        parse(text, "rules.toml")
    return str(refused.value)


def test_a_rule_with_everything_is_read_as_it_is_written():
    rule = a_rule(
        """
action = "boost"
factor = 2
places = 1.5
from = 2026-03-01T00:00:00Z
until = 2026-03-02T02:00:00+02:00
[rules.items]
categories = ["Home > Kitchen"]
brands = ["Alba"]
price_min = 5
price_max = 20.5
attributes = { colour = ["red", "blue"], size = ["L"] }
[rules.when]
placements = ["home", "category"]
categories = ["Home"]
devices = ["mobile"]
shopper = "known"
features = { view__segment = ["gold"], view__orders = { min = 3 } }
"""
    )

    assert rule == Rule(
        "r",
        Action.BOOST,
        items=ItemFilter(
            ("Home > Kitchen",), ("Alba",), 5.0, 20.5, None, (("colour", ("red", "blue")), ("size", ("L",)))
        ),
        when=When(
            (Placement.HOME, Placement.CATEGORY),
            ("Home",),
            ("mobile",),
            Shopper.KNOWN,
            (Feature("view__segment", values=("gold",)), Feature("view__orders", at_least=3.0)),
        ),
        opens_at=datetime(2026, 3, 1, tzinfo=UTC).timestamp(),
        ends_at=datetime(2026, 3, 2, tzinfo=UTC).timestamp(),
        factor=2.0,
        places=1.5,
    )


def test_what_a_rule_leaves_out_asks_for_nothing():
    rule = a_rule('action = "hide"\nitems = { ids = ["a", "b", "a"] }')

    assert rule == Rule("r", Action.HIDE, item_ids=("a", "b"))
    assert (rule.opens_at, rule.ends_at) == (-math.inf, math.inf)


def test_rules_keep_their_order_and_an_empty_file_has_none():
    assert [rule.name for rule in parse(HIDE + PIN)] == ["h", "p"]
    assert parse("") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rules]", ["not TOML"]),
        ('[[pins]]\nname = "a"', ["'pins'", "[[rules]]"]),
        ("rules = 3", ["[[rules]]"]),
        ("rules = [3]", ["rule 1"]),
        ('[[rules]]\naction = "hide"\nitems = { ids = ["a"] }', ["rule 1", "name"]),
        (PIN.replace("position = 2\n", ""), ["rule 'p'", "position"]),
        (PIN.replace("2", "0"), ["rule 'p'", "position", "found 0"]),
        (PIN.replace("2", '"2"'), ["rule 'p'", "position", "found '2'"]),
        (PIN.replace('ids = ["i03"]', 'brands = ["Alba"]'), ["rule 'p'", "items.ids"]),
        (PIN.replace("ids =", "idz ="), ["rule 'p'", "items.idz"]),
        (PIN.replace('["i03"]', "[]"), ["rule 'p'", "items.ids"]),
        (PIN + "factor = 2", ["rule 'p'", "factor"]),
        (PIN.replace('"p"', '"Nice Name"'), ["rule 'Nice Name'", "name"]),
        (PIN.replace('"p"', '"fatigue"'), ["rule 'fatigue'", "choose another"]),
        (PIN + PIN, ["rule 'p'", "used twice"]),
        (PIN.replace('"pin"', '"push"'), ["rule 'p'", "action", "found 'push'"]),
        (HIDE + "position = 1", ["rule 'h'", "position"]),
        (HIDE.replace("hide", "boost"), ["rule 'h'", "factor", "places"]),
        (HIDE.replace("hide", "bury") + "factor = 1", ["rule 'h'", "factor", "greater than 1"]),
        (HIDE.replace("hide", "bury") + "places = -1", ["rule 'h'", "places"]),
        (HIDE.replace("hide", "bury") + "factor = inf", ["rule 'h'", "factor"]),
        (HIDE.replace('brands = ["Dune"]', ""), ["rule 'h'", "items", "needs ids"]),
        (HIDE.replace('["Dune"]', '["Dune"], ids = ["a"]'), ["rule 'h'", "items", "stand alone"]),
        (HIDE.replace('["Dune"]', '["Dune"], price_min = 5, price_max = 3'), ["rule 'h'", "price_max = 3"]),
        (HIDE + "from = 2026-03-01T00:00:00", ["rule 'h'", "from", "zone"]),
        (HIDE + 'from = "soon"', ["rule 'h'", "from"]),
        (HIDE + "from = 2026-03-02T00:00:00Z\nuntil = 2026-03-02T00:00:00Z", ["rule 'h'", "not after"]),
        (HIDE + 'when = { placements = ["hom"] }', ["rule 'h'", "when.placements.0", "found 'hom'"]),
        (HIDE + "when = { placements = [] }", ["rule 'h'", "when.placements"]),
        (HIDE + 'when = { shopper = "rich" }', ["rule 'h'", "when.shopper"]),
        (HIDE + "when = { features = { a = {} } }", ["rule 'h'", "when.features.a", "min or max"]),
        (HIDE + "when = { features = { a = { min = 2, max = 1 } } }", ["rule 'h'", "when.features.a", "below"]),
        (HIDE + "shop = 3", ["rule 'h'", "shop"]),
        ("".join(HIDE.replace('"h"', f'"h{n}"') for n in range(MAX_RULES + 1)), [str(MAX_RULES)]),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_by_name_and_key(text, said):
    message = the_refusal(text)

    assert message.startswith("rules.toml: ")
    for part in said:
        assert part in message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RulesError, match=r"no rules file at .*none\.toml"):
        read(tmp_path / "none.toml")


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(RulesError, match=r"rules\.toml cannot be read"):
        read(path)


class TestWhatARuleReaches:
    def test_ids_are_found_in_their_order_and_unknown_ones_are_told(self):
        (reach,) = bound(parse(PIN.replace('"i03"', '"i07", "gone", "i03"')), a_catalogue()).reaches

        assert reach.keys.tolist() == [7, 3]
        assert reach.mask.nonzero()[0].tolist() == [3, 7]
        assert reach.unknown == ("gone",)

    def test_a_description_reaches_what_a_filter_of_the_same_words_allows(self):
        (reach,) = bound(parse(HIDE), a_catalogue()).reaches

        assert reach.mask.nonzero()[0].tolist() == [key for key in range(40) if BRANDS[key % 5] == "Dune"]
        assert len(reach.keys) == 0

    def test_features_are_looked_up_in_the_columns_of_their_kind(self):
        when = 'when = { features = { a__word = ["x"], a__number = { max = 3 } } }'

        (reach,) = bound(parse(HIDE + when), a_catalogue(), ["b__n", "a__number"], ["a__word"]).reaches

        assert reach.columns == (0, 1)

    @pytest.mark.parametrize(
        ("condition", "said"),
        [
            ('a__number = ["x"]', "is a number: give min or max"),
            ("a__word = { min = 1 }", "is a word: give a list"),
            ("a__other = { min = 1 }", "is not read for users; known: a__number, a__word"),
        ],
    )
    def test_a_feature_that_is_not_there_or_of_the_other_kind_is_refused(self, condition, said):
        rules = parse(HIDE + f"when = {{ features = {{ {condition} }} }}")

        with pytest.raises(RulesError, match=r"rule 'h': when\.features\.a__") as refused:
            bound(rules, a_catalogue(), ["a__number"], ["a__word"])

        assert said in str(refused.value)


class TestAFileThatChanges:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "rules.toml"
        path.write_text(HIDE)
        return path

    @pytest.fixture
    def metrics(self):
        return new_metrics()

    @pytest.fixture
    def rules(self, path, metrics):
        return RulesFile(path, lambda rules: bound(rules, a_catalogue()), metrics)

    @staticmethod
    def names(rules):
        return [reach.rule.name for reach in rules().reaches]

    @staticmethod
    def loads(metrics, outcome):
        return metrics.rule_loads.labels(outcome)._value.get()

    def test_a_new_file_is_taken_over_as_a_whole(self, rules, path, metrics):
        before = rules()
        path.write_text(HIDE + PIN)

        rules.look()

        assert self.names(rules) == ["h", "p"]
        assert len(before) == 1, "who is using the old one goes on with it"
        assert self.loads(metrics, "taken") == 1

    def test_what_rules_reach_is_looked_up_again_when_the_catalogue_has_changed(self, path, metrics):
        catalogue = a_catalogue()
        rules = RulesFile(path, lambda rules: bound(rules, catalogue), metrics, lambda: catalogue.n_changes)
        before = rules()
        catalogue.apply([ItemState("i40", 1, 40, {"title": "New"})])

        rules.look()

        assert [len(book.reaches[0].mask) for book in (before, rules())] == [40, 41]
        assert rules.look() is None
        assert self.loads(metrics, "taken") == 0

    def test_a_file_that_did_not_change_is_not_read_again(self, rules):
        before = rules()

        rules.look()

        assert rules() is before

    @pytest.mark.parametrize("text", ["[[rules]", PIN + PIN])
    def test_a_wrong_file_changes_nothing_and_is_told_once(self, rules, path, metrics, text):
        path.write_text(text)

        rules.look()
        rules.look()

        assert self.names(rules) == ["h"]
        assert self.loads(metrics, "refused") == 1

    def test_a_file_that_is_gone_changes_nothing_and_one_that_is_back_counts(self, rules, path, metrics):
        path.unlink()
        rules.look()
        assert self.names(rules) == ["h"]
        assert self.loads(metrics, "refused") == 1

        path.write_text(PIN)
        rules.look()
        assert self.names(rules) == ["p"]

    def test_another_file_of_the_same_size_moved_over_it_in_the_same_moment_is_seen(self, rules, path, tmp_path):
        other = tmp_path / "other.toml"
        other.write_text(HIDE.replace('"h"', '"g"'))
        stamp = path.stat()
        os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        other.replace(path)

        rules.look()

        assert self.names(rules) == ["g"]

    def test_nobody_starts_with_a_wrong_file(self, path, metrics):
        path.write_text(PIN + PIN)

        with pytest.raises(RulesError, match="used twice"):
            RulesFile(path, lambda rules: bound(rules, a_catalogue()), metrics)

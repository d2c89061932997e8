"""What the gate refuses, with which words, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.training.gate import Figures, HeldOut, Paired, Speed, Variety, decide

GOOD = Figures(
    has_champion=True,
    candidate=HeldOut(0.40, 0.35, 400),
    champion=HeldOut(0.39, 0.34, 400),
    paired=(Paired("rebuy", +0.01, +0.002, +0.018, 1_000),),
    speeds=(Speed("collaborative_filtering", 1.2, 40.0), Speed("reranking", 4.0, 35.0)),
    varieties=(Variety("collaborative_filtering", 900, 1_000, 200),),
)


def test_a_candidate_that_is_as_good_in_everything_is_admitted():
    verdict = decide(GOOD)

    assert verdict.admits
    assert verdict.reasons == ()
    assert verdict.notes == ("rebuy: +0.010 against the champion (+0.002 … +0.018)",)


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"data_faults": ("half is gone",)}, "data", "half is gone"),
        ({"paired": (Paired("discovery", -0.02, -0.03, -0.01, 800),)}, "quality", "discovery: ndcg@10 -0.020"),
        ({"candidate": HeldOut(0.20, 0.35, 400)}, "quality", "re-ranking makes held-out lists worse"),
        ({"speeds": (Speed("reranking", 17.6, 35.0),)}, "speed", "takes 17.6 ms a query; expected at most 17.5, 50%"),
        ({"varieties": (Variety("content_based", 99, 200, 50),)}, "variety", "99 different items, the champion 200"),
    ],
)
def test_each_kind_of_worse_is_refused_with_what_was_found_and_expected(change, check, words):
    verdict = decide(replace(GOOD, **change))

    assert not verdict.admits
    assert [reason.check for reason in verdict.reasons] == [check]
    assert words in verdict.reasons[0].message
    assert f"{check}: " in verdict.lines()[0]


def test_all_reasons_are_given_not_only_the_first():
    bad = replace(GOOD, data_faults=("one", "two"), speeds=(Speed("reranking", 100.0, 35.0),))

    assert [reason.check for reason in decide(bad).reasons] == ["data", "data", "speed"]


def test_worse_within_the_noise_is_admitted():
    within = replace(GOOD, paired=(Paired("discovery", -0.004, -0.010, +0.002, 800),))

    assert decide(within).admits


def test_too_few_queries_prove_nothing_and_are_noted():
    few = replace(GOOD, paired=(Paired("cart", -0.2, -0.3, -0.1, 12),))

    verdict = decide(few)

    assert verdict.admits
    assert "on 12 queries only: says nothing" in verdict.notes[0]


@pytest.mark.parametrize(("ndcg", "admits"), [(0.30, True), (0.20, False)])
def test_without_a_paired_comparison_a_held_out_figure_may_fall_by_noise_and_season(ndcg, admits):
    # Two standard errors of the difference are .038, drift is a fifth of .39.
    alone = replace(GOOD, paired=None, candidate=HeldOut(ndcg, None, 400))

    verdict = decide(alone)

    assert verdict.admits is admits
    assert "not compared with the champion query by query" in verdict.notes[0]


def test_where_both_were_judged_in_pairs_other_weeks_say_nothing():
    fallen = replace(GOOD, candidate=HeldOut(0.15, 0.14, 400))

    assert decide(fallen).admits


def test_the_same_recipe_is_said_to_be_the_same():
    assert "same recipe" in decide(replace(GOOD, paired=())).notes[0]


def test_a_champion_whose_variety_is_not_known_is_no_reason():
    assert decide(replace(GOOD, varieties=(Variety("new_source", 3, None, 200),))).admits


def test_where_nothing_serves_everything_is_admitted_and_the_findings_noted():
    first = Figures(has_champion=False, data_faults=("half is gone",), candidate=HeldOut(0.1, None, 2))

    verdict = decide(first)

    assert verdict.admits
    assert verdict.notes == ("data: half is gone (admitted: nothing serves yet)",)

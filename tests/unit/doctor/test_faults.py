"""The catalogue as a whole, and choosing from it."""

import random

import pytest

from orchestrator.doctor.catalogue import catalogue
from orchestrator.doctor.drill import chosen
from orchestrator.doctor.faults import Need, missing
from orchestrator.doctor.steps import Poison, Signal
from orchestrator.doctor.system import Names
from orchestrator.doctor.toxics import parse

NAMES = Names(("collaborative_filtering", "content_based"), "reranking")
FAULTS = catalogue(NAMES)
STAGES = {"collaborative_filtering", "content_based", "rerank", "cache", "user"}


class Bare:
    """A system of one of each, without proxies, on a Redis that is somebody else's."""

    names = NAMES

    def of(self, name):
        return [name]

    def proxies_of(self, name):
        return []

    def has_own_redis(self):
        return False


def test_names_are_unique_and_every_row_is_one_of_the_matrix():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.row for fault in FAULTS} <= set(range(1, 45))


def test_every_expectation_speaks_the_words_of_degraded():
    for fault in FAULTS:
        expect = fault.expect
        assert expect.lost | expect.may_lose | expect.must_show <= STAGES, fault.name
        assert expect.must_show <= expect.lost | expect.may_lose, fault.name


def test_whatever_needs_a_proxy_says_so():
    for fault in FAULTS:
        if any(isinstance(step, Poison) for step in fault.steps):
            assert Need.PROXIES in fault.needs, fault.name


def test_whatever_touches_redis_by_a_signal_needs_it_to_be_ours():
    for fault in FAULTS:
        if any(isinstance(step, Signal) and "redis" in step.target.names for step in fault.steps):
            assert Need.OWN_REDIS in fault.needs, fault.name


def test_every_toxic_of_the_catalogue_survives_the_control_socket():
    toxics = [toxic for fault in FAULTS for step in fault.steps if isinstance(step, Poison) for toxic in step.toxics]

    assert toxics
    assert parse([toxic.document() for toxic in toxics]) == tuple(toxics)


def test_the_quick_faults_are_all_safe_for_anybodys_data():
    quick = [fault for fault in FAULTS if fault.quick]

    assert len(quick) >= 6
    assert all(fault.by_doctor for fault in quick)


def test_what_a_bare_system_lacks_is_named():
    (hang,) = chosen(FAULTS, ["hang-rerank"])
    (one_of_two,) = chosen(FAULTS, ["hang-one-reranker"])
    (pause,) = chosen(FAULTS, ["redis-pause"])

    assert missing(hang.needs, Bare()) == []
    assert missing(one_of_two.needs, Bare()) == [Need.REPLICAS]
    assert missing(pause.needs, Bare()) == [Need.OWN_REDIS]


def test_faults_are_chosen_by_name_and_an_unknown_one_is_told_what_there_is():
    assert [fault.name for fault in chosen(FAULTS, ["slow-drip", "hang-rerank"])] == ["hang-rerank", "slow-drip"]
    assert len(chosen(FAULTS, [])) == len(FAULTS)
    with pytest.raises(ValueError, match=r"no fault 'hang'; there are: .*hang-rerank"):
        chosen(FAULTS, ["hang"])


def test_a_shuffle_is_replayed_by_its_seed():
    def names(seed):
        return [fault.name for fault in chosen(FAULTS, [], random.Random(seed))]

    assert names(3) == names(3) != names(4)


def test_a_fault_that_must_be_judged_by_many_answers_lasts_until_they_were_asked_for():
    (loss,) = chosen(FAULTS, ["loss-1"])
    (hang,) = chosen(FAULTS, ["hang-rerank"])
    (crash,) = chosen(FAULTS, ["crash-one-reranker"])

    assert loss.seconds(6.0, rate=20) == 40.0
    assert loss.seconds(60.0, rate=20) == 60.0
    assert hang.seconds(6.0, rate=20) == 6.0
    assert crash.seconds(6.0, rate=20) == 0.0

"""The report: honest words for what happened."""

import pytest

from orchestrator.core.model import Kept, Level, Loss, Lost, Reranked, SlateItem, SourceReport
from orchestrator.core.report import Report, keys_of
from orchestrator.core.selection import POPULAR, Selected
from tests.support.builders import a_slate, retrieved

PERSONAL = SlateItem(1, 0.9, ("a",))
FILLED = SlateItem(2, 0.0, (POPULAR,))


def a_report(**lost: Loss) -> Report:
    report = Report()
    for name, loss in lost.items():
        report.lost(name, loss)
    return report


@pytest.mark.parametrize(
    ("items", "lost", "level"),
    [
        ((PERSONAL,), {}, Level.FULL),
        ((PERSONAL, FILLED), {}, Level.FULL),
        ((PERSONAL,), {"a": Loss.DEADLINE}, Level.PARTIAL),
        ((PERSONAL,), {"rerank": Loss.SKEW}, Level.PARTIAL),
        ((PERSONAL,), {"user": Loss.UNAVAILABLE}, Level.PARTIAL),
        ((PERSONAL,), {"cache": Loss.DEADLINE}, Level.FULL),
        ((PERSONAL,), {"cache": Loss.DEADLINE, "a": Loss.DEADLINE}, Level.PARTIAL),
        ((FILLED,), {}, Level.POPULAR),
        ((FILLED,), {"a": Loss.DEADLINE}, Level.POPULAR),
        ((), {}, Level.POPULAR),
    ],
)
def test_the_level_says_how_good_the_answer_is(items, lost, level):
    assert a_report(**lost).slate(Selected(items), 0.0).level is level


def test_a_source_that_answered_is_reported_with_what_it_found_and_what_was_kept():
    report = Report()
    report.source("a", Kept(retrieved(1, 2, 3, version="m7"), took_s=0.0123456))

    slate = report.slate(Selected((PERSONAL, FILLED)), 4.0)

    assert slate.sources == (SourceReport("a", "ok", 12.346, candidates=3, kept=1),)
    assert slate.model_versions == (("a", "m7"),)
    assert slate.degraded == ()
    assert slate.created_at == 4.0
    (found,) = report.lists
    assert found.stage == "source:a"
    assert found.keys.tolist() == [1, 2, 3]


def test_a_source_that_was_lost_is_reported_with_the_reason():
    report = Report()
    report.source("a", Lost(Loss.DEADLINE, took_s=0.04))

    slate = report.slate(Selected((PERSONAL,)), 0.0)

    assert slate.sources == (SourceReport("a", "timeout", 40.0, 0, kept=1),)
    assert slate.degraded == ("a",)
    assert slate.losses == (("a", Loss.DEADLINE),)
    assert slate.model_versions == ()


def test_the_reranker_is_reported_by_its_version_or_as_the_stage_that_was_lost():
    kept, lost = Report(), Report()
    kept.rerank("reranking", Kept(Reranked(retrieved(1).scores, "m9")))
    lost.rerank("reranking", Lost(Loss.SKEW))

    assert kept.slate(Selected((PERSONAL,)), 0.0).model_versions == (("reranking", "m9"),)
    assert lost.slate(Selected((PERSONAL,)), 0.0).losses == (("rerank", Loss.SKEW),)


def test_stages_are_told_in_milliseconds_in_the_order_they_ran():
    report = Report()
    report.stage("user", 0.0011114)
    report.stage("retrieve", 0.04)

    assert report.slate(Selected(()), 0.0).stages_ms == (("user", 1.111), ("retrieve", 40.0))


def test_watermark_and_removals_travel_into_the_slate():
    report = Report(watermark=7, removed=(("sold_out", 2),))

    slate = report.slate(Selected((PERSONAL,)), 0.0)

    assert slate.watermark == 7
    assert slate.removed == (("sold_out", 2),)
    assert not slate.from_cache


def test_keys_of_slots_are_int32_in_order():
    assert keys_of(a_slate(5, 3).items).tolist() == [5, 3]
    assert keys_of(()).dtype == "int32"

"""The page: whole, without anything from elsewhere, and saying what the report says."""

import json
import re
from html.parser import HTMLParser

import pytest

from services.training.evaluation import charts, page, tables
from services.training.evaluation.charts import Mark, Point


def figures(ndcg, gain=None, **more):
    found = {
        "recall_at_20": ndcg, "ndcg_at_10": ndcg, "mrr_at_10": ndcg, "hit_at_10": ndcg, "coverage_at_10": 0.2,
        "novelty_at_10": 3.0, "gini_at_10": 0.9,
        "interval": {"ndcg_at_10": [ndcg - 0.01, ndcg + 0.01], "recall_at_20": [ndcg - 0.01, ndcg + 0.01]},
    }  # fmt: skip
    if gain is not None:
        found["slate_gains"] = {"ndcg_at_10": {"mean": gain, "low": gain - 0.01, "high": gain + 0.01, "p": 0.0004}}
    return {**found, **more}


@pytest.fixture
def report():
    slice_ = {
        "popularity": {"ndcg_at_10": 0.1},
        "slate": {"ndcg_at_10": 0.2, "gain_on_popularity": 0.1, "gain_p": 0.02},
    }
    methods = {
        "popularity": figures(0.1, 0.2),
        "source:a_source": figures(0.25, 0.05),
        "fused": figures(0.28, 0.02),
        "slate": figures(0.3, by_seed={"ndcg_at_10": [0.29, 0.31]}),
    }
    names = list(methods)
    task = {
        "objective": "anything <wanted>",
        "placement": "home",
        "queries": 1234,
        "truth_items": 3.0,
        "methods": methods,
        "pairs": {"metric": "ndcg_at_10", "methods": names, "differences": [[0.0] * 4] * 4, "p": [[1.0] * 4] * 4},
        "slices": {"one event": {"queries": 50, "methods": {n: slice_.get(n, slice_["popularity"]) for n in names}}},
    }
    return {
        "split": "test", "from": "2020-01-01T00:00:00Z", "until": "2020-01-29T00:00:00Z", "seeds": [7, 8],
        "source": "a & b", "data": {"events": 10, "items": 4, "shoppers": 3},
        "past": {"events": 8, "shoppers": 3, "items_with_events": 4}, "sources": ["a_source"], "tasks": {"rebuy": task},
        "left_out": {"tasks": {"cart": "no basket"}, "methods": {"EASE": "too many items"}},
        "young": None,
        "trained": {"versions": {"reranking": "abc123"}, "metrics": {"reranking": {"ndcg_at_10": 0.31, "ece": None}}},
        "settings": {"item-kNN": {"rebuy": {"settings": {"shrink": 2.0}, "reached": 0.1, "tried": 7}}},
        "costs": [{"stage": "judging", "seconds": 1.5, "peak_mb": 300.0}],
    }  # fmt: skip


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    void = frozenset({"meta", "line", "circle", "rect", "br"})

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(report):
    text = page.page(report)

    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert not re.search(r"(?:src|href)=\"(?!#)|@import|url\(|<script", text)


def test_the_page_says_what_the_report_says_and_escapes_what_it_quotes(report):
    text = page.page(report)

    for words in (
        "a &amp; b", "Anything &lt;wanted&gt;", "1,234 queries", "0.300", "a source", "+0.050 (+0.040 … +0.060) ***",
        "cart: no basket", "EASE: too many items", "shrink 2.0", "0.200 *", "1.5 s · 300 MB",
        "ndcg_at_10 0.31, ece None",
    ):  # fmt: skip
        assert words in text, words
    assert "<tr class=slate><td>slate</td>" in text


def test_what_eight_bits_cost_and_save_is_told_where_it_was_compared(report):
    without = tables.report_markdown(report), page.page(report)
    figures = {"ndcg_at_10_float32": 0.31, "ndcg_at_10_int8": 0.3095, "time_share_of_int8": 0.56, "serves_int8": 1.0}
    report["trained"]["metrics"]["reranking"] |= figures

    told = tables.report_markdown(report)

    assert "eight bits" not in "".join(without)
    assert "| float32 | 0.3100 | 1.00 |  |\n| int8 | 0.3095 | 0.56 | yes |" in told
    assert "in eight bits" in page.page(report)


def test_a_page_can_be_made_again_from_an_old_report(report, tmp_path, capsys):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(report))

    assert page.main([str(path)]) == 0
    assert (tmp_path / "page.html").read_text() == page.page(report)
    assert page.main([]) == 2
    assert tables.main([str(path)]) == 0
    assert "| slate | 0.300 | 0.300 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "kind"),
    [("slate", "slate"), ("slate, diversity low", "slate"), ("source:x", "source"), ("fused", "fused"),
     ("fused:z_score", "fused"), ("lambdamart:x", "other"), ("item-kNN", "baseline")],
)  # fmt: skip
def test_a_method_has_the_colour_of_its_kind(method, kind):
    assert page.kind(method) == kind


@pytest.mark.parametrize(
    ("top", "ticks"), [(0.118, [0, 0.025, 0.05, 0.075, 0.1, 0.125]), (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0])]
)
def test_ticks_are_round_and_reach_the_top(top, ticks):
    assert charts.ticks_to(top) == ticks


def test_a_mark_has_its_interval_its_seeds_and_its_words():
    svg = charts.intervals([Mark("m < n", "slate", 0.3, 0.2, 0.4, dots=(0.29, 0.31))], "ndcg@10")

    assert svg.count('class="seed"') == 2
    assert svg.count('class="whisker"') == 1
    assert "m &lt; n: 0.300 (0.200 … 0.400)" in svg


def test_labels_of_methods_that_are_alike_do_not_lie_on_each_other():
    alike = [Point(f"method {i}", "baseline", 0.5, 0.5) for i in range(12)]

    svg = charts.scatter(alike, "x", "y")

    assert svg.count("<circle") == 12
    assert svg.count('class="name"') < 12

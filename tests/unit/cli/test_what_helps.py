"""`tutti status` says, a line a model, whether it has anything to say and from when on it will."""

import json

from orchestrator.cli import what_helps
from protos import needs


def trained(data, name, events, metrics):
    folder = data / "models" / name
    (folder / "v1").mkdir(parents=True)
    (folder / "aliases.json").write_text(json.dumps({"champion": "v1"}))
    (folder / "v1" / "manifest.json").write_text(
        json.dumps({"name": name, "data": {"events": events}, "metrics": metrics})
    )


def test_each_model_has_a_line_in_plain_words(tmp_path):
    trained(tmp_path, "reranking", 1_000, {"loss": 1.0, **needs.figures("lists_to_learn_from", 60, 12)})
    trained(tmp_path, "content_based", 1_000, needs.figures("items_with_vectors", 1, 250))
    trained(tmp_path, "other", 1_000, {"loss": 1.0})
    blend = {**needs.figures("interactions", 1, 900), **needs.figures("lists_to_weigh_by", 30, is_met=False)}
    trained(tmp_path, "collaborative_filtering", 1_000, blend)

    assert what_helps.lines(tmp_path) == [
        "trained from 1,000 events:",
        "  collaborative_filtering: helps; from 1 interactions on, has 900; from 30 lists to weigh by on, not yet",
        "  content_based: helps; from 1 items with vectors on, has 250",
        "  other: does not say what it needs",
        "  reranking: silent; from 60 lists to learn from on, has 12 (about 5,000 events at the pace so far)",
    ]


def test_nothing_trained_is_nothing_to_say_and_what_cannot_be_read_is_left_out(tmp_path):
    assert what_helps.lines(tmp_path) == []
    trained(tmp_path, "popular", 0, needs.figures("events", 1, 0))
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "aliases.json").write_text("{")

    assert what_helps.lines(tmp_path) == ["trained from 0 events:", "  popular: silent; from 1 events on, has 0"]

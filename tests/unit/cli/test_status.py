from orchestrator.cli.status import doubts


def test_what_is_not_well_is_said_in_words_and_what_is_well_is_not():
    checks = {"redis": "ok", "events": "no append-only file: …", "content_based": "idle"}

    assert doubts(checks) == ["not ok: content_based: idle", "not ok: events: no append-only file: …"]
    assert doubts({}) == []

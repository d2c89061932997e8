"""What "now" is for models that were trained on data of any age."""

import json

import pytest

from orchestrator.adapters.shop_clock import OLD_AFTER_S, shop_clock

NEWEST = 1_323_432_000.0  # 2011-12-09T12:00:00Z


@pytest.fixture
def data(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"last_event_at": "2011-12-09T12:00:00Z"}))
    return tmp_path


class Wall:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def test_for_old_data_now_begins_at_its_newest_event_and_runs_on(data):
    wall = Wall(NEWEST + OLD_AFTER_S + 1)
    clock = shop_clock(data, "auto", wall)

    at_start = clock()
    wall.now += 60

    assert at_start == pytest.approx(NEWEST)
    assert clock() == pytest.approx(NEWEST + 60)


def test_for_fresh_data_now_is_now(data):
    assert shop_clock(data, "auto", Wall(NEWEST + OLD_AFTER_S - 1))() == NEWEST + OLD_AFTER_S - 1


def test_the_choice_can_be_made(data):
    assert shop_clock(data, "wall", Wall(NEWEST * 2))() == NEWEST * 2
    assert shop_clock(data, "data", Wall(NEWEST + 5))() == pytest.approx(NEWEST)


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"last_event_at": ""}', '{"last_event_at": 3}'])
def test_data_that_does_not_say_when_it_ended_is_served_by_the_wall_clock(tmp_path, content):
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)

    assert shop_clock(tmp_path, "data", Wall(7.0))() == 7.0

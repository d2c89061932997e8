"""Who is asked for what: queries hold the past and the page, truths the rest, and neither ever holds the other's."""

import numpy as np
import pytest

from services.training import dataset as datasets
from services.training import visits, vocabulary
from services.training.evaluation.tasks import inside, tasks
from services.training.split import Window
from tests.support.small_shop import DAY_US, START_US, tastes, write_shop

WINDOW = Window(START_US + 92 * DAY_US, START_US + 120 * DAY_US)


def load(folder, rows, **columns):
    data = write_shop(folder, rows, **columns)
    vocabulary.maintain(data)
    return datasets.load(data)


def in_words(dataset, task):
    """user → (context, gone, truth) as ids."""
    ids = dataset.item_ids
    return {
        dataset.user_ids[user]: tuple(
            [ids[k] for k in rows.row(i).tolist()] for rows in (task.context, task.gone, task.truth)
        )
        for i, user in enumerate(task.users)
    }


PAST = [("a", "i1", "view", 1.0), ("b", "i2", "purchase", 2.0)]


def test_discovery_leaves_out_what_was_touched_and_re_buy_nothing(tmp_path):
    rows = [*PAST, ("a", "i1", "view", 100.0), ("a", "i3", "view", 101.0), ("b", "i2", "view", 100.0)]
    dataset = load(tmp_path, rows)

    found = {task.name: in_words(dataset, task) for task in tasks(dataset, WINDOW, seed=1).judged}

    assert found["discovery"] == {"a": ([], ["i1"], ["i3"])}
    assert found["rebuy"] == {"a": ([], [], ["i1", "i3"]), "b": ([], [], ["i2"])}
    assert "newcomers" not in found


def test_who_comes_for_the_first_time_is_a_task_of_its_own(tmp_path):
    dataset = load(tmp_path, [*PAST, ("a", "i1", "view", 100.0), ("new", "i2", "view", 100.0)])

    found = {task.name: in_words(dataset, task) for task in tasks(dataset, WINDOW, seed=1).judged}

    assert found["newcomers"] == {"new": ([], [], ["i2"])}
    assert set(found["rebuy"]) == {"a"}


def test_an_items_page_is_the_first_item_of_the_first_visit_that_goes_on(tmp_path):
    visit = [("a", "i3", "view", 100.0), ("a", "i4", "view", 100.01), ("a", "i3", "view", 100.02)]
    later = [("a", "i5", "view", 103.0), ("a", "i6", "view", 103.01)]
    alone = [("b", "i2", "view", 100.0), ("b", "i2", "view", 100.01), ("b", "i7", "view", 104.0)]
    dataset = load(tmp_path, [*PAST, *visit, *later, *alone])

    item = next(task for task in tasks(dataset, WINDOW, seed=1).judged if task.name == "item")

    assert in_words(dataset, item) == {"a": (["i3"], ["i3"], ["i4"])}
    assert item.placement == "item"


def test_half_of_a_basket_is_shown_and_never_asked_for(tmp_path):
    looked = [("a", f"i{k}", "view", 100.0) for k in range(1, 9)]
    bought = [("a", f"i{k}", "purchase", 100.01) for k in range(3, 8)]
    dataset = load(tmp_path, [*PAST, *looked, *bought])

    cart = next(task for task in tasks(dataset, WINDOW, seed=1).judged if task.name == "cart")

    context, gone, truth = in_words(dataset, cart)["a"]
    assert (len(context), len(truth)) == (2, 3)
    assert sorted(context + truth) == ["i3", "i4", "i5", "i6", "i7"]
    assert gone == context


def test_lines_of_one_order_are_drawn_not_taken_as_the_file_has_them(tmp_path):
    orders = [(f"u{n}", f"i{k}", "purchase", 100.0) for n in range(30) for k in range(8)]
    dataset = load(tmp_path, [*[(f"u{n}", "i1", "view", 1.0) for n in range(30)], *orders])

    first = next(task for task in tasks(dataset, WINDOW, seed=1).judged if task.name == "item").context.values

    assert len(set(first.tolist())) > 3


def test_a_categorys_page_is_the_one_of_the_first_thing_wanted(tmp_path):
    rows = [("a", "i3", "view", 100.0), ("a", "i4", "view", 101.0), ("a", "i5", "view", 102.0)]
    dataset = load(tmp_path, [*PAST, *rows])

    category = next(task for task in tasks(dataset, WINDOW, seed=1).judged if task.name == "category")

    assert category.categories == ("Home > Light",)
    assert in_words(dataset, category)["a"][2] == ["i3", "i5"]


def test_a_shop_without_categories_or_baskets_says_which_tasks_it_cannot_judge(tmp_path):
    dataset = load(tmp_path, tastes(), categories=False)

    found = tasks(dataset, WINDOW, seed=1)

    assert {task.name for task in found.judged} == {"discovery", "rebuy", "item"}
    assert set(found.left_out) == {"newcomers", "cart", "category"}
    assert "neither add_to_cart nor purchase" in found.left_out["cart"]


def test_no_more_queries_than_asked_for_and_the_same_ones_again(tmp_path):
    dataset = load(tmp_path, tastes())

    one, again = (tasks(dataset, WINDOW, seed=1, most=10).judged for _ in range(2))

    assert all(len(task) <= 10 for task in one)
    assert [task.users.tolist() for task in one] == [task.users.tolist() for task in again]


def test_a_visit_without_a_session_id_ends_with_a_pause(tmp_path):
    minute = 1 / 1440
    rows = [("a", "i1", "view", 1.0), ("a", "i2", "view", 1 + 29 * minute), ("a", "i3", "view", 1 + 90 * minute)]
    dataset = load(tmp_path, [*rows, ("b", "i1", "view", 1.0)], sessions=False)

    numbers = visits.number(dataset, np.arange(len(dataset)))

    by_row = {
        (dataset.user_ids[u], dataset.item_ids[k]): n
        for u, k, n in zip(dataset.users, dataset.keys, numbers, strict=True)
    }
    assert by_row["a", "i1"] == by_row["a", "i2"]
    assert len(set(by_row.values())) == 3


@pytest.mark.parametrize(("path", "is_inside"), [("A", True), ("A > B", True), ("AB", False), ("", False)])
def test_a_category_holds_itself_and_what_is_below_it(path, is_inside):
    assert inside(path, "A") is is_inside

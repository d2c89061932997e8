"""What the doctor's shoppers ask, and what they notice about an answer."""

import random
from collections import Counter

import orjson
import pytest

from orchestrator.doctor.mix import COUNT, SHARES, Ask, Kind, Mix, Shop, read_answer, uses

SHOP = Shop(tuple(f"u{n}" for n in range(50)), tuple(f"i{n}" for n in range(200)))


def asks(n, seed=1, salt=1):
    mix = Mix(SHOP, random.Random(seed), random.Random(salt))
    return [mix.next() for _ in range(n)]


def an_answer(ids=None, level="full", degraded=(), sources=(("cf", "ok"), ("cb", "ok")), from_cache=False, **quality):
    ids = [f"i{n}" for n in range(COUNT)] if ids is None else ids
    return orjson.dumps(
        {
            "items": [{"id": one, "rank": rank} for rank, one in enumerate(ids, 1)],
            "quality": {
                "level": level,
                "degraded": list(degraded),
                "sources": [{"name": name, "status": status} for name, status in sources],
                "from_cache": from_cache,
                **quality,
            },
        }
    )


def broken(body, ask=None):
    return read_answer(ask or Ask(Kind.HOME, b""), body)["broken"]


def test_the_same_seed_asks_the_same_and_another_does_not():
    assert asks(50) == asks(50)
    assert asks(50) != asks(50, seed=2)


def test_only_what_is_fresh_differs_when_a_seed_is_used_again():
    pairs = list(zip(asks(200), asks(200, salt=2), strict=True))

    assert all(a.kind == b.kind for a, b in pairs)
    assert {a.kind for a, b in pairs if a != b} == {Kind.HOME_FRESH}
    assert sum(a == b for a, b in pairs if a.kind is Kind.HOME_FRESH) == 0


def test_kinds_come_in_their_shares():
    counts = Counter(ask.kind for ask in asks(2000))

    assert {kind: pytest.approx(2000 * share, rel=0.2) for kind, share in SHARES.items()} == counts


def test_fresh_home_shelves_hardly_ever_repeat_and_the_same_shopper_asks_again():
    fresh = [ask for ask in asks(1000) if ask.kind is Kind.HOME_FRESH]
    users = Counter(orjson.loads(ask.body)["user_id"] for ask in fresh)

    assert len({ask.body for ask in fresh}) >= 0.99 * len(fresh)
    assert users.most_common(1)[0][1] > 3 * len(fresh) / 50


def test_only_known_shoppers_kinds_need_the_cache_and_only_home_is_reranked():
    assert uses("home", ("cf",)) == uses("home_fresh", ("cf",)) == {"cache", "user", "rerank", "cf"}
    assert uses("item", ("cf",)) == {"cache", "user", "cf"}
    assert uses("anonymous", ("cf",)) == {"rerank", "cf"}


def test_an_honest_answer_breaks_nothing_and_its_quality_is_read():
    body = an_answer(level="partial", degraded=["cf"], sources=[("cf", "timeout"), ("cb", "ok")], rung=2)

    found = read_answer(Ask(Kind.HOME, b""), body)

    assert found == {
        "level": "partial",
        "rung": 2,
        "degraded": ("cf",),
        "lost": (("cf", "timeout"),),
        "n_items": COUNT,
        "from_cache": False,
        "broken": (),
    }


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (an_answer([]), "I7: 0 items"),
        (an_answer([f"i{n}" for n in range(COUNT - 1)]), "I7: 11 items"),
        (an_answer(["i1"] * COUNT), "an item twice"),
        (an_answer(level="partial"), "nothing is missing"),
        (an_answer(level="full", degraded=["rerank"]), "level full without rerank"),
        (an_answer(level="excellent"), "unknown level"),
        (an_answer(level="partial", degraded=["cb"], sources=[("cf", "error")]), "not named"),
        (b"{", "unreadable"),
        (b'{"items": 3, "quality": {}}', "unreadable"),
    ],
)
def test_a_dishonest_answer_is_noticed(body, says):
    assert any(says in words for words in broken(body))


def test_an_excluded_item_is_noticed():
    ask = Ask(Kind.HOME_FRESH, b"", frozenset({"i3"}))

    assert broken(an_answer(), ask) == ("an excluded item",)


def test_a_lost_cache_leaves_a_full_slate():
    assert broken(an_answer(level="full", degraded=["cache"])) == ()


def test_a_remembered_answer_tells_of_sources_that_are_lost_now_without_naming_them():
    assert broken(an_answer(level="stale", from_cache=True, sources=[("cf", "open")])) == ()


def test_a_shop_without_shoppers_or_items_is_refused():
    with pytest.raises(ValueError, match="train one first"):
        Shop((), ("i",) * 100)

"""Larger shops made of a trained one, and the curves of what they cost."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from protos import artefacts
from services.bench.growth import redis, report
from services.bench.growth.chart import chart
from services.bench.growth.curve import AT, BATCHES, ITEMS, Cost, Growth, Point, points, quotas, slope
from services.bench.growth.shop import histories
from services.bench.growth.stretched import SHAKEN_BY, Clones, shaken, stretch
from services.chassis.affinity import TABLES, Affinities, Demand, Peers, Table
from services.chassis.retrieval import VectorIndex, write_index

M = 40
"""Items of the trained shop: item i speaks for the next three, and shoppers 0 to 9 wanted four items each."""


def rng():
    return np.random.default_rng(5)


def a_table(m=M):
    keys = (np.arange(m)[:, None] + np.arange(1, 4)) % m
    strengths = np.tile(np.array([3, 2, 1], np.float32), (m, 1))
    return Table(np.arange(0, 3 * m + 1, 3), keys.ravel().astype(np.int32), strengths.ravel())


def affinities(m=M):
    wanted = (np.arange(10)[:, None] * 4 + np.arange(4)) % m
    keys, users = wanted.ravel(), np.repeat(np.arange(10), 4)
    order = np.argsort(keys, kind="stable")
    offsets = np.searchsorted(keys[order], np.arange(m + 1))
    peers = Peers(
        np.ones(m, np.float32),
        offsets,
        users[order].astype(np.int32),
        # A likeness that says of which pair it is.
        (100 * users + keys)[order].astype(np.float32),
        np.arange(0, 41, 4),
        keys.astype(np.int32),
        (100 * users + keys).astype(np.float32),
        5,
    )
    category = (np.arange(m) % 4 - 1).astype(np.int32)
    demand = Demand(np.arange(m, dtype=np.float32), category, np.zeros(m, np.float32))
    return Affinities({name: a_table(m) for name in TABLES}, peers, demand)


def an_artefact(models):
    folder = models / "some_model" / "v"
    folder.mkdir(parents=True)
    vectors = rng().standard_normal((M - 5, 8)).astype(np.float32)
    write_index(folder, vectors, np.arange(5, M, dtype=np.int32))
    affinities().save(folder / "affinities.npz")
    np.save(folder / "mapped_keys.npy", np.array([7, 9], np.int32))
    np.savez(folder / "items.npz", numeric=np.arange(M, dtype=np.float32)[:, None])
    np.savez(folder / "popular.npz", keys=np.arange(M, dtype=np.int32)[::-1], scores=np.arange(M, dtype=np.float32))
    (folder / "layout.json").write_text("{}")
    manifest = artefacts.Manifest(
        "some_model",
        "generator",
        "v",
        "",
        {},
        {},
        {},
        7,
        {"size": M, "digest": "old"},
        None,
        artefacts.hash_files(folder),
    )
    return artefacts.Artefact(folder, manifest)


def grown(tmp_path, n):
    clones = Clones.of(n, M, rng())
    stretch(an_artefact(tmp_path / "old"), tmp_path / "new", clones, "new", 3, {})
    return artefacts.load(tmp_path / "new", "some_model"), clones


@pytest.mark.parametrize("n", [M, M + 1, 3 * M - 1, 10 * M])
def test_every_item_of_a_larger_shop_is_a_clone_and_every_original_has_its_share(n):
    clones = Clones.of(n, M, rng())

    assert (np.bincount(clones.origin, minlength=M) == clones.copies).all()
    assert clones.copies.sum() == n
    assert set(clones.copies.tolist()) <= {n // M, n // M + 1}
    keys = np.repeat(np.arange(M), 50)
    assert (clones.origin[clones.drawn(keys, rng())] == keys).all()


def test_a_smaller_shop_is_a_sample_of_the_trained_one():
    clones = Clones.of(10, M, rng())

    assert len(set(clones.origin.tolist())) == 10
    drawn = clones.drawn(np.arange(M), rng())
    assert sorted(drawn[drawn >= 0].tolist()) == list(range(10))
    assert (clones.origin[drawn[drawn >= 0]] == np.flatnonzero(drawn >= 0)).all()


@pytest.mark.parametrize("n", [4 * M, 4 * M + 3])
def test_clones_belong_together_as_their_originals_did(tmp_path, n):
    artefact, clones = grown(tmp_path, n)

    found = Affinities.of_arrays(artefact.arrays("affinities.npz"))
    assert found.n_items == n
    for table in found.tables.values():
        for item in range(n):
            row = slice(table.offsets[item], table.offsets[item + 1])
            origin = clones.origin[item]
            assert clones.origin[table.keys[row]].tolist() == [(origin + step) % M for step in (1, 2, 3)]
            assert table.strengths[row].tolist() == [3, 2, 1]


def test_in_a_smaller_shop_nothing_leads_to_items_that_are_gone(tmp_path):
    artefact, clones = grown(tmp_path, 12)

    table = Affinities.of_arrays(artefact.arrays("affinities.npz")).tables["cosine"]
    assert table.offsets[-1] == len(table.keys) == len(table.strengths)
    assert table.keys.min() >= 0
    assert table.keys.max() < 12
    for item in range(12):
        row = table.keys[table.offsets[item] : table.offsets[item + 1]]
        steps = (clones.origin[row] - clones.origin[item]) % M
        assert set(steps.tolist()) <= {1, 2, 3}


def test_peers_wanted_clones_of_what_they_wanted_and_both_sides_agree(tmp_path):
    artefact, clones = grown(tmp_path, 3 * M)

    peers = Affinities.of_arrays(artefact.arrays("affinities.npz")).peers
    by_shopper = {
        (shopper, int(key)): float(want)
        for shopper in range(10)
        for key, want in zip(
            peers.keys[peers.shopper_offsets[shopper] : peers.shopper_offsets[shopper + 1]],
            peers.wants[peers.shopper_offsets[shopper] : peers.shopper_offsets[shopper + 1]],
            strict=True,
        )
    }
    by_item = {
        (int(user), item): float(likeness)
        for item in range(3 * M)
        for user, likeness in zip(
            peers.users[peers.item_offsets[item] : peers.item_offsets[item + 1]],
            peers.likeness[peers.item_offsets[item] : peers.item_offsets[item + 1]],
            strict=True,
        )
    }
    assert by_shopper == by_item
    assert len(by_shopper) == 40
    for (shopper, key), said in by_shopper.items():
        assert said == 100 * shopper + clones.origin[key]


def test_demand_is_shared_among_the_clones_of_a_category(tmp_path):
    artefact, clones = grown(tmp_path, 2 * M)

    demand = Affinities.of_arrays(artefact.arrays("affinities.npz")).demand
    for category in range(3):
        assert demand.share[demand.category == category].sum() == pytest.approx(1)
    assert (demand.share[demand.category < 0] == 0).all()
    assert (demand.wanted == clones.origin).all()


def test_every_file_is_there_and_speaks_of_the_new_items(tmp_path):
    artefact, clones = grown(tmp_path, 3 * M)

    index = VectorIndex.load(artefact)
    old = VectorIndex.load(an_artefact(tmp_path / "again"))
    assert artefact.manifest.vocabulary == {"size": 3 * M, "digest": "new"}
    assert artefact.json("layout.json") == {}
    # Five of the trained items cannot be found, nor can their clones.
    assert (clones.origin[index.keys] >= 5).all()
    assert len(index) == 3 * (M - 5)
    # The first clone is its original; the others are near it and not equal.
    assert np.allclose(index.vectors[: M - 5], old.vectors)
    assert not np.allclose(index.vectors[M - 5 : 2 * (M - 5)], old.vectors)
    assert artefact.array("mapped_keys.npy").tolist() == [7, 9, 47, 49, 87, 89]
    assert (artefact.arrays("items.npz")["numeric"][:, 0] == clones.origin).all()
    popular = artefact.arrays("popular.npz")
    assert clones.origin[popular["keys"]].tolist() == np.repeat(np.arange(M)[::-1], 3).tolist()
    assert sorted(popular["keys"].tolist()) == list(range(3 * M))


def test_what_two_models_share_they_go_on_sharing(tmp_path):
    clones, made = Clones.of(3 * M, M, rng()), {}
    generator = an_artefact(tmp_path / "old")
    reranker = artefacts.Artefact(generator.path, replace(generator.manifest, name="other_model", role="reranker"))

    for model, seed in ((generator, 1), (reranker, 2)):
        stretch(model, tmp_path / "new", clones, "new", seed, made)

    first, second = (artefacts.load(tmp_path / "new", name).manifest.files for name in ("some_model", "other_model"))
    assert first["affinities.npz"] == second["affinities.npz"]
    # Drawn anew, as another seed does: it was not by chance that the first are equal.
    assert first["item_vectors.npy"] != second["item_vectors.npy"]


def test_the_same_seed_gives_the_same_shop(tmp_path):
    versions = [grown(tmp_path / str(turn), 2 * M)[0].version for turn in range(2)]

    assert versions[0] == versions[1]


def test_a_shaken_vector_keeps_its_length_and_stays_near():
    vectors = rng().standard_normal((500, 64)).astype(np.float32)
    stays = np.arange(500) < 100

    found = shaken(vectors, stays, rng())

    lengths = np.linalg.norm(vectors, axis=1)
    assert np.allclose(found[:100], vectors[:100], atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), lengths, rtol=1e-4)
    cosines = (found * vectors).sum(1)[100:] / lengths[100:] ** 2
    assert cosines.mean() == pytest.approx(1 / np.sqrt(1 + SHAKEN_BY**2), abs=0.005)


def test_a_history_of_a_length_is_of_that_length_oldest_first(tmp_path):
    np.savez(
        tmp_path / "shoppers.npz",
        offsets=np.array([0, 2, 2, 5]),
        keys=np.arange(5, dtype=np.int32),
        types=np.ones(5, np.uint8),
        ages_s=np.array([50, 10, 40, 30, 20], np.float32),
    )

    assert [len(keys) for keys, _, _ in histories(tmp_path, None)] == [2, 0, 3]
    for length in (0, 1, 7):
        made = histories(tmp_path, length)
        assert [len(keys) for keys, _, _ in made] == [length] * 3
        assert all((np.diff(ages) <= 0).all() for _, _, ages in made)


def test_one_axis_moves_at_a_time():
    small, middle = points(10_000, is_middle=False), points(AT, is_middle=True)

    assert small == [Point("items", 10_000)]
    for point in middle:
        moved = [name for name in ("history", "candidates") if getattr(point, name) is not None]
        moved += ["kept"] if point.kept < 1 else []
        assert moved in ([], [point.axis])


def test_candidates_are_shared_among_sources_as_their_quotas_are():
    assert quotas(400, [300, 100]) == [300, 100]
    assert quotas(1000, [300, 100]) == [750, 250]
    assert quotas(2, [300, 1]) == [2, 1]


def test_bytes_an_item_leave_out_what_is_there_anyway():
    assert slope({10: 1_000 + 10 * 8, 1000: 1_000 + 1000 * 8}) == 8
    assert slope({10: 5}) is None


def a_growth():
    growth = Growth({"cores": 2}, {"data": "shop", "at": AT})
    for point in [*(Point("items", n) for n in ITEMS), Point("kept", 0.001, kept=0.001), Point("kept", 1.0)]:
        for batch in BATCHES:
            ms = {"collaborative_filtering": point.value / 1e5, "pipeline": 0.5 / batch}
            growth.costs.append(Cost(point, batch, ms, 10, 20.0, 18.5))
    growth.memory = {"orchestrator": {10_000: 50_000_000, 1_000_000: 1_040_000_000}}
    growth.redis, growth.redis_sample = {"features": 900.0, "history": 600.0}, 2_000
    return growth


def test_the_report_says_what_a_million_items_cost():
    said = report.text(a_growth())

    assert "1 M items cost 10.50 × 50 k, 1 at once" in said
    assert "1,000" in said.split("bytes an item")[1].splitlines()[1]
    assert "1,500 bytes a user (features 900, history 600), measured on 2,000" in said
    assert "10 M 15.00 GB" in said
    narrow = next(line for line in said.splitlines() if line.startswith("0.1%"))
    assert narrow.split()[-2:] == ["20.0", "18.5"]


def test_the_file_gives_the_same_costs_again():
    growth = a_growth()

    document = json.loads(json.dumps(growth.to_json()))

    assert [Cost.of_json(cost) for cost in document["costs"]] == growth.costs
    assert document["bytes_an_item"] == {"orchestrator": 1000.0}


def test_every_curve_is_drawn_with_every_point_and_its_name(tmp_path):
    drawn = report.draw(a_growth(), tmp_path)

    assert [path.name for path in drawn] == ["growth-items.svg", "growth-kept.svg"]
    tree = ElementTree.fromstring(drawn[0].read_text())
    space = {"svg": "http://www.w3.org/2000/svg"}
    lines = tree.findall("svg:polyline", space)
    assert [len(line.get("points").split()) for line in lines] == [len(ITEMS)] * 4
    assert len({(line.get("stroke"), line.get("stroke-dasharray")) for line in lines}) == 4
    words = " ".join(text.text for text in tree.findall("svg:text", space))
    for name in ("all, 1 at once", "all, 32 at once", "collaborative_filtering", "pipeline", "50 k", "1 M"):
        assert name in words


def test_a_chart_stays_inside_its_frame_and_escapes_names():
    tree = ElementTree.fromstring(
        chart("a & b", "x", "y", {f"<{i}>": [(0.0, 0.0), (5.0, 1e-9 * i)] for i in range(12)}, is_log=False)
    )

    width, height = map(float, tree.get("viewBox").split()[2:])
    for text in tree.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(text.get("x")) <= width
        assert 0 <= float(text.get("y")) <= height


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (b"tutti:history:u:42", "history"),
        (b"tutti:shown:u:42", "shown"),
        (b"tutti:watermark:u:42", "watermark"),
        (b"tutti:history:v:42", None),
        (b"tutti:items", None),
        (b"\x01\x00\x00\x00\x07\x00\x00\x00user_id\x02\x00\x00\x00u1tutti", "features"),
        (b"\x01\x00\x00\x00\x07\x00\x00\x00item_id\x02\x00\x00\x00i1tutti", None),
    ],
)
def test_keys_are_told_apart_by_whom_they_are_of(key, kind):
    assert redis.kind_of(key) == kind

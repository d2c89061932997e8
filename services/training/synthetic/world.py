"""
The shop's catalogue: designs, their variants, prices, births, outages and who goes with whom.

Rule: nothing here knows a shopper. Items are kept sorted by leaf, so that a leaf is a slice; public ids (`P01234`)
number the items by the day they were born, as a growing shop would.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.training.synthetic import naming
from services.training.synthetic.taxonomy import LEAVES, Leaf

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

N_STYLES = len(naming.STYLES)
N_HIDDEN = 6
"""Dimensions of taste that no word tells: what only behaviour can teach."""
N_FACTORS = N_STYLES + naming.N_MOODS + N_HIDDEN + 3
"""Style, colour mood, hidden, price tier, its square, quality: the dot product with a taste is the utility."""

OLD_SHARE = 0.62
"""Share of the final catalogue on sale on the first day; the rest is born evenly: 6–7 % of the catalogue a month."""
DISCONTINUED_SHARE = 0.07
OUTAGE_SHARE = 0.25
POPULARITY_SIGMA = 1.35
"""Spread of the log of a design's draw. Tuned until the Gini of purchase lines was near Online Retail's."""
PROMOTION_SHARE = 0.04
"""Share of items that are 20 % off in a given week."""
MAX_COMPLEMENTS = 4


@dataclass(frozen=True, slots=True)
class World:
    """
    The catalogue; n items sorted by leaf, m designs, L leaves.

    leaves          the leaves in use
    bounds          (L + 1,) int64: items of leaf k are bounds[k]:bounds[k + 1]
    leaf, design, style, noun, brand   (n,) int64
    factors         (n, N_FACTORS) float32
    weight          (n,) float32 popularity at birth, before season and fashion
    fashion         (m, weeks) float32 log of the design's fashion, week by week
    promoted        (n, weeks) bool: 20 % off in that week
    price           (n,) float32 pounds
    cycle_days      (n,) int64, 0 for things that last
    born, dies      (n,) int64 day of the window; on sale on born ≤ day < dies
    outage          (n, 2) int64 sold out on outage[0] ≤ day < outage[1]
    complements     (n, MAX_COMPLEMENTS) int64 item or −1; strength beside it in [0, 1] float32
    item_ids, titles, descriptions, brands, categories   n strings
    attributes      n JSON objects as text
    """

    leaves: tuple[Leaf, ...]
    bounds: Ints
    leaf: Ints
    design: Ints
    style: Ints
    noun: Ints
    brand: Ints
    factors: Floats
    weight: Floats
    fashion: Floats
    promoted: NDArray[np.bool_]
    price: Floats
    cycle_days: Ints
    born: Ints
    dies: Ints
    outage: Ints
    complements: Ints
    complement_strength: Floats
    item_ids: list[str]
    titles: list[str]
    descriptions: list[str]
    brands: list[str]
    attributes: list[str]

    def __len__(self) -> int:
        return len(self.leaf)

    def sold_out(self, day: int) -> NDArray[np.bool_]:
        """Items that cannot be put in a cart on *day*, (n,)."""
        return (self.outage[:, 0] <= day) & (day < self.outage[:, 1])

    def on_sale(self, day: int) -> NDArray[np.bool_]:
        """Items that exist on *day*, (n,)."""
        return (self.born <= day) & (day < self.dies)

    def table(self, last_day: int) -> pa.Table:
        """items.parquet: canonical columns, one row an item, by item_id, stock as on *last_day*."""
        in_stock = self.on_sale(last_day) & ~self.sold_out(last_day)
        order = np.argsort(np.array(self.item_ids))
        table = pa.table(
            {
                "item_id": pa.array(self.item_ids, pa.string()),
                "title": pa.array(self.titles, pa.string()),
                "description": pa.array(self.descriptions, pa.string()),
                "category": pa.array([self.leaves[k].path for k in self.leaf], pa.string()),
                "brand": pa.array(self.brands, pa.string()),
                "price": pa.array(self.price.astype(np.float64).round(2), pa.float64()),
                "in_stock": pa.array(in_stock, pa.bool_()),
                "attributes": pa.array(self.attributes, pa.string()),
            }
        )
        return table.take(pa.array(order))


def build_world(items: int, days: int, first_day: date, rng: np.random.Generator) -> World:
    """A catalogue of *items* items for a window of *days* days."""
    leaves = _leaves(items)
    leaf = _leaf_of_items(items, len(leaves), rng)
    bounds = np.searchsorted(leaf, np.arange(len(leaves) + 1)).astype(np.int64)
    design = _designs(leaf, rng)
    m = int(design[-1]) + 1
    first = np.searchsorted(design, np.arange(m))
    leaf_m = leaf[first]

    style_m = rng.integers(0, N_STYLES, m)
    n_brands = min(200, max(12, items // 30))
    brand_m = _brands(leaf_m, style_m, n_brands, rng)
    tier_of_brand = rng.normal(0, 0.8, n_brands)
    hidden_of_brand = rng.normal(0, 1, (n_brands, N_HIDDEN))
    tier_m = 0.8 * tier_of_brand[brand_m] + 0.5 * rng.normal(0, 1, m)
    hidden_m = 0.6 * hidden_of_brand[brand_m] + 0.8 * rng.normal(0, 1, (m, N_HIDDEN))
    quality_m = rng.normal(0, 0.5, m)

    texts = _texts(leaves, leaf, design, style_m, brand_m, rng)
    mood = np.array([naming.COLOUR_MOODS[colour] for colour in texts.colours])
    tier = tier_m[design]
    factors = np.zeros((items, N_FACTORS), np.float32)
    factors[np.arange(items), style_m[design]] = 1.0
    factors[np.arange(items), N_STYLES + mood] = 1.0
    factors[:, N_STYLES + naming.N_MOODS : -3] = hidden_m[design] / np.sqrt(N_HIDDEN)
    factors[:, -3], factors[:, -2], factors[:, -1] = tier, tier**2, quality_m[design]

    # Prices: log-normal around the leaf's median, moved by the brand's tier and the variant's size.
    median = np.array([entry.price for entry in leaves])[leaf]
    price = median * np.exp(0.32 * tier + 0.22 * rng.normal(0, 1, m)[design]) * texts.size_factor
    price = np.maximum(0.5, np.floor(price * 10) / 10 + rng.choice([0.05, 0.09], items))

    born, dies = _lifetimes(design, items, days, rng)
    outage = _outages(items, days, rng)
    leaf_pull = rng.lognormal(0, 0.7, len(leaves))
    weight = (
        leaf_pull[leaf]
        * rng.lognormal(0, POPULARITY_SIGMA, m)[design]
        * rng.lognormal(0, 0.4, items)
        * np.exp(0.3 * quality_m[design])
    )
    complements, strength = _complements(leaves, leaf, bounds, factors, rng)
    numbers = np.empty(items, np.int64)
    numbers[np.lexsort((rng.random(items), born))] = np.arange(1, items + 1)
    width = max(5, len(str(items)))
    attributes = [
        json.dumps(
            {**entry, "range": naming.STYLES[style_m[d]].name, "parent": f"D{d + 1:05d}",
             "released": (first_day + timedelta(days=int(max(b, 0)))).isoformat()},
            ensure_ascii=False, sort_keys=True,
        )
        for entry, d, b in zip(texts.attributes, design, born, strict=True)
    ]  # fmt: skip
    return World(
        leaves=leaves,
        bounds=bounds,
        leaf=leaf,
        design=design,
        style=style_m[design],
        noun=texts.nouns,
        brand=brand_m[design],
        factors=factors,
        weight=weight.astype(np.float32),
        fashion=_fashion(m, days, rng),
        promoted=rng.random((items, days // 7 + 1)) < PROMOTION_SHARE,
        price=price.astype(np.float32),
        cycle_days=np.array([entry.cycle_days for entry in leaves])[leaf],
        born=born,
        dies=dies,
        outage=outage,
        complements=complements,
        complement_strength=strength,
        item_ids=[f"P{number:0{width}d}" for number in numbers],
        titles=texts.titles,
        descriptions=texts.descriptions,
        brands=[naming.brand_name(int(b)) for b in brand_m[design]],
        attributes=attributes,
    )


def _leaves(items: int) -> tuple[Leaf, ...]:
    """All leaves, or evenly fewer when there would be less than four items a leaf."""
    count = min(len(LEAVES), max(1, items // 4))
    return tuple(LEAVES[int(i)] for i in np.linspace(0, len(LEAVES) - 1, count).round())


def _leaf_of_items(items: int, n_leaves: int, rng: np.random.Generator) -> Ints:
    """Leaf of each item, sorted; every leaf has at least two items."""
    share = rng.lognormal(0, 0.45, n_leaves)
    free = items - 2 * n_leaves
    counts = 2 + rng.multinomial(max(free, 0), share / share.sum())
    return np.repeat(np.arange(n_leaves), counts)[:items].astype(np.int64)


def _designs(leaf: Ints, rng: np.random.Generator) -> Ints:
    """Design of each item: runs of one to four variants, never across leaves."""
    starts = rng.random(len(leaf)) < 0.55
    starts[0] = True
    starts[1:] |= leaf[1:] != leaf[:-1]
    return (np.cumsum(starts) - 1).astype(np.int64)


def _brands(leaf: Ints, style: Ints, n_brands: int, rng: np.random.Generator) -> Ints:
    """A brand keeps to some leaves and styles: each design picks the best of a few brands under a fixed affinity."""
    to_leaf = rng.normal(0, 1, (n_brands, int(leaf.max()) + 1))
    to_style = rng.normal(0, 1, (n_brands, N_STYLES))
    offers = rng.integers(0, n_brands, (len(leaf), 8))
    fit = to_leaf[offers, leaf[:, None]] + to_style[offers, style[:, None]]
    return np.asarray(offers[np.arange(len(leaf)), fit.argmax(axis=1)], np.int64)


@dataclass(frozen=True, slots=True)
class _Texts:
    titles: list[str]
    descriptions: list[str]
    colours: list[str]
    nouns: Ints
    size_factor: NDArray[np.float64]
    attributes: list[dict[str, str]]


def _texts(
    leaves: tuple[Leaf, ...], leaf: Ints, design: Ints, style_m: Ints, brand_m: Ints, rng: np.random.Generator
) -> _Texts:
    """Words of every item; no two items have the same title."""
    items, m = len(leaf), len(style_m)
    draws = rng.random((m, 4))
    turn = rng.integers(0, 1_000_000, items)
    titles: list[str] = []
    descriptions: list[str] = []
    colours: list[str] = []
    attributes: list[dict[str, str]] = []
    nouns = np.zeros(items, np.int64)
    size_factor = np.ones(items)
    taken: set[str] = set()
    variant = 0
    for i in range(items):
        d = int(design[i])
        variant = variant + 1 if i and design[i - 1] == d else 0
        entry, style = leaves[leaf[i]], naming.STYLES[style_m[d]]
        motif = style.motifs[int(draws[d, 0] * len(style.motifs))]
        # A style leans on two of the leaf's materials or flavours, so that these words carry taste too.
        material = entry.materials[(int(style_m[d]) + int(draws[d, 1] * 2)) % len(entry.materials)]
        noun = int(draws[d, 2] * len(entry.nouns))
        colour = style.colours[(int(draws[d, 3] * 4) + variant) % len(style.colours)]
        by_size = draws[d, 3] < 0.4
        size = (naming.PACKS if entry.cycle_days else naming.SIZES)[variant % 3]
        suffix = size if entry.cycle_days or by_size else colour
        text = naming.title(entry, motif, material, entry.nouns[noun], suffix)
        # A name that is taken: other motifs of the style first, then a number, as catalogues do.
        for motif_again in style.motifs:
            if text not in taken:
                break
            text = naming.title(entry, motif_again, material, entry.nouns[noun], suffix)
            if entry.cycle_days:
                text = f"{motif_again} {text}"
        number = 2
        while text in taken:
            base = text.rsplit(" No. ", 1)[0]
            text, number = f"{base} No. {number}", number + 1
        taken.add(text)
        titles.append(text)
        descriptions.append(
            naming.description(
                entry, style, material, entry.nouns[noun], naming.brand_name(int(brand_m[d])), int(turn[i])
            )
        )
        colours.append(colour)
        nouns[i] = noun
        if entry.cycle_days:
            kind = naming.KIND_OF_WORD.get(entry.path.split(" > ")[0], "material")
            attribute = {kind: material, "pack": size}
        else:
            attribute = {"material": material, "colour": colour} | ({"size": size} if by_size else {})
        attributes.append(attribute)
        if entry.cycle_days or by_size:
            size_factor[i] = (0.85, 1.0, 1.25)[variant % 3] if not entry.cycle_days else (1.0, 1.9, 2.8)[variant % 3]
    return _Texts(titles, descriptions, colours, nouns, size_factor, attributes)


def _lifetimes(design: Ints, items: int, days: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Day of birth (variants follow their design) and of discontinuation of each item."""
    m = int(design[-1]) + 1
    old = rng.random(m) < OLD_SHARE
    born_m = np.where(old, -rng.integers(1, 500, m), rng.integers(1, max(2, days - 3), m))
    late = np.where(rng.random(items) < 0.25, rng.integers(0, 40, items), 0)
    born = np.minimum(born_m[design] + late, days - 2)
    born = np.where(old[design] & (born > 0), 0, born)
    dies = np.where(
        rng.random(items) < DISCONTINUED_SHARE,
        np.maximum(born, 0) + rng.integers(45, max(46, days), items),
        days + 1_000,
    )
    return born.astype(np.int64), dies.astype(np.int64)


def _outages(items: int, days: int, rng: np.random.Generator) -> Ints:
    """One stretch of 3 to 20 days without stock for a quarter of the items; [0, 0) for the others."""
    start = rng.integers(0, days + 10, items)
    end = start + rng.integers(3, 21, items)
    has = rng.random(items) < OUTAGE_SHARE
    return np.stack([np.where(has, start, 0), np.where(has, end, 0)], axis=1).astype(np.int64)


def _fashion(m: int, days: int, rng: np.random.Generator) -> Floats:
    """A slow random walk per design that is pulled back to zero: what sells this month sold last month."""
    weeks = days // 7 + 2
    walk = np.zeros((m, weeks), np.float32)
    walk[:, 0] = rng.normal(0, 0.65, m)
    for week in range(1, weeks):
        walk[:, week] = 0.92 * walk[:, week - 1] + rng.normal(0, 0.25, m)
    return walk


def _complements(
    leaves: tuple[Leaf, ...], leaf: Ints, bounds: Ints, factors: Floats, rng: np.random.Generator
) -> tuple[Ints, Floats]:
    """
    For each item the best-matching items of the leaves that go with its leaf.

    The match is style, colour and price position, so that a Fern teapot goes with a Fern mug of a similar price.
    """
    items = len(leaf)
    place = {entry.name: k for k, entry in enumerate(leaves)}
    partners = np.full((items, MAX_COMPLEMENTS), -1, np.int64)
    strength = np.zeros((items, MAX_COMPLEMENTS), np.float32)
    looks = np.concatenate([factors[:, :N_STYLES], 0.5 * factors[:, N_STYLES : N_STYLES + naming.N_MOODS]], axis=1)
    for k, entry in enumerate(leaves):
        mine = slice(int(bounds[k]), int(bounds[k + 1]))
        column = 0
        for name in entry.complements[:2]:
            if name not in place:
                continue
            other = slice(int(bounds[place[name]]), int(bounds[place[name] + 1]))
            tier_gap = np.abs(factors[mine, -3][:, None] - factors[other, -3][None, :])
            match = looks[mine] @ looks[other].T - 0.4 * tier_gap + 0.2 * rng.random(tier_gap.shape)
            best = np.argsort(-match, axis=1, kind="stable")[:, :2]
            width = best.shape[1]
            partners[mine, column : column + width] = best + other.start
            strength[mine, column : column + width] = (0.6, 0.35)[:width]
            column += width
    return partners, strength

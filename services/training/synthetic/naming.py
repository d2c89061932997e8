"""
Titles and descriptions from a grammar.

Rule: what a shopper may like about an item is in its words. A style shows in the motif, the colour and the choice of
material or flavour; a text model can therefore learn taste from titles alone. Words are ordinary; brands are invented.
"""

# ruff: noqa: E501  # tables of words: one row a style

from __future__ import annotations

from dataclasses import dataclass

from services.training.synthetic.taxonomy import Leaf


@dataclass(frozen=True, slots=True)
class Style:
    """A taste with a name: motifs for titles, colours for variants, a sentence for descriptions."""

    name: str
    motifs: tuple[str, ...]
    colours: tuple[str, ...]
    sentence: str


STYLES: tuple[Style, ...] = (
    Style("coastal", ("Harbour Stripe", "Seashell", "Driftwood", "Anchor", "Lighthouse", "Gull"), ("Navy", "Sea Blue", "Sand", "White"), "It brings a little salt air with it"),
    Style("botanical", ("Fern", "Botanical", "Eucalyptus", "Ivy", "Olive Branch", "Monstera"), ("Leaf Green", "Sage", "Forest Green", "Ivory"), "Drawn from leaves pressed in a garden notebook"),
    Style("rustic", ("Farmhouse", "Homestead", "Hedgerow", "Orchard", "Barn", "Cottage"), ("Oatmeal", "Brown", "Russet", "Cream"), "Plain, honest and a little rough at the edges"),
    Style("nordic", ("Nordic", "Fjord", "Snowfield", "Birch Forest", "Minimal", "Lunar"), ("White", "Pale Grey", "Black", "Ice Blue"), "Quiet shapes and nothing that is not needed"),
    Style("vintage", ("Vintage", "Parlour", "Antique", "Attic", "Lace", "Retro"), ("Dusty Pink", "Cream", "Duck Egg", "Gold"), "It looks as if it had a story before you"),
    Style("geometric", ("Geometric", "Chevron", "Mosaic", "Hexagon", "Terrazzo", "Grid"), ("Teal", "Mustard", "Black", "Coral"), "Clean lines set off by a strong pattern"),
    Style("floral", ("Wildflower", "Rose Garden", "Peony", "Meadow", "Daisy", "Blossom"), ("Blush", "Lilac", "Dusty Pink", "Sage"), "Covered in flowers, all year round"),
    Style("industrial", ("Workshop", "Foundry", "Riveted", "Loft", "Factory", "Blueprint"), ("Charcoal", "Black", "Copper", "Slate"), "Borrowed from old workshops and their solid tools"),
    Style("whimsical", ("Dancing Fox", "Moonlit Owl", "Happy Cloud", "Jolly Whale", "Sleepy Bear", "Rainbow"), ("Sunshine Yellow", "Sky Blue", "Coral", "Mint"), "It makes people smile before they know why"),
    Style("heritage", ("Heritage Check", "Tartan", "Herringbone", "Stag", "Highland", "Tweed"), ("Burgundy", "Bottle Green", "Navy", "Mustard"), "A pattern that grandparents would recognise"),
)  # fmt: skip
"""The ten tastes of the shop; an item has one, a shopper mixes a few."""

COLOUR_MOODS: dict[str, int] = {
    "White": 0, "Ivory": 0, "Cream": 0, "Pale Grey": 0, "Oatmeal": 0, "Sand": 0,
    "Navy": 1, "Sea Blue": 1, "Ice Blue": 1, "Sky Blue": 1, "Duck Egg": 1, "Teal": 1,
    "Leaf Green": 2, "Sage": 2, "Forest Green": 2, "Bottle Green": 2, "Mint": 2,
    "Black": 3, "Charcoal": 3, "Slate": 3, "Brown": 3,
    "Dusty Pink": 4, "Blush": 4, "Lilac": 4, "Coral": 4, "Burgundy": 4,
    "Gold": 5, "Mustard": 5, "Copper": 5, "Russet": 5, "Sunshine Yellow": 5,
}  # fmt: skip
"""Colour → one of six families, which is what shoppers have a taste for."""

N_MOODS = 6

SIZES: tuple[str, ...] = ("Small", "Medium", "Large")
PACKS: tuple[str, ...] = ("Single", "Pack of 3", "Pack of 6")

KIND_OF_WORD: dict[str, str] = {
    "Food": "flavour",
    "Pets": "flavour",
    "Home": "scent",
    "Wellbeing": "scent",
    "Garden": "sort",
}
"""What the material column of a consumable means in a department; elsewhere it is a material."""

_BRAND_FIRST = ("Alder", "Bramble", "Cobble", "Dapple", "Ember", "Fennel", "Gorse", "Hazel", "Inkwell", "Juniper", "Kestrel",
                "Larch", "Marlow", "Nettle", "Orrin", "Pebble", "Quill", "Rowan", "Sorrel", "Thistle", "Umber", "Verity",
                "Willow", "Yarrow")  # fmt: skip
_BRAND_LAST = (
    "& Finch",
    "& Daughters",
    "Lane",
    "Works",
    "House",
    "Row",
    "Mill",
    "& Thorne",
    "Supply",
    "Stores",
    "Yard",
    "& Wren",
)

_ADJECTIVES = (
    "handsome",
    "sturdy",
    "charming",
    "simple",
    "generous",
    "well-made",
    "cheerful",
    "thoughtful",
    "everyday",
    "lovely",
)


def brand_name(number: int) -> str:
    """An invented brand; distinct for numbers below 288."""
    first = _BRAND_FIRST[number % len(_BRAND_FIRST)]
    last = _BRAND_LAST[(number * 7 + number // len(_BRAND_FIRST)) % len(_BRAND_LAST)]
    return f"{first} {last}"


def title(leaf: Leaf, motif: str, material: str, noun: str, variant: str) -> str:
    """Such as "Harbour Stripe Stoneware Mug, Navy"; consumables go without the motif."""
    head = f"{material} {noun}" if leaf.cycle_days else f"{motif} {material} {noun}"
    return f"{head}, {variant}" if variant else head


def description(leaf: Leaf, style: Style, material: str, noun: str, brand: str, turn: int) -> str:
    """Two or three sentences; *turn* picks the wording."""
    adjective = _ADJECTIVES[turn % len(_ADJECTIVES)]
    article = "An" if adjective[0] in "aeiou" else "A"
    made = f"{article} {adjective} {material.lower()} {noun.lower()} by {brand}."
    return f"{made} {style.sentence}: our {style.name} range. {leaf.use}"

"""
The shop's tree of categories: one row a leaf, and nothing computed.

Rule: everything a leaf is lives in its row, so that a new leaf is one row and no code. Every word here is
ordinary English; no real brand appears. Prices are medians in pounds, chosen (not measured) to look like a gift
and homeware shop; cycles are days between purchases of a consumable, chosen likewise.
"""

# ruff: noqa: E501  # a table: one row a leaf reads better than six wrapped lines

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leaf:
    """
    One leaf of the tree.

    path         three levels, "A > B > C"
    price        median price of the leaf, pounds
    cycle_days   days until a shopper needs the same thing again; 0 for things that last
    season       key into calendar.SEASONS
    nouns        what the thing is called
    materials    what it is made of; for consumables the flavour or scent
    complements  leaves (third level names) whose items are bought with this one's
    use          closing sentence of the description
    """

    path: str
    price: float
    cycle_days: int
    season: str
    nouns: tuple[str, ...]
    materials: tuple[str, ...]
    complements: tuple[str, ...]
    use: str

    @property
    def name(self) -> str:
        """Third level of the path."""
        return self.path.rsplit(" > ", 1)[1]


def _leaf(
    path: str, price: float, cycle_days: int, season: str, nouns: str, materials: str, complements: str, use: str
) -> Leaf:
    return Leaf(path, price, cycle_days, season, _words(nouns), _words(materials), _words(complements), use)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


_CERAMIC = "Stoneware|Porcelain|Earthenware|Enamel|Bone China"
_WOOD = "Oak|Beech|Acacia|Bamboo|Walnut"
_CLOTH = "Cotton|Linen|Wool|Velvet|Canvas"
_METAL = "Brass|Iron|Copper|Steel|Tin"
_PAPER = "Recycled Paper|Kraft|Linen-Bound|Cotton Paper|Hardback"

LEAVES: tuple[Leaf, ...] = (
    _leaf("Home > Kitchen > Mugs", 8.5, 0, "gift", "Mug|Espresso Cup|Latte Mug", _CERAMIC, "Tea|Coffee", "Holds a proper cup and goes in the dishwasher."),
    _leaf("Home > Kitchen > Plates and Bowls", 12, 0, "steady", "Dinner Plate|Cereal Bowl|Serving Bowl|Side Plate", _CERAMIC, "Table Linen|Glassware", "Made for every day and good enough for guests."),
    _leaf("Home > Kitchen > Glassware", 9, 0, "steady", "Tumbler|Wine Glass|Water Carafe|Highball Glass", "Recycled Glass|Ribbed Glass|Crystal|Smoked Glass|Blown Glass", "Cordials|Plates and Bowls", "Rinse by hand to keep it clear."),
    _leaf("Home > Kitchen > Baking", 11, 0, "winter", "Cake Tin|Loaf Tin|Mixing Bowl|Rolling Pin|Pie Dish", "Stoneware|Steel|Beech|Enamel|Glass", "Sugar and Flour|Aprons", "For cakes that come out in one piece."),
    _leaf("Home > Kitchen > Chopping Boards", 19, 0, "steady", "Chopping Board|Bread Board|Cheese Board", _WOOD, "Kitchen Knives|Olive Oil", "Oil it twice a year and it lasts for decades."),
    _leaf("Home > Kitchen > Kitchen Knives", 24, 0, "gift", "Paring Knife|Bread Knife|Chef's Knife", "Steel|Carbon Steel|Oak-Handled|Walnut-Handled|Ash-Handled", "Chopping Boards", "Arrives sharp in a card sleeve."),
    _leaf("Home > Kitchen > Storage Jars", 10, 0, "steady", "Storage Jar|Biscuit Tin|Tea Caddy|Spice Jar", "Glass|Enamel|Tin|Stoneware|Bamboo", "Spices|Tea", "Keeps the air out and the flavour in."),
    _leaf("Home > Kitchen > Teapots", 22, 0, "winter", "Teapot|Infuser Teapot|Milk Jug", "Stoneware|Cast Iron|Porcelain|Glass|Enamel", "Tea|Mugs", "Pours without a drip."),
    _leaf("Home > Kitchen > Table Linen", 14, 0, "gift", "Tablecloth|Napkin Set|Table Runner|Tea Towel", _CLOTH, "Plates and Bowls|Candles", "Washes at forty degrees."),
    _leaf("Home > Kitchen > Aprons", 18, 0, "gift", "Apron|Oven Glove|Pot Holder", _CLOTH, "Baking", "One size, long ties."),
    _leaf("Home > Living Room > Cushions", 21, 0, "steady", "Cushion|Bolster Cushion|Floor Cushion", _CLOTH, "Throws", "Comes with its filling; the cover zips off."),
    _leaf("Home > Living Room > Throws", 36, 0, "winter", "Throw|Knitted Throw|Sofa Blanket", _CLOTH, "Cushions", "Soft from the first evening."),
    _leaf("Home > Living Room > Candles", 11, 38, "winter", "Candle|Scented Candle|Tealight Set|Pillar Candle", "Beeswax|Lavender|Sandalwood|Fig|Sea Salt|Cedar|Orange Blossom|Vanilla|Rose|Pine", "Candle Holders", "Burns evenly; trim the wick first."),
    _leaf("Home > Living Room > Candle Holders", 13, 0, "winter", "Candle Holder|Candlestick|Tealight Holder", "Brass|Glass|Iron|Stoneware|Oak", "Candles", "Stands firm on felt feet."),
    _leaf("Home > Living Room > Lamps", 48, 0, "winter", "Table Lamp|Desk Lamp|Lampshade", "Brass|Ceramic|Oak|Rattan|Steel", "Clocks", "Takes a standard bulb."),
    _leaf("Home > Living Room > Vases", 17, 0, "spring", "Vase|Bud Vase|Flower Jug", "Stoneware|Recycled Glass|Terracotta|Porcelain|Brass", "Picture Frames", "Holds a bunch or a single stem."),
    _leaf("Home > Living Room > Clocks", 32, 0, "gift", "Wall Clock|Mantel Clock|Alarm Clock", "Oak|Brass|Slate|Tin|Walnut", "Lamps", "Silent movement, one battery."),
    _leaf("Home > Living Room > Picture Frames", 14, 0, "gift", "Picture Frame|Photo Frame|Collage Frame", "Oak|Brass|Walnut|Silver-Plated|Painted Wood", "Prints", "Hangs or stands."),
    _leaf("Home > Living Room > Prints", 19, 0, "steady", "Art Print|Poster|Framed Print", "Giclée|Letterpress|Screen-Printed|Linocut|Watercolour", "Picture Frames", "Printed on heavy paper in small runs."),
    _leaf("Home > Living Room > Baskets", 23, 0, "steady", "Basket|Log Basket|Storage Basket", "Seagrass|Wicker|Jute|Felt|Rattan", "Throws", "Sturdy handles, flat base."),
    _leaf("Home > Bedroom > Bed Linen", 52, 0, "steady", "Duvet Set|Fitted Sheet|Bedspread", "Cotton|Linen|Percale|Flannel|Bamboo", "Pillowcases", "Gets softer with every wash."),
    _leaf("Home > Bedroom > Pillowcases", 13, 0, "steady", "Pillowcase|Pillow Sham", "Cotton|Linen|Percale|Flannel|Silk", "Bed Linen", "Envelope closing, no buttons."),
    _leaf("Home > Bedroom > Hot Water Bottles", 16, 0, "winter", "Hot Water Bottle|Bed Warmer", "Wool|Fleece|Cotton|Knitted|Cashmere", "Throws", "Cover comes off for washing."),
    _leaf("Home > Bathroom > Towels", 15, 0, "steady", "Hand Towel|Bath Towel|Bath Mat", "Cotton|Waffle|Linen|Bamboo|Terry", "Soap", "Thick, quick to dry."),
    _leaf("Home > Bathroom > Soap", 5.5, 26, "steady", "Soap Bar|Hand Wash|Soap Set", "Lavender|Oatmeal|Rosemary|Sea Kelp|Lemon|Rose|Charcoal|Cedar|Mint|Honey", "Soap Dishes|Towels", "Kind to hands, no palm oil."),
    _leaf("Home > Bathroom > Soap Dishes", 9, 0, "steady", "Soap Dish|Toothbrush Holder|Bathroom Tray", "Stoneware|Bamboo|Marble|Brass|Enamel", "Soap", "Drains well and wipes clean."),
    _leaf("Home > Laundry > Cleaning", 6, 30, "steady", "Laundry Liquid|Surface Spray|Washing-up Liquid|Scrub Brush", "Lemon|Lavender|Pine|Eucalyptus|Mint|Orange|Rosemary|Unscented", "Laundry Care", "Plant-based and refillable."),
    _leaf("Home > Laundry > Laundry Care", 12, 0, "steady", "Peg Bag|Laundry Basket|Drying Rack", "Cotton|Jute|Beech|Canvas|Seagrass", "Cleaning", "Folds away flat."),
    _leaf("Garden > Growing > Planters", 18, 0, "spring", "Herb Planter|Plant Pot|Window Box|Hanging Planter", "Terracotta|Zinc|Stoneware|Concrete|Wicker", "Seeds|Compost and Feed", "Drainage hole and saucer included."),
    _leaf("Garden > Growing > Seeds", 3.2, 45, "spring", "Seeds|Bulbs|Seed Set", "Basil|Sunflower|Tomato|Lavender|Poppy|Sweet Pea|Chilli|Nasturtium|Carrot|Cosmos", "Planters|Compost and Feed", "Sowing notes on the packet."),
    _leaf("Garden > Growing > Compost and Feed", 7.5, 34, "spring", "Potting Compost|Plant Feed|Seaweed Tonic", "Peat-Free|Tomato|Rose|Cactus|Herb|Orchid", "Planters|Seeds", "For pots and beds."),
    _leaf("Garden > Growing > Garden Tools", 16, 0, "spring", "Hand Trowel|Hand Fork|Secateurs|Dibber", "Ash-Handled|Steel|Copper|Beech-Handled|Forged", "Gardening Gloves|Seeds", "Good steel, comfortable grip."),
    _leaf("Garden > Growing > Gardening Gloves", 9, 0, "spring", "Gardening Gloves|Kneeler|Tool Belt", "Leather|Cotton|Canvas|Bamboo|Suede", "Garden Tools", "Thorn-proof where it matters."),
    _leaf("Garden > Growing > Watering Cans", 21, 0, "spring", "Watering Can|Mister|Watering Bulb", "Zinc|Copper|Enamel|Brass|Steel", "Planters", "Fine rose, well balanced."),
    _leaf("Garden > Outdoor Living > Lanterns", 22, 0, "summer", "Lantern|Solar Lantern|Festoon Lights", "Iron|Bamboo|Glass|Tin|Paper", "Candles|Outdoor Cushions", "For long evenings outside."),
    _leaf("Garden > Outdoor Living > Outdoor Cushions", 25, 0, "summer", "Seat Pad|Outdoor Cushion|Deckchair Sling", "Canvas|Acrylic|Cotton|Jute|Olefin", "Lanterns|Picnic", "Shrugs off a shower."),
    _leaf("Garden > Outdoor Living > Picnic", 27, 0, "summer", "Picnic Blanket|Cool Bag|Picnic Basket|Flask", "Wicker|Wool|Canvas|Steel|Cotton", "Cordials|Outdoor Cushions", "Packs small, carries far."),
    _leaf("Garden > Outdoor Living > Barbecue", 20, 0, "summer", "Grill Tongs|Skewer Set|Grill Basket", "Steel|Oak-Handled|Cast Iron|Beech-Handled|Bamboo", "Sauces", "Long handles keep hands cool."),
    _leaf("Garden > Wildlife > Bird Feeders", 14, 0, "winter", "Bird Feeder|Bird Table|Nest Box", "Cedar|Oak|Iron|Ceramic|Copper", "Bird Food", "Easy to fill, hard for squirrels."),
    _leaf("Garden > Wildlife > Bird Food", 6.5, 24, "winter", "Bird Seed|Fat Balls|Suet Treats", "Sunflower|Nyjer|Mealworm|Peanut|Mixed Berry|Oat", "Bird Feeders", "No fillers, robins approve."),
    _leaf("Food > Pantry > Tea", 5.8, 28, "winter", "Tea|Loose Leaf Tea|Herbal Tea", "Earl Grey|Peppermint|Assam|Chamomile|Green Jasmine|Rooibos|Lapsang|Ginger|Darjeeling|Rosehip", "Teapots|Mugs|Biscuits", "Brew for four minutes."),
    _leaf("Food > Pantry > Coffee", 8.9, 21, "steady", "Ground Coffee|Coffee Beans|Filter Coffee", "Colombian|Ethiopian|Dark Roast|Decaf|Guatemalan|Breakfast|Espresso|Sumatran|Hazelnut|Honduran", "Mugs|Biscuits", "Roasted in small batches."),
    _leaf("Food > Pantry > Biscuits", 4.4, 24, "winter", "Biscuits|Shortbread|Oatcakes|Cookies", "Ginger|Butter|Chocolate Chip|Lemon|Oat|Almond|Cheddar|Rosemary|Orange|Hazelnut", "Tea|Coffee", "Best with something hot."),
    _leaf("Food > Pantry > Chocolate", 4.9, 22, "gift", "Chocolate Bar|Truffles|Hot Chocolate", "Dark|Milk|Sea Salt|Orange|Mint|Hazelnut|Raspberry|Chilli|Caramel|White", "Coffee", "Single-origin cocoa."),
    _leaf("Food > Pantry > Preserves", 5.2, 40, "steady", "Jam|Marmalade|Honey|Chutney", "Strawberry|Seville Orange|Heather|Blackcurrant|Fig|Damson|Apple|Rhubarb|Apricot|Quince", "Biscuits|Tea", "Made in open pans."),
    _leaf("Food > Pantry > Spices", 3.9, 48, "steady", "Spice Blend|Sea Salt Flakes|Peppercorns|Herb Rub", "Smoked|Garam|Moroccan|Lemon|Chilli|Rosemary|Fennel|Cumin|Za'atar|Juniper", "Storage Jars|Olive Oil", "Ground to order."),
    _leaf("Food > Pantry > Olive Oil", 9.8, 42, "steady", "Olive Oil|Rapeseed Oil|Balsamic Vinegar", "Lemon|Extra Virgin|Chilli|Basil|Garlic|Early Harvest|Smoked|Fig", "Spices", "Cold pressed, dark bottle."),
    _leaf("Food > Pantry > Sauces", 4.6, 35, "summer", "Relish|Barbecue Sauce|Mustard|Pesto", "Smoky|Wholegrain|Tomato|Basil|Honey|Chilli|Onion|Caramelised|Ale|Walnut", "Barbecue", "Opens a sandwich to possibilities."),
    _leaf("Food > Pantry > Sugar and Flour", 3.4, 30, "winter", "Bread Flour|Baking Sugar|Oats|Cake Mix", "Wholemeal|Spelt|Muscovado|Rye|Golden|Malted|Jumbo|Lemon", "Baking", "Stone-ground in small lots."),
    _leaf("Food > Drinks > Cordials", 5.4, 27, "summer", "Cordial|Pressé|Lemonade", "Elderflower|Ginger|Raspberry|Rhubarb|Lime|Blackcurrant|Cucumber|Apple|Rose|Lemon", "Glassware|Picnic", "One part cordial, five parts water."),
    _leaf("Stationery > Paper > Notebooks", 9.5, 60, "school", "Notebook|Journal|Sketchbook", _PAPER, "Pens|Pencils", "Lies flat, takes ink well."),
    _leaf("Stationery > Paper > Greeting Cards", 2.9, 33, "gift", "Birthday Card|Thank You Card|Card Set", "Letterpress|Foiled|Seeded Paper|Kraft|Linocut", "Gift Wrap|Pens", "Blank inside, envelope included."),
    _leaf("Stationery > Paper > Gift Wrap", 4.2, 36, "gift", "Gift Wrap|Ribbon|Gift Bag|Tissue Paper", "Recycled Paper|Kraft|Foiled|Cotton|Satin", "Greeting Cards", "Recyclable, no plastic film."),
    _leaf("Stationery > Paper > Planners", 13, 0, "school", "Weekly Planner|Wall Calendar|Desk Pad", _PAPER, "Pens", "Undated, start any Monday."),
    _leaf("Stationery > Writing > Pens", 6.8, 55, "school", "Rollerball Pen|Fountain Pen|Fineliner Set", "Brass|Lacquered|Aluminium|Walnut|Recycled", "Notebooks|Planners", "Takes standard refills."),
    _leaf("Stationery > Writing > Pencils", 4.5, 65, "school", "Pencil Set|Colouring Pencils|Pencil Sharpener", "Cedar|Graphite|Watercolour|Brass|Painted", "Notebooks|Pencil Cases", "Smooth leads that do not snap."),
    _leaf("Stationery > Writing > Pencil Cases", 9, 0, "school", "Pencil Case|Pencil Roll|Desk Tidy", "Canvas|Leather|Cotton|Felt|Cork", "Pencils|Pens", "Room for a term's worth."),
    _leaf("Kids > Play > Wooden Toys", 16, 0, "gift", "Stacking Toy|Pull-Along Toy|Building Blocks|Train Set", _WOOD, "Puzzles", "Water-based paint, rounded edges."),
    _leaf("Kids > Play > Puzzles", 12, 0, "winter", "Jigsaw Puzzle|Puzzle Cube|Memory Game", "Wooden|Cardboard|Magnetic|Recycled|Floor", "Wooden Toys|Board Games", "For patient hands of any age."),
    _leaf("Kids > Play > Soft Toys", 17, 0, "gift", "Rabbit Soft Toy|Bear Soft Toy|Fox Soft Toy|Rag Doll", "Cotton|Plush|Corduroy|Knitted|Linen", "Baby Blankets|Picture Books", "Safe from birth."),
    _leaf("Kids > Play > Board Games", 22, 0, "winter", "Board Game|Card Game|Dominoes|Chess Set", "Wooden|Travel|Family|Classic|Magnetic", "Puzzles", "Learn in five minutes."),
    _leaf("Kids > Play > Craft Kits", 13, 42, "school", "Craft Kit|Sticker Set|Modelling Clay|Bead Kit", "Paper|Felt|Clay|Wooden|Origami", "Colours and Brushes", "Everything in the box."),
    _leaf("Kids > Play > Picture Books", 8.5, 50, "gift", "Picture Book|Bedtime Stories|Activity Book", "Hardback|Board|Lift-the-Flap|Illustrated|Pop-Up", "Soft Toys", "Good for reading aloud twice."),
    _leaf("Kids > School > Lunch Boxes", 13, 0, "school", "Lunch Box|Water Bottle|Snack Pot", "Steel|Bamboo|Tin|Insulated|Silicone", "Backpacks", "Leak-proof and easy to open."),
    _leaf("Kids > School > Backpacks", 29, 0, "school", "Backpack|Drawstring Bag|Satchel", "Canvas|Recycled|Cotton|Corduroy|Waxed", "Lunch Boxes|Pencil Cases", "Padded straps, name label inside."),
    _leaf("Kids > Nursery > Baby Blankets", 24, 0, "steady", "Baby Blanket|Muslin Set|Swaddle", "Cotton|Merino|Bamboo|Muslin|Cashmere", "Soft Toys", "Soft, breathable, washable."),
    _leaf("Accessories > Bags > Tote Bags", 14, 0, "summer", "Tote Bag|Shopper|Beach Bag", "Canvas|Jute|Cotton|Linen|Straw", "Purses", "Carries a week of groceries."),
    _leaf("Accessories > Bags > Purses", 19, 0, "gift", "Purse|Wash Bag|Make-up Bag|Card Holder", "Leather|Canvas|Velvet|Cork|Quilted", "Tote Bags|Hand Cream", "Zips smoothly, lined throughout."),
    _leaf("Accessories > Wear > Scarves", 24, 0, "winter", "Scarf|Shawl|Snood", "Wool|Silk|Cashmere|Cotton|Lambswool", "Hats and Gloves", "Warm without weight."),
    _leaf("Accessories > Wear > Hats and Gloves", 19, 0, "winter", "Beanie|Gloves|Mittens|Bobble Hat", "Merino|Wool|Cashmere|Fleece|Lambswool", "Scarves", "Knitted close, no itch."),
    _leaf("Accessories > Wear > Socks", 7.5, 44, "winter", "Socks|Bed Socks|Ankle Socks", "Cotton|Merino|Bamboo|Cashmere|Wool", "Hats and Gloves", "Reinforced heel and toe."),
    _leaf("Accessories > Wear > Jewellery", 26, 0, "gift", "Necklace|Earrings|Bracelet|Brooch", "Silver|Gold-Plated|Beaded|Enamel|Brass", "Greeting Cards", "Comes in a small card box."),
    _leaf("Accessories > Wear > Umbrellas", 22, 0, "winter", "Umbrella|Folding Umbrella|Rain Poncho", "Birch-Handled|Recycled|Waxed|Clear|Bamboo-Handled", "Hats and Gloves", "Holds up in wind."),
    _leaf("Wellbeing > Body > Hand Cream", 8.2, 31, "winter", "Hand Cream|Body Lotion|Lip Balm", "Lavender|Shea|Rose|Almond|Geranium|Oat|Neroli|Calendula|Honey|Mint", "Soap", "Sinks in quickly."),
    _leaf("Wellbeing > Body > Hair Care", 9.4, 33, "steady", "Shampoo Bar|Conditioner Bar|Hair Oil", "Rosemary|Coconut|Nettle|Argan|Lavender|Citrus|Peppermint|Chamomile", "Hand Cream|Towels", "No bottle, lasts two months."),
    _leaf("Wellbeing > Body > Bath", 7.9, 29, "winter", "Bath Salts|Bath Oil|Bath Bombs", "Eucalyptus|Lavender|Rose|Seaweed|Orange|Jasmine|Pine|Chamomile", "Towels|Candles", "A capful to a bath."),
    _leaf("Wellbeing > Home Scents > Diffusers", 18, 52, "gift", "Reed Diffuser|Room Spray|Incense", "Fig|Sandalwood|Bergamot|Cedar|Linen|Sea Salt|Jasmine|Amber", "Candles", "Fills a room gently."),
    _leaf("Pets > Dogs > Leads and Collars", 17, 0, "steady", "Dog Lead|Dog Collar|Dog Harness", "Leather|Rope|Tweed|Canvas|Waxed", "Dog Treats", "Strong clip, soft edge."),
    _leaf("Pets > Dogs > Dog Treats", 6.2, 19, "steady", "Dog Treats|Dog Biscuits|Dental Chews", "Salmon|Chicken|Venison|Sweet Potato|Duck|Peanut|Cheese|Turkey", "Leads and Collars", "Grain-free, oven-baked."),
    _leaf("Pets > Cats > Cat Toys", 7, 0, "steady", "Cat Toy|Catnip Mouse|Scratch Post", "Felt|Sisal|Wool|Cardboard|Jute", "Cat Treats", "For the afternoon madness."),
    _leaf("Pets > Cats > Cat Treats", 4.8, 18, "steady", "Cat Treats|Cat Biscuits|Cat Pâté", "Tuna|Chicken|Salmon|Prawn|Duck|Sardine|Turkey|Cod", "Cat Toys", "Fussy eaters included."),
    _leaf("Crafts > Yarn and Thread > Yarn", 6.9, 32, "winter", "Yarn|Chunky Yarn|Sock Yarn", "Merino|Alpaca|Cotton|Mohair|Lambswool|Bamboo", "Needles and Hooks", "Pattern idea on the band."),
    _leaf("Crafts > Yarn and Thread > Needles and Hooks", 11, 0, "winter", "Knitting Needles|Crochet Hook Set|Stitch Markers", "Bamboo|Birch|Rosewood|Steel|Brass", "Yarn", "Smooth points that do not catch."),
    _leaf("Crafts > Art > Colours and Brushes", 12, 40, "school", "Watercolour Set|Brush Set|Acrylic Set|Ink Set", "Artist|Student|Travel|Botanical|Studio|Pocket", "Notebooks", "Strong pigments, easy to mix."),
    _leaf("Celebrations > Party > Party Tableware", 6.4, 48, "summer", "Paper Plates|Paper Cups|Paper Napkins", "Recycled|Foiled|Compostable|Scalloped|Kraft", "Bunting and Balloons", "Set of eight."),
    _leaf("Celebrations > Party > Bunting and Balloons", 7.6, 0, "summer", "Bunting|Balloon Set|Paper Garland", "Cotton|Paper|Felt|Foil|Tissue", "Party Tableware", "Ready to hang."),
    _leaf("Celebrations > Seasonal > Christmas Decorations", 7.8, 0, "christmas", "Bauble|Tree Decoration|Wreath|Advent Calendar", "Glass|Felt|Wooden|Brass|Paper", "Gift Wrap|Candles", "Packed to be put away safely."),
    _leaf("Celebrations > Seasonal > Halloween", 6.5, 0, "halloween", "Pumpkin Lantern|Spooky Garland|Treat Bucket", "Felt|Tin|Paper|Ceramic|Wooden", "Chocolate|Candles", "Frightening in a friendly way."),
    _leaf("Celebrations > Seasonal > Easter", 5.9, 0, "easter", "Egg Decoration|Easter Basket|Spring Wreath", "Felt|Painted Wood|Wicker|Ceramic|Paper", "Chocolate", "Comes out every spring."),
)  # fmt: skip
"""Every leaf of the shop, in the order in which items are numbered by leaf."""

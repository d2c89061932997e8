"""
The language of the transcripts, and how a slate reads in them. One command a line; what it reports stands below.

    ask SUBJECT PLACEMENT COUNT [WORD=VALUE …]   SUBJECT: u1 (user), v1 (visitor), - (nobody). Words: budget=50ms
                                                  item=3 cart=3,4 category=Toys exclude=1,2 rank=3,35,20 brand=Dune
                                                  max-price=20 diversity=high seen=exclude
    event SUBJECT TYPE ITEM [ID]                 view click impression add_to_cart remove_from_cart purchase
    slow NAME 90ms · hang NAME · lose NAME LOSS · heal NAME
    sell-out ITEM … · restock ITEM …             and the catalogue is read anew
    reprice ITEM PRICE · delete ITEM … · put ITEM CATEGORY PRICE   the catalogue changes while the shop is open
    rule NAME ACTION ITEM … [WORD=VALUE …]       position=1 factor=2 places=3 from=5s until=10s (from now) on=home,cart
                                                  shopper=known; beside those there are
    no-rules                                     another file, which is empty
    forget                                       the store is emptied, as by a Redis that came back empty
    advance 5s                                   nobody asks anything for a while
    set SECTION__KEY VALUE …                     before the first other command

NAME: collaborative_filtering content_based reranking user slate_cache. The shop: tests/support/worlds.py.
"""

from datetime import UTC, datetime

from orchestrator.core.model import Diversity, ItemFilter, Loss, Placement, Query, Slate
from protos.catalogue import ItemState
from tests.support import builders
from tests.support.virtual_clock import advance, monotonic, wall
from tests.support.worlds import FOREVER, World

UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


class Stage:
    """One world and the commands that act on it."""

    def __init__(self) -> None:
        self._settings: dict[str, str] = {}
        self._rules = ""
        self._made: World | None = None

    @property
    def world(self) -> World:
        if self._made is None:
            self._made = World(**self._settings)
        return self._made

    async def do(self, line: str) -> str:
        """Carry out one command and say what came of it."""
        verb, *words = line.split()
        command = getattr(self, f"_{verb.replace('-', '_')}", None)
        if command is None:
            raise ValueError(f"no command {verb!r}; see tests/scenarios/script.py")
        return await command(*words) or "ok"

    async def _set(self, *words: str) -> None:
        assert self._made is None, "set comes before everything else"
        self._settings |= {f"TUTTI_{key.upper()}": value for key, value in zip(words[::2], words[1::2], strict=True)}

    async def _slow(self, name: str, how: str) -> None:
        self.world[name].latency_s = seconds(how)

    async def _hang(self, name: str) -> None:
        self.world[name].latency_s = FOREVER

    async def _lose(self, name: str, loss: str) -> None:
        self.world.lose(name, loss=Loss(loss))

    async def _heal(self, name: str) -> None:
        self.world[name].heal()

    async def _sell_out(self, *items: str) -> None:
        self.world.sell_out(*map(int, items))

    async def _restock(self, *items: str) -> None:
        self.world.sold_out -= set(map(int, items))
        self.world.open()

    async def _reprice(self, item: str, price: str) -> None:
        self._change(int(item), {**(self.world.catalogue.document(f"i{int(item):02d}") or {}), "price": float(price)})

    async def _delete(self, *items: str) -> None:
        for item in items:
            self._change(int(item), None)

    async def _put(self, item: str, category: str, price: str) -> None:
        self._change(int(item), {"title": f"Item {item}", "category": category, "price": float(price)})

    def _change(self, key: int, document: dict | None) -> None:
        catalogue = self.world.catalogue
        catalogue.apply([ItemState(f"i{key:02d}", catalogue.n_changes + 1, key, document)])

    async def _rule(self, name: str, action: str, *words: str) -> None:
        items = [f"i{int(word):02d}" for word in words if "=" not in word]
        lines = ["[[rules]]", f'name = "{name}"', f'action = "{action}"', f"items = {{ ids = {items} }}"]
        when: list[str] = []
        for word, value in (word.split("=") for word in words if "=" in word):
            match word:
                case "position" | "factor" | "places":
                    lines.append(f"{word} = {value}")
                case "from" | "until":
                    lines.append(f"{word} = {datetime.fromtimestamp(wall() + seconds(value), UTC).isoformat()}")
                case "on":
                    when.append(f"placements = {value.split(',')}")
                case "shopper":
                    when.append(f'shopper = "{value}"')
                case _:
                    raise ValueError(f"no word {word!r} in rule; see tests/scenarios/script.py")
        self._rules += "\n".join([*lines, f"when = {{ {', '.join(when)} }}", ""])
        self.world.rule(self._rules)

    async def _no_rules(self) -> None:
        self._rules = ""
        self.world.rule("")

    async def _forget(self) -> None:
        for part in ("histories", "shown", "watermarks", "slates", "seen"):
            getattr(self.world.store, part).clear()

    async def _advance(self, how: str) -> None:
        await advance(seconds(how))

    async def _event(self, subject: str, kind: str, item: str, event_id: str | None = None) -> str:
        code = getattr(builders, kind.upper())
        (new,) = await self.world.event(f"{subject[0]}:{subject}", int(item), code, event_id)
        return (
            f"{'accepted' if new else 'duplicate'}, watermark {self.world.store.watermarks[f'{subject[0]}:{subject}']}"
        )

    async def _ask(self, subject: str, placement: str, count: str, *words: str) -> str:
        about = dict(word.split("=", 1) for word in words)
        budget = about.pop("budget", None)
        started = monotonic()
        slate = await self.world.pipeline.recommend(
            a_query(subject, placement, count, about), None if budget is None else seconds(budget)
        )
        took_s = monotonic() - started
        hung = [name for name in ("slate_cache",) if self.world[name].latency_s == FOREVER]
        if not hung:  # work behind the answer would wait for ever
            await self.world.pipeline.drain()
        return told(slate, took_s)


def seconds(text: str) -> float:
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * UNITS[text[len(number) :]]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def a_query(subject: str, placement: str, count: str, about: dict[str, str]) -> Query:
    fields: dict = {"user_id": subject if subject[0] == "u" else None}
    fields["visitor_id"] = subject if subject[0] == "v" else None
    only: dict = {}
    for word, value in about.items():
        match word:
            case "item":
                fields["context_keys"] = numbers(value)
            case "cart":
                fields["cart_keys"] = numbers(value)
            case "exclude":
                fields["exclude_keys"] = numbers(value)
            case "rank":
                fields["only_keys"] = numbers(value)
            case "category":
                fields["category"] = value
            case "diversity":
                fields["diversity"] = Diversity(value)
            case "seen":
                fields["exclude_seen"] = value == "exclude"
            case "brand":
                only["brands"] = (value,)
            case "max-price":
                only["price_max"] = float(value)
            case _:
                raise ValueError(f"no word {word!r} in ask; see tests/scenarios/script.py")
    if only:
        fields["filter"] = ItemFilter(**only)
    return builders.a_query(placement=Placement(placement), count=int(count), **fields)


def told(slate: Slate, took_s: float) -> str:
    """A slate as a reader of the transcript wants it: how good, how fast, what, from whom, what was lost."""
    memory = " from memory" if slate.from_cache else ""
    lines = [f"{slate.level.value}{memory}, {took_s * 1000:.0f} ms, watermark {slate.watermark}"]
    groups: list[tuple[tuple[str, ...], list[int]]] = []
    for item in slate.items:
        if groups and groups[-1][0] == item.sources:
            groups[-1][1].append(item.key)
        else:
            groups.append((item.sources, [item.key]))
    for sources, keys in groups:
        lines.append(f"  {' '.join(map(str, keys))}  ({' + '.join(sources) or 'nobody'})")
    lines.extend(
        f"  {source.name}: {source.status} {source.took_ms:.0f} ms, {source.candidates} found, {source.kept} kept"
        for source in slate.sources
    )
    if slate.losses:
        lines.append("  lost " + ", ".join(f"{name} ({loss.value})" for name, loss in slate.losses))
    if slate.removed:
        lines.append("  removed " + ", ".join(f"{n} {rule}" for rule, n in slate.removed))
    return "\n".join(lines)

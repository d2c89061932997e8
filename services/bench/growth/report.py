"""
The curves as text, and which files they are drawn into.
"""

from __future__ import annotations

from pathlib import Path

from services.bench.growth.chart import chart, short
from services.bench.growth.curve import AT, AXES, BATCHES, ITEMS, USERS, Growth
from services.bench.table import aligned

TITLES = {
    "items": "items of the catalogue",
    "history": "events of the shopper's history",
    "candidates": "candidates re-ranked",
    "kept": "share of the catalogue that the filter keeps",
}

IS_LOG = {"items": True, "history": False, "candidates": False, "kept": True}


def text(growth: Growth) -> str:
    """One table an axis, memory, and what a larger shop costs over the usual one."""
    parts = [curve for axis in AXES if (curve := _curve(growth, axis))]
    parts.append(_ratios(growth))
    if growth.memory:
        parts.append(_memory(growth))
    if growth.redis:
        parts.append(_redis(growth))
    return "\n\n".join(part for part in parts if part)


def draw(growth: Growth, folder: Path) -> list[Path]:
    """Write one SVG an axis into *folder*; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for axis in AXES:
        costs = {batch: growth.along(axis, batch) for batch in BATCHES}
        if not costs[1]:
            continue
        series = {f"all, {batch} at once": [(c.point.value, c.total_ms) for c in costs[batch]] for batch in BATCHES}
        for stage in costs[1][0].ms:
            series[stage] = [(c.point.value, max(c.ms[stage], 0.0)) for c in costs[1]]
        path = folder / f"growth-{axis}.svg"
        path.write_text(
            chart("CPU of the bare arithmetic", TITLES[axis], "ms a query", series, IS_LOG[axis]), encoding="utf-8"
        )
        drawn.append(path)
    return drawn


def _curve(growth: Growth, axis: str) -> str:
    costs = growth.along(axis, 1)
    if not costs:
        return ""
    stages = list(costs[0].ms)
    together = {cost.point.value: cost.total_ms for cost in growth.along(axis, 32)}
    lines = [[TITLES[axis], *stages, "all, 1 at once", "all, 32 at once", "slots of 20", "from models"]]
    for cost in costs:
        value = f"{cost.point.value:.1%}" if axis == "kept" else short(cost.point.value)
        figures = [*(cost.ms[stage] for stage in stages), cost.total_ms, together[cost.point.value]]
        lines.append([value, *(f"{ms:.3f}" for ms in figures), f"{cost.slots:.1f}", f"{cost.own:.1f}"])
    return "CPU ms a query of the bare arithmetic:\n" + aligned(lines)


def _ratios(growth: Growth) -> str:
    lines = []
    for batch in BATCHES:
        ratio = growth.ratio("items", max(ITEMS), AT, batch)
        if ratio is not None:
            lines.append(f"{short(max(ITEMS))} items cost {ratio:.2f} × {short(AT)}, {batch} at once")
    return "\n".join(lines)


def _memory(growth: Growth) -> str:
    sizes = sorted({n for at in growth.memory.values() for n in at})
    lines = [["memory", *(short(n) for n in sizes), "bytes an item"]]
    for name, at in growth.memory.items():
        slope = growth.bytes_an_item(name)
        cells = [f"{at[n] / 1e6:,.0f} MB" if n in at else "–" for n in sizes]
        lines.append([name, *cells, "–" if slope is None else f"{slope:,.0f}"])
    return aligned(lines)


def _redis(growth: Growth) -> str:
    each = sum(growth.redis.values())
    said = ", ".join(f"{what} {size:,.0f}" for what, size in growth.redis.items())
    whole = ", ".join(f"{short(users)} {users * each / 1e9:,.2f} GB" for users in USERS)
    return (
        f"Redis: {each:,.0f} bytes a user ({said}), measured on {growth.redis_sample:,}; "
        f"by multiplication, for users: {whole}"
    )

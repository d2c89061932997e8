"""
The 44 rows of the fault matrix by number and name, and what stands for each: faults of the catalogue, a special way of
running, or the reason for which this machine or this system cannot show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.doctor.faults import Fault


@dataclass(frozen=True, slots=True)
class Row:
    """
    One row.

    Args:
        special: name of the function in `specials` that runs it; "" for faults of the catalogue.
        cannot: why it is skipped wherever it is run; "" when it can run.
    """

    number: int
    name: str
    special: str = ""
    cannot: str = ""


ROWS = (
    Row(1, "hang: re-ranker, all replicas"),
    Row(2, "hang: 1 of 2 re-rankers"),
    Row(3, "hang: collaborative filtering"),
    Row(4, "hang: content-based"),
    Row(5, "hang: every source"),
    Row(6, "hang: Redis"),
    Row(7, "late: Redis, features and cache"),
    Row(8, "hang: everything"),
    Row(9, "crash: each dependency"),
    Row(10, "crash: 1 of 2"),
    Row(11, "crash loop"),
    # case 77: reconnect_after_long_outage
    Row(12, "long outage, then start"),
    Row(13, "rolling restart of all dependencies"),
    Row(14, "rolling restart of the orchestrator"),
    Row(15, "blackhole, established"),
    Row(16, "hung from cold"),
    Row(17, "reject"),
    Row(18, "packet loss"),
    Row(19, "latency and jitter"),
    Row(20, "2 % of calls late"),
    Row(21, "bandwidth 64 kB/s"),
    Row(22, "connection reset in mid-stream"),
    Row(23, "garbage, truncated bytes"),
    Row(24, "slow drip, half-close"),
    Row(25, "error codes"),
    Row(26, "wrong answers"),
    Row(27, "Redis pauses"),
    Row(28, "Redis full, read-only, without clients"),
    Row(29, "Redis flushed"),
    Row(30, "Redis restarted, stale sockets"),
    Row(
        31,
        "DNS failure",
        cannot="`tutti up` gives addresses, not names; it would need targets by name and a mount namespace of its own",
    ),
    Row(32, "CPU starved"),
    Row(33, "a service group frozen"),
    Row(34, "overload 2×, 5×, 10× the knee", special="overload"),
    Row(35, "impatient clients while everything hangs"),
    Row(36, "loop stalls of 150 ms"),
    Row(
        37,
        "garbage collection, memory pressure",
        cannot="it would need a debug endpoint that allocates; an OOM-killed service is row 9",
    ),
    Row(38, "no more file descriptors"),
    Row(39, "log disk full", special="full_disk"),
    Row(40, "wall clock ±1 h", cannot="it would need libfaketime (`faketime`) around every process"),
    Row(41, "idle, then a burst", special="idle"),
    Row(42, "orchestrator stopped, then continued"),
    Row(43, "combined: re-ranker hangs, Redis is gone"),
    Row(44, "random nemesis", special="nemesis"),
)


def parse_rows(text: str) -> list[int]:
    """
    `1,2,9-12` → [1, 2, 9, 10, 11, 12].

    Raises:
        ValueError: no number of a row.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"{part!r} is no row; give numbers: 1,2,9-12")
        found += range(int(first), int(last or first) + 1)
    if unknown := [number for number in found if not 1 <= number <= len(ROWS)]:
        raise ValueError(f"there is no row {unknown[0]}; rows are 1 to {len(ROWS)}")
    return list(dict.fromkeys(found))


def within(faults: Sequence[Fault], each_s: float, total_s: float) -> tuple[list[Fault], list[Fault]]:
    """
    As many as fit into *total_s*, and the rest: the quick ones first, then one more of each row, then the others.

    Both in the order given.
    """
    order: dict[str, Fault] = {fault.name: fault for fault in faults if fault.quick}
    rows = {fault.row for fault in order.values()}
    for fault in faults:
        if fault.row not in rows:
            rows.add(fault.row)
            order[fault.name] = fault
    order |= {fault.name: fault for fault in faults if fault.name not in order}
    names = set(list(order)[: int(total_s // each_s)])
    return [f for f in faults if f.name in names], [f for f in faults if f.name not in names]

"""
Row 44: random faults, one on top of the other, for ten minutes, from a seed: every 1 to 5 s one begins or ends.

    python -m loadtests.faults.nemesis --data DIR [--seed 7] [--seconds 600] [--rate R] [--dry]

The schedule is printed first, and the same seed on the same kind of system gives the same again. What must hold: every
answer 200, whole, honest about no more than what was broken, and in the end everything healthy.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.doctor.catalogue import catalogue
from orchestrator.doctor.checker import Claim, Figures, Phases, figures_of, time_to_heal
from orchestrator.doctor.drill import LEAST_RATE, SETTLE_S, Load, healing_signals, measure_knee, spec_for
from orchestrator.doctor.faults import Fault, missing
from orchestrator.doctor.history import Seen, between
from orchestrator.doctor.injection import Injector
from orchestrator.doctor.mix import Shop
from orchestrator.doctor.proxy_control import CannotInject
from orchestrator.doctor.steps import (
    Again,
    Configure,
    Drop,
    FewFiles,
    ForgetSlates,
    Freeze,
    InTurn,
    Misbehave,
    Poison,
    Signal,
    Starve,
    Step,
    Tell,
)
from orchestrator.doctor.system import READY_WITHIN_S, System, attached_or_started

GAP_S = (1.0, 5.0)
"""Between two acts (resilience specification §5, row 44)."""

MOST_AT_ONCE = 3
"""Judged: enough for combinations nobody wrote down, few enough that there is still a system to look at."""

AFTER_S = 10.0
"""Healthy again within 5 s, and watched for as long."""

AFTERMATH_S = 5.0
"""After its end a fault may still be named for as long as healing may take."""

NOT_HERE = frozenset({"crash-loop", "rolling-restart", "restart-worker", "cold-hang", "few-files", "flush-redis"})
"""They take what the others need (ten minutes without features show nothing), or end long after they should."""


@dataclass(frozen=True, slots=True)
class Act:
    """At *at_s* from the beginning *fault* begins, or ends."""

    at_s: float
    fault: str
    begins: bool

    def __str__(self) -> str:
        return f"{self.at_s:7.1f} s  {'begin' if self.begins else 'end  '}  {self.fault}"


@dataclass(frozen=True, slots=True)
class Played:
    """A nemesis, judged. *times*: fault → the monotonic moments of each of its lives."""

    figures: Figures
    heal_s: float | None
    claims: tuple[Claim, ...]
    times: Mapping[str, Sequence[tuple[float, float]]]
    failures: Sequence[str]

    @property
    def holds(self) -> bool:
        return all(claim.holds for claim in self.claims)


def schedule(faults: Sequence[Fault], seconds: float, seed: int) -> list[Act]:
    """
    Who begins and ends when. Pure: the same faults and seed, the same acts.

    Two faults that touch the same thing never live at once, since the end of one would be the end of the other.
    """
    rng = random.Random(seed)  # noqa: S311 – replayable, not secret
    acts: list[Act] = []
    living: dict[str, Fault] = {}
    at_s = rng.uniform(*GAP_S)
    while at_s < seconds:
        touched = {thing for fault in living.values() for thing in touches(fault)}
        free = [fault for fault in faults if fault.name not in living and not touches(fault) & touched]
        if living and (len(living) >= MOST_AT_ONCE or not free or rng.random() < 0.45):
            name = rng.choice(sorted(living))
            del living[name]
            acts.append(Act(round(at_s, 2), name, begins=False))
        elif free:
            fault = rng.choice(free)
            if fault.lasts_s is None:
                living[fault.name] = fault
            acts.append(Act(round(at_s, 2), fault.name, begins=True))
        at_s += rng.uniform(*GAP_S)
    acts += [Act(seconds, name, begins=False) for name in sorted(living)]
    return acts


def touches(fault: Fault) -> frozenset[str]:
    """What a fault needs to have to itself."""
    return frozenset(thing for step in fault.steps for thing in _touched(step))


def _touched(step: Step) -> set[str]:
    match step:
        case Again(inner):
            return _touched(inner)
        case Signal(target) | InTurn(target):
            return {f"process {name}" for name in target.names}
        case Freeze(target) | Starve(target) | FewFiles(target):
            return {f"process {name}" for name in target.names} | {"control group"}
        case Poison(target) | Drop(target):
            return {f"network {name}" for name in target.names}
        case Tell() | Configure() | ForgetSlates():
            return {"process redis"}
        case Misbehave():
            return {"fault file"}


def play(
    system: System, shop: Shop, faults: Mapping[str, Fault], acts: Sequence[Act], seconds: float, rate: float, seed: int
) -> Played:
    """Play *acts* under load, heal everything, and judge."""
    injectors: dict[str, Injector] = {}
    lives: dict[str, list[tuple[float, float]]] = {}
    failures: list[str] = []
    spec = spec_for(system, shop, rate, seconds + AFTER_S + READY_WITHIN_S + 30, seed)
    with Load(spec) as load:
        time.sleep(SETTLE_S)
        begins_at = time.monotonic()
        began: dict[str, float] = {}
        try:
            for act in acts:
                time.sleep(max(0.0, begins_at + act.at_s - time.monotonic()))
                print(act, flush=True)
                try:
                    if act.begins:
                        began[act.fault] = time.monotonic()
                        injectors[act.fault] = Injector(system, seed)
                        injectors[act.fault].inject(faults[act.fault].steps)
                        if faults[act.fault].lasts_s is not None:
                            # Over by itself, as soon as the supervisor has done its part.
                            injectors.pop(act.fault).heal(wait=False)
                            lives.setdefault(act.fault, []).append(
                                (began.pop(act.fault), time.monotonic() + READY_WITHIN_S)
                            )
                    elif act.fault in injectors:
                        injectors.pop(act.fault).heal(wait=False)
                        lives.setdefault(act.fault, []).append((began.pop(act.fault), time.monotonic()))
                except CannotInject as error:
                    failures.append(f"{act.fault}: {error}")
        finally:
            for name, injector in injectors.items():
                injector.heal(wait=False)
                lives.setdefault(name, []).append((began[name], time.monotonic()))
        heal_from = time.monotonic()
        system.wait_ready(READY_WITHIN_S)
        healed_at = time.monotonic()
        time.sleep(AFTER_S)
        ends_at = time.monotonic()
        seen = list(between(load.finish(), begins_at, ends_at))
    phases = Phases(begins_at, begins_at, begins_at, heal_from, healed_at, ends_at)
    return judge_play(seen, phases, lives, faults, failures)


def _health(heal_s: float | None, after: Sequence[Seen], phases: Phases) -> str:
    """When it was healthy again, and the last of what was not: a page that says "not" must say what to look for."""
    unclean = [one for one in after if one.degraded or one.status != 200]
    last = "; ".join(
        f"{one.scheduled_at - phases.healed_at:.1f} s {'+'.join(one.degraded) or one.status} "
        f"({', '.join(f'{name} {status}' for name, status in one.lost)})"
        for one in unclean[-3:]
    )
    said = "not" if heal_s is None else f"{heal_s:.1f} s"
    return f"{said}, {len(unclean)} of {len(after)} unclean: {last}" if unclean else said


def judge_play(
    seen: Sequence[Seen],
    phases: Phases,
    lives: Mapping[str, Sequence[tuple[float, float]]],
    faults: Mapping[str, Fault],
    failures: Sequence[str],
) -> Played:
    """Pure: what must hold whatever was broken."""
    during = list(between(seen, phases.begins_at, phases.healed_at))
    after = list(between(seen, phases.healed_at, phases.ends_at))
    heal_s = time_to_heal([], after, phases)
    failed = Counter(one.error or str(one.status) for one in seen if one.status != 200)
    broken = Counter(words for one in seen for words in one.broken)
    figures = figures_of(during)
    blamed = Counter(name for one in during for name in one.degraded if name not in breakable(one, lives, faults))
    share = sum(blamed.values()) / max(1, len(during))
    named = ", ".join(f"{n}× {what}" for what, n in blamed.most_common(3))
    claims = (
        Claim("every answer 200", not failed, ", ".join(f"{n}× {what}" for what, n in failed.items()) or "all"),
        Claim("invariants", not broken, "; ".join(f"{n}× {what}" for what, n in broken.most_common(3)) or "kept"),
        Claim("p99 ≤ 100 ms", figures.p99_ms <= 100, f"{figures.p99_ms:.1f} ms"),
        Claim("only what was broken is named", share <= 0.01, named or "so"),
        Claim("healthy in the end", heal_s is not None and heal_s <= 5, _health(heal_s, after, phases)),
        Claim("every act was played", not failures, "; ".join(failures[:3]) or "all"),
    )
    return Played(figures, heal_s, claims, lives, failures)


def breakable(
    one: Seen, lives: Mapping[str, Sequence[tuple[float, float]]], faults: Mapping[str, Fault]
) -> frozenset[str]:
    """What an answer may name as lost: whatever a fault that lived during it, or shortly before, may take."""
    return frozenset(
        name
        for fault, spans in lives.items()
        if any(start <= one.done_at and one.scheduled_at <= end + AFTERMATH_S for start, end in spans)
        for name in faults[fault].expect.lost | faults[fault].expect.may_lose
    )


def playable(system: System) -> dict[str, Fault]:
    """Every fault this system and this machine can have, but those that stop the play itself."""
    return {
        fault.name: fault
        for fault in catalogue(system.names)
        if not missing(fault.needs, system)
        and fault.name not in NOT_HERE
        and not fault.impatient
        and fault.expect.p99_s <= 0.1
    }


def main() -> int:
    """Play; 1 when something did not hold, and then the line that plays it again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, help="requests a second; a quarter of the measured knee when absent")
    parser.add_argument("--dry", action="store_true", help="print the schedule and end")
    arguments = parser.parse_args()
    with healing_signals(), attached_or_started(arguments.data, print) as system:
        faults, shop = playable(system), system.shop()
        acts = schedule(list(faults.values()), arguments.seconds, arguments.seed)
        print(f"seed {arguments.seed}, {len(faults)} faults, {len(acts)} acts in {arguments.seconds:g} s:")
        print("\n".join(map(str, acts)), flush=True)
        if arguments.dry:
            return 0
        rate = arguments.rate or max(LEAST_RATE, measure_knee(system, shop, 3.0, arguments.seed).load)
        print(f"\nplaying at {rate:.0f} requests/s")
        played = play(system, shop, faults, acts, arguments.seconds, rate, arguments.seed)
    for claim in played.claims:
        print(f"{'✓' if claim.holds else '✗'} {claim.name}: {claim.found}")
    if not played.holds:
        print(f"again: python -m loadtests.faults.nemesis --data {arguments.data} --seed {arguments.seed}")
    return 0 if played.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())

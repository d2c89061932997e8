"""
Write the table of docs/resilience.md that says which test covers which case of the resilience specification.

A test says so itself, in a comment right above it: `# case 13: half_open_thundering` (several: `# case 18, 19: …`).
`tests/architecture/test_resilience_cases.py` keeps the table fresh and complete.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "resilience.md"
BEGIN, END = "<!-- cases: begin (tools/resilience_cases.py) -->", "<!-- cases: end -->"

CASES = (
    *("deadline_already_expired", "deadline_zero_not_infinite", "deadline_overshoot_grace", "deadline_shrinks_only"),
    *("deadline_shared_across_attempts", "loop_stall_answer_kept", "loop_stall_not_blamed", "server_drops_expired"),
    *("wallclock_jump", "client_disconnect", "queue_time_counted", "clock_skew_guard"),
    *("half_open_thundering", "half_open_permit_leak", "half_open_low_traffic", "late_result_from_closed"),
    *("release_from_old_generation", "cancel_is_not_success", "cancel_is_not_failure", "client_error_not_failure"),
    *("own_short_budget_not_failure", "slow_success_trips", "slow_rate_boundary", "min_calls", "window_rollover"),
    *("flapping_backoff", "breaker_per_method", "reject_is_cheap", "rejects_not_recorded", "listener_raises"),
    *("forced_open_sticks", "two_processes_independent", "stateful_model"),
    *("stable_timeout", "mild_overload_drift", "fast_errors_do_not_grow_limit", "app_limited"),
    *("permit_leak_on_cancel", "limit_shrinks_below_inflight", "bulkhead_isolation", "minrtt_epoch"),
    *("retry_storm_cap", "retry_budget_expiry", "retry_no_time", "retry_not_on_deadline"),
    *("retry_predicate_never_catches_cancel", "shared_AsyncRetrying", "stop_delay_overshoot"),
    *("hedge_loser_cancelled_and_released", "hedge_wins_first_fails", "hedge_delay_learned_from_fast_errors"),
    *("hedge_storm", "hedge_other_replica", "hedge_cold"),
    *("sf_leader_cancelled", "sf_waiter_cancelled", "sf_leader_short_deadline", "sf_join_after_cancel"),
    *("sf_exception_shared_not_cached", "sf_key_removed_once", "swr_one_refresh", "swr_refresh_fails"),
    *("lease_holder_dies", "stale_set_blocked", "negative_cached", "degraded_not_cached_as_fresh", "redis_flush_cold"),
    *("corrupt_entry", "redis_dirty_after_cancel", "redis_pool_exhausted", "redis_default_retry_off"),
    *("peer_faults", "goaway_too_many_pings", "graceful_restart", "dns_failure", "fork_after_channel"),
    *("reconnect_after_long_outage", "cancel_leak_soak"),
)
"""Names of the specification's 78 cases, in its order."""

CLAIM = re.compile(r"#\s*case ((?:\d+(?:, )?)+):")
TEST = re.compile(r"^\s*(?:async )?def (\w+)|^class (Test\w+)|^\s*(Row\(\d+)")
LOOK_AHEAD = 12
"""Lines between a claim and its test: decorators, and comments that tell the story."""


def claims() -> dict[int, list[tuple[str, str]]]:
    """Case number → (file, test) of everything that says it covers it, in the order of the files."""
    found: dict[int, list[tuple[str, str]]] = {}
    for path in sorted([*ROOT.glob("tests/**/*.py"), *ROOT.glob("loadtests/**/*.py")]):
        for numbers, name in _claims_in(path.read_text(encoding="utf-8").splitlines()):
            for number in numbers:
                entry = (path.relative_to(ROOT).as_posix(), name)
                if entry not in found.setdefault(number, []):
                    found[number].append(entry)
    return found


def table() -> str:
    """The whole table as Markdown, one line a case."""
    by_case = claims()
    lines = ["| case | | seen in |", "|---|---|---|"]
    for number, name in enumerate(CASES, 1):
        places = "<br>".join(f"`{file}` {test}" for file, test in by_case.get(number, []))
        lines.append(f"| {number} | {name} | {places or '**nowhere**'} |")
    return "\n".join(lines)


def page() -> str:
    """docs/resilience.md as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def _claims_in(lines: list[str]) -> Iterator[tuple[list[int], str]]:
    for number, line in enumerate(lines):
        claim = CLAIM.search(line)
        if claim is None:
            continue
        numbers = [int(each) for each in claim.group(1).split(", ")]
        after = (TEST.match(later) for later in lines[number + 1 : number + LOOK_AHEAD])
        match = next((found for found in after if found), None)
        name = next(group for group in match.groups() if group) if match else ""
        yield numbers, f"row {name.removeprefix('Row(')}" if name.startswith("Row(") else name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    missing = [str(number) for number in range(1, len(CASES) + 1) if number not in claims()]
    print(f"cases without a test: {', '.join(missing) or 'none'}")  # noqa: T201
    sys.exit(0)

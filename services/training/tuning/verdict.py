"""
Whether what trials found replaces the defaults.

The rule: one try. The best of many trials looks better than it is, so it is not believed on the window that chose it.
On a later one it meets the defaults once, in pairs: it must be better by more than noise, and worse by more on no page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.training.evaluation.compare import interval
from services.training.tuning.outcome import Outcome, worth

_LEVEL = 0.95
"""Two-sided, so that chance gets one try in forty: a wrong "yes" is paid for until the next tuning. Borrowed from the
transformer's trial (`collaborative_filtering/choice.py`), with which it shares the price."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What came of a stage.

    gain    of the value (`outcome.worth`, mean over tasks) on the confirming window; low, high: its bootstrap interval
    worse   tasks on which the found parameters are worse by more than noise
    """

    is_kept: bool
    why: str
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0
    shoppers: int = 0
    worse: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values of everything."""
        return {
            "is_kept": self.is_kept,
            "why": self.why,
            "gain": round(self.gain, 5),
            "interval": [round(self.low, 5), round(self.high, 5)],
            "shoppers": self.shoppers,
            "worse": list(self.worse),
        }


def decide(default: Outcome, found: Outcome, tasks: Sequence[str], seed: int) -> Verdict:
    """
    Compare two outcomes on the same queries.

    Args:
        tasks: what the value is the mean of; every other task may only not get worse.
    """
    shoppers = np.unique(np.concatenate([default.users[task] for task in default.judged]))
    shares = _shares(default, found, [task for task in tasks if task in default.judged], shoppers)
    low, high = interval(shares, seed, _LEVEL)
    gain = float(shares.mean())
    worse = tuple(task for task in default.judged if _is_worse(default, found, task, seed))
    if low <= 0:
        why = f"not better than the defaults beyond noise: {gain:+.4f} ({low:+.4f} … {high:+.4f})"
    elif worse:
        why = f"better by {gain:+.4f}, but worse beyond noise in {', '.join(worse)}"
    else:
        why = f"better than the defaults beyond noise: {gain:+.4f} ({low:+.4f} … {high:+.4f})"
    return Verdict(low > 0 and not worse, why, gain, low, high, len(shoppers), worse)


def _shares(default: Outcome, found: Outcome, tasks: Sequence[str], shoppers: NDArray[np.int64]) -> NDArray[np.float64]:
    """
    What each shopper (n,) adds to the gain, so that the mean is the gain: a shopper's queries are drawn together, since
    they resemble each other. How many queries a task has is taken as given.
    """
    shares = np.zeros(len(shoppers))
    for task in tasks:
        gains = worth(found.judged[task]) - worth(default.judged[task])
        np.add.at(shares, np.searchsorted(shoppers, default.users[task]), gains / len(gains) / len(tasks))
    return shares * len(shoppers)


def _is_worse(default: Outcome, found: Outcome, task: str, seed: int) -> bool:
    gains = worth(found.judged[task]) - worth(default.judged[task])
    return bool(interval(gains, seed, _LEVEL)[1] < 0)

"""
Tokens that spoil: what a budget for extra calls is made of.

A token lives for ten slices of a tenth of its life, so it is gone after its life at the latest and nine tenths of it
at the earliest. The oldest are spent first. Each is spent at most once, which is the whole proof that extra calls stay
below their share of the calls that earned them.
"""

from __future__ import annotations

N_SLICES = 10
"""Borrowed: Finagle's retry budget counts its 10 s in ten slices."""

ROUNDING = 1e-9
"""Ten times a tenth is one: what floating point may be off by when a price is compared with a balance."""


class SpoilingTokens:
    """A bucket, empty at first, whose tokens spoil *life_s* after they came. Moments never run backwards."""

    __slots__ = ("_balance", "_slice", "_slice_s", "_slices")

    def __init__(self, life_s: float) -> None:
        self._slice_s = life_s / N_SLICES
        self._slices = [0.0] * N_SLICES
        self._slice = 0
        self._balance = 0.0

    def put(self, now: float, n: float = 1.0) -> None:
        """*n* tokens come in."""
        self._spoil(now)
        self._slices[self._slice % N_SLICES] += n
        self._balance += n

    def try_take(self, now: float, n: float) -> bool:
        """Take *n* tokens, the oldest first; False, and none is taken, when there are fewer."""
        self._spoil(now)
        if self._balance + ROUNDING < n:
            return False
        missing = n
        for age in range(N_SLICES - 1, -1, -1):
            i = (self._slice - age) % N_SLICES
            taken = min(self._slices[i], missing)
            self._slices[i] -= taken
            missing -= taken
        # Summed and not subtracted, so that rounding does not add up over a day.
        self._balance = sum(self._slices)
        return True

    def balance(self, now: float) -> float:
        """Tokens left, never below 0."""
        self._spoil(now)
        return self._balance

    def _spoil(self, now: float) -> None:
        current = int(now / self._slice_s)
        n_passed = current - self._slice
        if n_passed <= 0:
            return
        for i in range(self._slice + 1, self._slice + 1 + min(n_passed, N_SLICES)):
            self._slices[i % N_SLICES] = 0.0
        self._slice = current
        self._balance = sum(self._slices)

    def __repr__(self) -> str:
        return f"<SpoilingTokens {self._balance:.1f} left, each lives {self._slice_s * N_SLICES:g} s>"

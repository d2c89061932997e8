"""
A share of things by their names: who meets the same thing twice, or in two processes, decides the same both times.

Pure, and no chance in it: a name is in or out for ever.
"""

from __future__ import annotations

import zlib


def is_sampled(name: str, share: float) -> bool:
    """
    Whether *name* is among the *share*, in [0, 1], of all names that is wanted.

    CRC-32: spreads random names evenly, which is all that is asked of it (test_sampling.py).
    """
    return zlib.crc32(name.encode()) < share * 2**32

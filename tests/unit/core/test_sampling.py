"""A share of names: even, for ever the same, and a larger share holds the smaller one."""

import uuid

import pytest

from orchestrator.core.sampling import is_sampled

NAMES = [str(uuid.UUID(int=number * 2**64 + number * 2654435761, version=4)) for number in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_share_is_about_that_many(share):
    found = sum(is_sampled(name, share) for name in NAMES) / len(NAMES)

    assert abs(found - share) < 0.2 * share


def test_none_and_all_are_exactly_that():
    assert not any(is_sampled(name, 0) for name in NAMES)
    assert all(is_sampled(name, 1) for name in NAMES)


def test_who_is_in_a_small_share_is_in_every_larger_one():
    assert all(is_sampled(name, 0.3) for name in NAMES if is_sampled(name, 0.1))

"""
What may not be shown, cheap rules first; each says how many candidates it removed.

A filter drops and never reorders; kept + removed is the input. Rules are masks over the candidates: True
stays.
"""

from __future__ import annotations

import numpy as np

from orchestrator.core.masks import says
from orchestrator.core.model import IMPRESSION, Candidates, Facts, Int32, Mask, Query, UserContext

_NONE = np.empty(0, np.int32)
"""What most requests forbid."""
_NONE.flags.writeable = False


def eligible(
    query: Query,
    user: UserContext,
    candidates: Candidates,
    facts: Facts,
    allowed: Mask | None,
    shown: Mask | None = None,
) -> tuple[Candidates, tuple[tuple[str, int], ...]]:
    """
    Apply every rule in order.

    Args:
        facts: rows aligned with *candidates*.
        allowed: (catalogue size,) the caller's filter as a mask over keys; None allows everything.
        shown: the same of the shop's rules: False where one hides the item.

    Returns:
        The candidates that may be shown, in their order, and (rule, number removed) for rules that removed any.
    """
    keys = candidates.keys
    rules: list[tuple[str, Mask]] = []
    if len(forbidden := forbidden_keys(query, user)):
        rules.append(("excluded", ~np.isin(keys, forbidden)))
    # Rankings keep sold-out items: the caller shows the whole list anyway and wants its order.
    if not query.only_keys:
        rules.append(("sold_out", facts.in_stock))
    if shown is not None:
        rules.append(("hidden", says(shown, keys)))
    if allowed is not None:
        rules.append(("not_allowed", says(allowed, keys)))
    stays = np.ones(len(keys), np.bool_)
    removed: list[tuple[str, int]] = []
    for name, rule in rules:
        gone = int((stays & ~rule).sum())
        if gone:
            removed.append((name, gone))
        stays &= rule
    return (candidates.take(stays) if removed else candidates), tuple(removed)


def forbidden_keys(query: Query, user: UserContext) -> Int32:
    """Keys that may never appear: excluded by the caller, looked at now, and on demand everything seen before."""
    named = query.exclude_keys
    if not query.only_keys:
        # The basket is never recommended back, wherever it is shown.
        named = (*named, *query.focus_keys, *query.cart_keys)
    if not query.exclude_seen:
        return np.unique(np.asarray(named, np.int32)) if named else _NONE
    # What was only shown was not chosen, and will be shown again.
    seen = user.history_keys[user.history_types != IMPRESSION]
    return np.unique(np.concatenate([np.asarray(named, np.int32), seen]))

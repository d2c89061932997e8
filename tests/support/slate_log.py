"""Messages of the slate log, as the orchestrator writes them; a test states only what it is about."""

import numpy as np

from orchestrator.adapters.slate_messages import made_message, served_message
from tests.contract.slate_log import asked_about
from tests.support.builders import a_query, a_slate, changed

AT_S = 1_772_359_200.0
"""2026-03-01T10:00:00Z"""


def a_served(recommendation_id="r1", keys=(5, 9), made_as="r1", at_s=AT_S, explored_share=0.0, **query) -> bytes:
    """An answer of *keys* to u1."""
    slate = changed(a_slate(*keys), made_as=made_as)
    return served_message(a_query(recommendation_id=recommendation_id, **query), slate, at_s, explored_share)


def a_made(
    made_as="r1", keys=(5, 9, 2), shown=(5, 9), at_s=AT_S, digest="plan", version="reranker-1", user=None, **query
) -> bytes:
    """The re-ranker was asked about *keys*; *shown* of them stood in the slate, with two item columns each."""
    asked = asked_about(*keys, user=user)
    asked = changed(asked, answer=changed(asked.answer, model_version=version))
    numeric = np.array([[key / 10] for key in shown], np.float32)
    words = [[f"brand{key % 2}"] for key in shown]
    slate = changed(a_slate(*shown), made_as=made_as)
    return made_message(a_query(recommendation_id=made_as, **query), asked, slate, at_s, digest, numeric, words)

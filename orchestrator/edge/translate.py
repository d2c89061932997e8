"""
Checked fields → the pipeline's Query: ids become interned keys, limits of the settings are held.

An id the shop does not have is set aside as missing, never an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.core.model import ANYTHING, Diversity, ItemFilter, Placement, Query
from orchestrator.edge import schemas
from orchestrator.edge.exchange import new_id
from orchestrator.edge.problems import BadFields, FieldError
from orchestrator.ports import Catalogue
from orchestrator.settings import Edge


@dataclass(slots=True)
class Resolver:
    """Turns ids into keys and remembers, once each and in order, those that have none."""

    catalogue: Catalogue
    missing: dict[str, None] = field(default_factory=dict)

    def keys(self, item_ids: Sequence[str], listed: bool = False) -> tuple[int, ...]:
        """Keys of the ids this shop has, each once, in the caller's order; *listed*: has now, not only had once."""
        if not item_ids:
            return ()
        keys: dict[int, None] = {}
        for item_id in item_ids:
            key = self.catalogue.key_of(item_id)
            if key is None or (listed and not self.catalogue.is_listed(key)):
                self.missing[item_id] = None
            else:
                keys[key] = None
        return tuple(keys)


def recommendation_query(request: schemas.RecommendationRequest, resolver: Resolver, limits: Edge) -> Query:
    """
    The query of POST /v1/recommendations.

    Raises:
        BadFields: more items than the settings allow, or the page of a category without naming it.
    """
    return _shelf_query(request, request, resolver, limits, explain=request.explain)


def page_queries(request: schemas.PageRequest, resolvers: Sequence[Resolver], limits: Edge) -> list[Query]:
    """
    The queries of POST /v1/pages, from the top.

    Args:
        resolvers: one a shelf, so that each says what of its own ids the shop does not have.

    Raises:
        BadFields: what `recommendation_query` raises, of every shelf that has it, with the shelf's place.
    """
    queries: list[Query] = []
    errors: list[FieldError] = []
    for at, (shelf, resolver) in enumerate(zip(request.placements, resolvers, strict=True)):
        try:
            queries.append(_shelf_query(shelf, request, resolver, limits, explain=request.explain))
        except BadFields as bad:
            errors += [FieldError(f"placements[{at}].{one.field}", one.message) for one in bad.errors]
    if errors:
        raise BadFields(errors)
    return queries


def _shelf_query(
    shelf: schemas.Shelf, shopper: schemas.Shopper, resolver: Resolver, limits: Edge, *, explain: bool
) -> Query:
    _at_most(limits.max_count, shelf.count, "count")
    context = shelf.context
    if shelf.placement == "category" and context.category is None:
        raise BadFields([FieldError("context.category", "is required by the placement 'category'")])
    return Query(
        recommendation_id=new_id(),
        placement=_PLACEMENTS[shelf.placement],
        count=shelf.count,
        user_id=shopper.user_id,
        visitor_id=shopper.visitor_id,
        session_id=shopper.session_id,
        context_keys=resolver.keys(context.item_ids),
        cart_keys=resolver.keys(context.cart_item_ids),
        category=context.category,
        device=context.device,
        filter=_filter(shelf.filter),
        exclude_keys=resolver.keys(shelf.exclude_item_ids),
        diversity=_DIVERSITIES[shelf.diversity],
        explain=explain,
    )


def ranking_query(request: schemas.RankingRequest, resolver: Resolver, limits: Edge) -> Query:
    """
    The query of POST /v1/rankings; its `only_keys` is empty when the shop has none of the items.

    The placement is `home`: a caller's own list is ordered for the shopper, and that is the shelf the re-ranker
    learned from.

    Raises:
        BadFields: more items than the settings allow.
    """
    if len(request.item_ids) > limits.max_ranking_items:
        message = f"should have at most {limits.max_ranking_items} entries; has {len(request.item_ids)}"
        raise BadFields([FieldError("item_ids", message)])
    only_keys = resolver.keys(request.item_ids, listed=True)
    return Query(
        recommendation_id=new_id(),
        placement=Placement.HOME,
        count=len(only_keys),
        user_id=request.user_id,
        visitor_id=request.visitor_id,
        session_id=request.session_id,
        context_keys=resolver.keys(request.context.item_ids),
        cart_keys=resolver.keys(request.context.cart_item_ids),
        category=request.context.category,
        device=request.context.device,
        only_keys=only_keys,
        explain=request.explain,
    )


def item_query(placement: Placement, key: int, parameters: schemas.SimilarParameters, limits: Edge) -> Query:
    """
    The query of GET /v1/items/{item_id}/similar (an item's page) and /bought-together (a basket with it alone in it).

    What is like the item answers the first; of a basket the weights are those learnt from baskets, for what goes with
    it.

    Raises:
        BadFields: more items than the settings allow.
    """
    _at_most(limits.max_count, parameters.count, "count")
    is_basket = placement is Placement.CART
    return Query(
        recommendation_id=new_id(),
        placement=placement,
        count=parameters.count,
        user_id=parameters.user_id,
        visitor_id=parameters.visitor_id,
        context_keys=() if is_basket else (key,),
        cart_keys=(key,) if is_basket else (),
    )


def _at_most(limit: int, found: int, name: str) -> None:
    if found > limit:
        raise BadFields([FieldError(name, f"should be at most {limit}; found {found}")])


# Looked up and not called: an enum takes six times as long to find its member.
_PLACEMENTS = {placement.value: placement for placement in Placement}
_DIVERSITIES = {diversity.value: diversity for diversity in Diversity}


def _filter(wanted: schemas.Filter) -> ItemFilter:
    if wanted is schemas.NO_FILTER:
        return ANYTHING
    return ItemFilter(
        categories=tuple(wanted.categories),
        brands=tuple(wanted.brands),
        price_min=wanted.price_min,
        price_max=wanted.price_max,
        in_stock=wanted.in_stock,
        attributes=tuple((name, tuple(values)) for name, values in sorted(wanted.attributes.items())),
    )

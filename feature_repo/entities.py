"""
Who and what features belong to. A join key has one name and one type everywhere: in the canonical events and items, in
Redis keys and in training frames.
"""

from feast import Entity, ValueType

user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.STRING,
    description="A shopper who is known by id. Visitors without an id have a history, and no features.",
)

item = Entity(
    name="item",
    join_keys=["item_id"],
    value_type=ValueType.STRING,
    description="Something that can be recommended and bought.",
)

from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Placement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACEMENT_UNSPECIFIED: _ClassVar[Placement]
    PLACEMENT_HOME: _ClassVar[Placement]
    PLACEMENT_ITEM: _ClassVar[Placement]
    PLACEMENT_CART: _ClassVar[Placement]
    PLACEMENT_CATEGORY: _ClassVar[Placement]

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_TYPE_UNSPECIFIED: _ClassVar[EventType]
    EVENT_TYPE_VIEW: _ClassVar[EventType]
    EVENT_TYPE_CLICK: _ClassVar[EventType]
    EVENT_TYPE_IMPRESSION: _ClassVar[EventType]
    EVENT_TYPE_ADD_TO_CART: _ClassVar[EventType]
    EVENT_TYPE_REMOVE_FROM_CART: _ClassVar[EventType]
    EVENT_TYPE_PURCHASE: _ClassVar[EventType]
PLACEMENT_UNSPECIFIED: Placement
PLACEMENT_HOME: Placement
PLACEMENT_ITEM: Placement
PLACEMENT_CART: Placement
PLACEMENT_CATEGORY: Placement
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_VIEW: EventType
EVENT_TYPE_CLICK: EventType
EVENT_TYPE_IMPRESSION: EventType
EVENT_TYPE_ADD_TO_CART: EventType
EVENT_TYPE_REMOVE_FROM_CART: EventType
EVENT_TYPE_PURCHASE: EventType

class Rows(_message.Message):
    __slots__ = ("offsets", "values")
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    offsets: bytes
    values: bytes
    def __init__(self, offsets: _Optional[bytes] = ..., values: _Optional[bytes] = ...) -> None: ...

class Shoppers(_message.Message):
    __slots__ = ("history", "history_types", "history_ages_s", "context", "placements")
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_TYPES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_AGES_S_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    history: Rows
    history_types: bytes
    history_ages_s: bytes
    context: Rows
    placements: bytes
    def __init__(self, history: _Optional[_Union[Rows, _Mapping]] = ..., history_types: _Optional[bytes] = ..., history_ages_s: _Optional[bytes] = ..., context: _Optional[_Union[Rows, _Mapping]] = ..., placements: _Optional[bytes] = ...) -> None: ...

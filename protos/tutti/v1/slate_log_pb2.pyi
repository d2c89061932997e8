from protos.tutti.v1 import common_pb2 as _common_pb2
from protos.tutti.v1 import reranking_pb2 as _reranking_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServedSlate(_message.Message):
    __slots__ = ("recommendation_id", "made_as", "served_at_us", "user_id", "visitor_id", "session_id", "placement", "keys", "scores", "propensities", "pinned", "sources", "level", "from_cache", "explored_share", "model_versions")
    class ModelVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RECOMMENDATION_ID_FIELD_NUMBER: _ClassVar[int]
    MADE_AS_FIELD_NUMBER: _ClassVar[int]
    SERVED_AT_US_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    VISITOR_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROPENSITIES_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    FROM_CACHE_FIELD_NUMBER: _ClassVar[int]
    EXPLORED_SHARE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    recommendation_id: str
    made_as: str
    served_at_us: int
    user_id: str
    visitor_id: str
    session_id: str
    placement: _common_pb2.Placement
    keys: bytes
    scores: bytes
    propensities: bytes
    pinned: bytes
    sources: _containers.RepeatedScalarFieldContainer[str]
    level: str
    from_cache: bool
    explored_share: float
    model_versions: _containers.ScalarMap[str, str]
    def __init__(self, recommendation_id: _Optional[str] = ..., made_as: _Optional[str] = ..., served_at_us: _Optional[int] = ..., user_id: _Optional[str] = ..., visitor_id: _Optional[str] = ..., session_id: _Optional[str] = ..., placement: _Optional[_Union[_common_pb2.Placement, str]] = ..., keys: _Optional[bytes] = ..., scores: _Optional[bytes] = ..., propensities: _Optional[bytes] = ..., pinned: _Optional[bytes] = ..., sources: _Optional[_Iterable[str]] = ..., level: _Optional[str] = ..., from_cache: _Optional[bool] = ..., explored_share: _Optional[float] = ..., model_versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class MadeSlate(_message.Message):
    __slots__ = ("made_as", "made_at_us", "as_of_us", "user_id", "visitor_id", "asked", "scores", "model_version", "item_keys", "item_numeric", "item_categorical")
    MADE_AS_FIELD_NUMBER: _ClassVar[int]
    MADE_AT_US_FIELD_NUMBER: _ClassVar[int]
    AS_OF_US_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    VISITOR_ID_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    ITEM_NUMERIC_FIELD_NUMBER: _ClassVar[int]
    ITEM_CATEGORICAL_FIELD_NUMBER: _ClassVar[int]
    made_as: str
    made_at_us: int
    as_of_us: int
    user_id: str
    visitor_id: str
    asked: _reranking_pb2.RerankRequest
    scores: bytes
    model_version: str
    item_keys: bytes
    item_numeric: bytes
    item_categorical: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, made_as: _Optional[str] = ..., made_at_us: _Optional[int] = ..., as_of_us: _Optional[int] = ..., user_id: _Optional[str] = ..., visitor_id: _Optional[str] = ..., asked: _Optional[_Union[_reranking_pb2.RerankRequest, _Mapping]] = ..., scores: _Optional[bytes] = ..., model_version: _Optional[str] = ..., item_keys: _Optional[bytes] = ..., item_numeric: _Optional[bytes] = ..., item_categorical: _Optional[_Iterable[str]] = ...) -> None: ...

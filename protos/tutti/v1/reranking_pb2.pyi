from protos.tutti.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RerankRequest(_message.Message):
    __slots__ = ("queries", "shoppers", "candidates", "sources", "source_scores", "source_ranks", "user_numeric", "user_categorical", "feature_digest")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    SHOPPERS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SCORES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_RANKS_FIELD_NUMBER: _ClassVar[int]
    USER_NUMERIC_FIELD_NUMBER: _ClassVar[int]
    USER_CATEGORICAL_FIELD_NUMBER: _ClassVar[int]
    FEATURE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    queries: int
    shoppers: _common_pb2.Shoppers
    candidates: _common_pb2.Rows
    sources: _containers.RepeatedScalarFieldContainer[str]
    source_scores: bytes
    source_ranks: bytes
    user_numeric: bytes
    user_categorical: _containers.RepeatedScalarFieldContainer[str]
    feature_digest: str
    def __init__(self, queries: _Optional[int] = ..., shoppers: _Optional[_Union[_common_pb2.Shoppers, _Mapping]] = ..., candidates: _Optional[_Union[_common_pb2.Rows, _Mapping]] = ..., sources: _Optional[_Iterable[str]] = ..., source_scores: _Optional[bytes] = ..., source_ranks: _Optional[bytes] = ..., user_numeric: _Optional[bytes] = ..., user_categorical: _Optional[_Iterable[str]] = ..., feature_digest: _Optional[str] = ...) -> None: ...

class RerankReply(_message.Message):
    __slots__ = ("scores", "model_version")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scores: bytes
    model_version: str
    def __init__(self, scores: _Optional[bytes] = ..., model_version: _Optional[str] = ...) -> None: ...

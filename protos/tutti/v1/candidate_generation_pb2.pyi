from protos.tutti.v1 import common_pb2 as _common_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateRequest(_message.Message):
    __slots__ = ("queries", "counts", "shoppers", "exclude", "within", "vocabulary_digest")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SHOPPERS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    queries: int
    counts: bytes
    shoppers: _common_pb2.Shoppers
    exclude: _common_pb2.Rows
    within: _common_pb2.Rows
    vocabulary_digest: str
    def __init__(self, queries: _Optional[int] = ..., counts: _Optional[bytes] = ..., shoppers: _Optional[_Union[_common_pb2.Shoppers, _Mapping]] = ..., exclude: _Optional[_Union[_common_pb2.Rows, _Mapping]] = ..., within: _Optional[_Union[_common_pb2.Rows, _Mapping]] = ..., vocabulary_digest: _Optional[str] = ...) -> None: ...

class GenerateReply(_message.Message):
    __slots__ = ("candidates", "scores", "model_version")
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    candidates: _common_pb2.Rows
    scores: bytes
    model_version: str
    def __init__(self, candidates: _Optional[_Union[_common_pb2.Rows, _Mapping]] = ..., scores: _Optional[bytes] = ..., model_version: _Optional[str] = ...) -> None: ...

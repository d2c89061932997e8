"""What the load understands of HTTP."""

import json

import pytest

from services.bench.wire import NotAnswerable, read, request, split

SLATE = b'{"items":[{"id":"a"}],"quality":{"level":"full","rung":"full","from_cache":false}}'


def an_answer(body=SLATE, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_request_carries_its_body_whole():
    sent = request("/v1/recommendations", '{"user_id":"ü"}'.encode())

    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/recommendations HTTP/1.1\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body) == {"user_id": "ü"}


def test_half_a_head_is_waited_for():
    whole = an_answer()

    assert split(whole[:30]) is None
    assert split(whole) == (200, len(whole), False)


def test_the_length_may_be_written_in_any_case_and_anywhere():
    answer = b"HTTP/1.1 503 x\r\nX-A: content\r\nCONNECTION: close\r\nContent-Length:7\r\n\r\n"

    assert split(answer) == (503, len(answer) + 7, True)


@pytest.mark.parametrize("head", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"])
def test_what_is_no_answer_with_a_length_is_said(head):
    with pytest.raises(NotAnswerable, match="expected an"):
        split(head)


def test_every_slate_of_a_page_is_counted():
    two = an_answer(SLATE + SLATE.replace(b'"level":"full"', b'"level":"popular"').replace(b"false", b"true"))

    found = read(200, two)

    assert found.levels == ("full", "popular")
    assert found.remembered == 1
    assert not found.is_empty


@pytest.mark.parametrize("body", [SLATE.replace(b'[{"id":"a"}]', b"[]"), b"{}", b""])
def test_an_answer_without_an_item_is_empty(body):
    assert read(200, an_answer(body)).is_empty

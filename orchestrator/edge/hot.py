"""
The short way of hot calls: bytes in, bytes out, no router, no request and no response object.

The rule: nothing here that the long way does not do. What is refused is raised as a `Problem` and becomes a document in
`middleware`, as it does there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.types import Receive, Scope, Send

Answerer = Callable[[Scope, Receive], Awaitable[bytes]]
"""A call's JSON; raises what is not to be answered with 200."""

_TYPE = (b"content-type", b"application/json")


class Hot:
    """An ASGI application of nothing but *answerers*, by path; whoever calls it has looked at path and method."""

    def __init__(self, answerers: Mapping[str, Answerer]) -> None:
        self._answerers = answerers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._answerers[scope["path"]](scope, receive)
        headers = [(b"content-length", b"%d" % len(body)), _TYPE]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

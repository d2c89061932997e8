"""
The pages a person opens: the storefront at /, the API's documentation at /docs. Nothing is loaded from elsewhere.

Files are read once, at start. Browsers are told to load and run nothing but these files and to talk to no one
but this server: what a title contains is text, whatever it looks like.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import orjson
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.edge.routes import JSON, Handler, running_of
from orchestrator.telemetry import log

FOLDER = Path(__file__).with_name("storefront")
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/storefront/storefront.css": ("storefront.css", "text/css; charset=utf-8"),
    "/storefront/elements.js": ("elements.js", "text/javascript; charset=utf-8"),
    "/storefront/storefront.js": ("storefront.js", "text/javascript; charset=utf-8"),
    "/storefront/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/favicon.ico": ("favicon.svg", "image/svg+xml"),
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def pages() -> dict[tuple[str, str], Handler]:
    """Address and method → handler: one for each file, and the sample shoppers of the data directory."""
    files = {
        (address, "get"): _file((FOLDER / name).read_bytes(), media_type)
        for address, (name, media_type) in FILES.items()
    }
    return {**files, ("/storefront/shoppers", "get"): shoppers}


def _file(content: bytes, media_type: str) -> Handler:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {
        "content-security-policy": CONTENT_SECURITY_POLICY,
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        "etag": tag,
    }

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return answer


async def shoppers(request: Request) -> Response:
    """The sample shoppers that training wrote; an empty list where there are none."""
    path = running_of(request).settings.data.path / "shoppers.json"
    try:
        found = orjson.loads(await asyncio.to_thread(path.read_bytes))
    except FileNotFoundError:
        found = []
    except (OSError, orjson.JSONDecodeError) as error:
        log.warning("shoppers_unreadable", path=str(path), error=str(error))
        found = []
    return Response(orjson.dumps(found if isinstance(found, list) else []), media_type=JSON)

"""
The ASGI application: routes, problem documents, the one middleware, and a lifespan that starts the orchestrator.

Calls of `routes.HOT` and `shelves.HOT` go past FastAPI, its layers and its router, which cost more than all that tutti
does for a remembered slate; everything else, and the same addresses with another method, goes through them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator import bootstrap
from orchestrator.bootstrap import Running
from orchestrator.edge import item_import, openapi, routes, shelves
from orchestrator.edge.admission import Admission
from orchestrator.edge.hot import Hot
from orchestrator.edge.middleware import Edge, Gate
from orchestrator.edge.pages import pages
from orchestrator.edge.problems import Problem, on_http_exception, on_problem
from orchestrator.edge.routes import Handler
from orchestrator.settings import Settings
from orchestrator.telemetry import metrics

Start = Callable[[Settings], AbstractAsyncContextManager[Running]]


class Application(FastAPI):
    """FastAPI with a short way for hot calls."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._hot: Mapping[str, ASGIApp] = {}

    def serve_hot(self, app: ASGIApp, addresses: Collection[str]) -> None:
        """From now on *app* answers POSTs to *addresses*."""
        self._hot = dict.fromkeys(addresses, app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Below a mount point the path is more than the address: the router knows what to do.
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            app = self._hot.get(scope["path"])
            if app is not None:
                scope["app"] = self
                await app(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, start: Start = bootstrap.run, admission: Admission | None = None) -> Application:
    """
    The application; nothing is opened before its lifespan begins.

    start: what the lifespan enters; tests pass one that yields twins, and an *admission* on clocks of theirs.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with start(settings) as running:
            app.state.running = running
            yield
            app.state.running = None

    app = Application(
        title=openapi.TITLE,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI would look for an OpenTelemetry provider on every request; ours is orchestrator/telemetry.py.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for path, handlers in _by_path({**openapi.HANDLERS, **pages()}).items():
        # Starlette answers HEAD wherever there is GET.
        app.router.add_route(path, _endpoint(handlers), methods=list(handlers), include_in_schema=False)
    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http_exception)
    known = [route for route in app.routes if isinstance(route, Route)]
    labels: dict[object, str] = {route.endpoint: route.path for route in known}
    edge: dict[str, Any] = {
        "max_body_bytes": settings.edge.max_body_bytes,
        "larger": {item_import.ADDRESS: settings.edge.max_import_bytes},
        "metrics": metrics,
        "labels": labels,
        "gate": Gate(
            admission or Admission(settings, metrics),
            slates=[route for route in known if route.endpoint in routes.SLATES | shelves.SLATES],
            events=[route for route in known if route.endpoint is routes.events],
        ),
    }
    app.add_middleware(Edge, **edge)
    hot = {**routes.HOT, **shelves.HOT}
    app.serve_hot(Edge(Hot(hot), **edge), hot)
    app.openapi = cache(partial(openapi.document, settings.edge))  # type: ignore[method-assign]  # FastAPI's way
    return app


def _by_path(handlers: Mapping[tuple[str, str], Handler]) -> dict[str, dict[str, Handler]]:
    found: dict[str, dict[str, Handler]] = {}
    for (path, method), handler in handlers.items():
        found.setdefault(path, {})[method] = handler
    return found


def _endpoint(handlers: Mapping[str, Handler]) -> Handler:
    """One endpoint an address: of several, the router would name the methods of the first only."""
    if len(handlers) == 1:
        return next(iter(handlers.values()))

    async def by_method(request: Request) -> Response:
        method = request.method.lower()
        return await handlers["get" if method == "head" else method](request)

    return by_method

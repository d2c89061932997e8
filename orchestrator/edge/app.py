"""
The ASGI application: routes, problem documents, the one middleware, and a lifespan that starts the orchestrator.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route

from orchestrator import bootstrap
from orchestrator.bootstrap import Running
from orchestrator.edge import openapi, operations, people, routes
from orchestrator.edge.admission import Admission
from orchestrator.edge.middleware import Edge, Gate
from orchestrator.edge.pages import pages
from orchestrator.edge.problems import Problem, on_http_exception, on_problem
from orchestrator.settings import Settings
from orchestrator.telemetry import metrics

Start = Callable[[Settings], AbstractAsyncContextManager[Running]]


def create_app(settings: Settings, start: Start = bootstrap.run, admission: Admission | None = None) -> FastAPI:
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

    app = FastAPI(
        title=openapi.TITLE,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI would look for an OpenTelemetry provider on every request; ours is orchestrator/telemetry.py.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for (path, method), handler in {**routes.HANDLERS, **people.HANDLERS, **operations.HANDLERS, **pages()}.items():
        # Starlette answers HEAD wherever there is GET.
        app.router.add_route(path, handler, methods=[method], include_in_schema=False)
    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http_exception)
    known = [route for route in app.routes if isinstance(route, Route)]
    labels: dict[object, str] = {route.endpoint: route.path for route in known}
    app.add_middleware(
        Edge,
        max_body_bytes=settings.edge.max_body_bytes,
        metrics=metrics,
        labels=labels,
        gate=Gate(
            admission or Admission(settings, metrics),
            slates=[route for route in known if route.endpoint in routes.SLATES],
            events=[route for route in known if route.endpoint is routes.events],
        ),
    )
    app.openapi = cache(partial(openapi.document, settings.edge))  # type: ignore[method-assign]  # FastAPI's way
    return app

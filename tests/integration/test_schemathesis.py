"""The OpenAPI document, played against the edge: what it says comes in is taken, what comes out is as it says."""

import pytest
from hypothesis import settings

from orchestrator import settings as tree
from orchestrator.edge.admission import Admission
from orchestrator.edge.app import create_app
from orchestrator.telemetry import new_metrics
from tests.unit.edge.conftest import LogTwin, LoopTwin, PipelineTwin, RunningTwin, ShopTwin

schemathesis = pytest.importorskip("schemathesis")

pytestmark = pytest.mark.integration

SETTINGS = tree.load(None, {})


def an_edge():
    """The application on twins; every call of the client brings an event loop of its own, so nothing is kept open."""
    app = create_app(SETTINGS, admission=Admission(SETTINGS, new_metrics()))
    app.state.running = RunningTwin(SETTINGS, PipelineTwin(), ShopTwin(), LogTwin(), {}, True, loop=LoopTwin())

    async def edge(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})

    return edge


schema = schemathesis.openapi.from_asgi("/openapi.json", an_edge())


@schema.parametrize()
@settings(max_examples=30, derandomize=True, deadline=None, database=None)
def test_the_edge_does_what_its_document_says(case):
    case.call_and_validate()

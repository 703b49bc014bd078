"""The last law of the server that all HTTP laws share."""

from __future__ import annotations

import pytest

from tests.engine.server import Server

pytestmark = pytest.mark.engine


def test_sigterm_stops_the_server(server: Server) -> None:
    assert server.http.get("/health").status_code == 200
    assert server.stop() == 0

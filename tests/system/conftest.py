"""Fixtures: one node for the tests that leave it well, a real upstream beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import node as nodes
from .node import Node
from .peers import Nsd


@pytest.fixture(scope="session")
def upstream() -> Iterator[Nsd]:
    """A real NSD with ``upstream.test.``."""
    with tempfile.TemporaryDirectory(prefix="rd-nsd-", dir="/tmp") as folder:
        server = Nsd(Path(folder))
        yield server
        server.stop()


def forward_to(port: int, suffix: str = "upstream.test.") -> dict[str, object]:
    """A forward rule for one suffix."""
    return {"suffix": suffix, "upstreams": [{"address": f"127.0.0.1:{port}"}]}


@pytest.fixture(scope="session")
def node(upstream: Nsd) -> Iterator[Node]:
    """A running node: the example zone, catch-all TXT, and one forward rule."""
    made = nodes.make({"forward": {"rules": [forward_to(upstream.port)], "timeout_s": 5}})
    try:
        yield nodes.start(made)
    finally:
        nodes.end(made)

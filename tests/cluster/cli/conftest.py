"""Fixtures: a fake node with real control sockets, and a way to run a command and keep what it said."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cli.fake import FakeNode


@pytest.fixture
def directory() -> Iterator[Path]:
    """A state directory with a path short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def node(directory: Path) -> Iterator[FakeNode]:
    """A node whose three sockets answer; tests change its ``methods``."""
    with FakeNode(directory) as fake:
        yield fake


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the developer's shell decides a test."""
    for name in ("RAYDNS_CONFIG", "RAYDNS_SERVER__STATE_DIR", "RAYDNS_DEBUG", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(name, "")  # so that it is put back as it was, also if a command sets it
        monkeypatch.delenv(name)

"""What the tests of real streams share: short directories, echo servers, waiting with a deadline."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from raydns.nodes.streams.requests import Requests
from raydns.nodes.streams.server import Handler, Responder, StreamServer
from raydns.schemas.batch import AnswerFlag, AnswerItem, QueryItem
from raydns.schemas.cluster import Endpoint

# Two busy cores: how long one example takes proves nothing.
settings.register_profile("raydns", deadline=None)
settings.load_profile("raydns")

MESSAGE = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01"


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="rd-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits for a condition; fails at the deadline."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


def echo(queries: list[QueryItem], responder: Responder) -> None:
    """Answers each query with its own message."""
    for item in queries:
        responder.answer(AnswerItem(item.slot, item.message, AnswerFlag.SHAREABLE))


def endpoint(path: Path, machine: str = "here", port: int = 0) -> Endpoint:
    """The endpoint of a query actor on machine ``here``, as a client on ``machine`` sees it."""
    return Endpoint("query", 0, 1, "n0", machine, str(path), "127.0.0.1", port)


class Collector:
    """Remembers what each slot heard."""

    def __init__(self) -> None:
        self.answers: dict[int, list[AnswerItem | None]] = {}

    def done(self, number: int) -> Callable[[AnswerItem | None], None]:
        """A callback for the question ``number``."""
        heard = self.answers.setdefault(number, [])
        return heard.append

    @property
    def count(self) -> int:
        """How many questions heard something."""
        return sum(bool(heard) for heard in self.answers.values())


class Bench:
    """Makes servers and clients and closes them at the end."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "q.sock"
        self.servers: list[StreamServer] = []
        self.clients: list[Requests] = []

    async def serve(self, handler: Handler = echo, **options: object) -> StreamServer:
        """A server on the bench's path."""
        server = StreamServer(handler, path=self.path, identity="query:0.g1", **options)  # type: ignore[arg-type]
        await server.start()
        self.servers.append(server)
        return server

    async def client(self, *, wait: bool = True, **options: object) -> Requests:
        """A client of the bench's path."""
        requests = Requests(endpoint(self.path), "here", **options)  # type: ignore[arg-type]
        requests.start()
        self.clients.append(requests)
        if wait:
            await until(lambda: requests.connected)
        return requests


@pytest.fixture
async def bench(short_dir: Path) -> AsyncIterator[Bench]:
    """A place for a server and its clients."""
    made = Bench(short_dir)
    yield made
    for requests in made.clients:
        await requests.close()
    for server in made.servers:
        await server.close()

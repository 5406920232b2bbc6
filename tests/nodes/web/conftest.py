"""Fake processes behind real control sockets, and the web service in front of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from raydns.nodes.control import ControlServer
from raydns.nodes.metrics import Family, HistogramValue, Sample
from raydns.nodes.paths import StateDir
from raydns.nodes.web import WebServer
from raydns.schemas.batch import Outcome, Room, stamp
from raydns.schemas.config.telemetry import WebConfig

NASTY = "<img src=x onerror=alert(1)>\"'\\\n\x1b[2J\u202e"


class Fakes:
    """What the fake supervisor, ingress and agent answer; tests change the dictionaries."""

    def __init__(self, state_dir: StateDir) -> None:
        self.state_dir = state_dir
        self.calls: dict[str, int] = {}
        self.node: dict[str, Any] = {"pid": 1, "addresses": [], "ready": True, "stopping": False}
        self.ingress: dict[str, Any] = {"ready": True, "engine": "python", "pid": 2, "in_flight": 3, "version": [1, 7]}
        self.agent: dict[str, Any] = {
            "machine": "m1",
            "pid": 3,
            "version": [1, 7],
            "staleness_s": 0.5,
            "problems": [],
            "actors": {"cache:0.g1": {"in_flight": 2.0, "pid": 4.0}},
            "cluster": {
                "version": [1, 7],
                "machines": [{"name": "m1", "alive": True, "ingress_ready": True, "queries_per_second": 5.0}],
                "actors": [{"name": "cache:0.g1", "kind": "cache", "machine": "m1", "state": "ready", "since_s": 9.0}],
                "ring": {"0": 1.0},
                "zones": 2,
                "zone_problems": {},
                "scale": {"query": 1},
                "events": [{"ago_s": 1.0, "what": "started", "actor": "cache:0.g1", "why": ""}],
            },
        }
        self.ingress_families: list[Family] = ingress_families(0)
        self.agent_families: list[Family] = [
            Family("raydns_cache_hits_total", "counter", "Hits.", [Sample({"actor": "cache:0.g1"}, 10.0)])
        ]
        self.queries: list[dict[str, Any]] = [query("www.example.")]
        self.servers: dict[str, ControlServer] = {}

    async def start(self, *names: str) -> None:
        """Starts some of ``node``, ``ingress``, ``agent``."""
        paths = {
            "node": self.state_dir.node_socket,
            "ingress": self.state_dir.ingress_socket,
            "agent": self.state_dir.agent_socket,
        }
        for name in names:
            methods = {m: self._method(name, m) for m in ("status", "metrics", "recent")}
            self.servers[name] = ControlServer(paths[name], methods)
            await self.servers[name].start()

    async def stop(self, name: str) -> None:
        """Ends one of them."""
        await self.servers.pop(name).close()

    def _method(self, name: str, method: str) -> Any:
        async def answer(params: dict[str, Any]) -> dict[str, Any]:
            key = f"{name}.{method}"
            self.calls[key] = self.calls.get(key, 0) + 1
            if method == "metrics":
                return {"families": msgspec.msgpack.encode(getattr(self, f"{name}_families"))}
            if method == "recent":
                return {"queries": self.queries[: params["limit"]]}
            found: dict[str, Any] = getattr(self, name)
            return found

        return answer


def query(name: str, **changes: Any) -> dict[str, Any]:
    """A remembered query that met three rooms."""
    rooms = (
        stamp(Room.INGRESS, Outcome.MISS, 0, 1_000_000, 900)
        + stamp(Room.CACHE, Outcome.MISS, 0, 1_000_100, 700)
        + stamp(Room.QUERY, Outcome.OK, 1, 1_000_200, 500)
    )
    return {
        "trace_id": "",
        "name": name,
        "qtype": 1,
        "rcode": 0,
        "source": "127.0.0.1",
        "transport": 1,
        "time_us": 1_000_000,
        "duration_us": 900,
        "rooms": rooms,
        **changes,
    }


def ingress_families(queries: int) -> list[Family]:
    """The ingress's counters after that many queries: nine of ten from L1 within 1 ms, the rest from above."""
    here, up = queries - queries // 10, queries // 10
    tiers = (("l1", here), ("up", up))
    bounds = (0.001, 0.01, 0.1)
    return [
        Family("raydns_ingress_queries_total", "counter", "Queries.", [Sample({"transport": "udp"}, queries)]),
        Family("raydns_ingress_answers_total", "counter", "Answers.", [Sample({"tier": t}, n) for t, n in tiers]),
        Family("raydns_ingress_responses_total", "counter", "Responses.", [Sample({"rcode": "NOERROR"}, queries)]),
        Family(
            "raydns_ingress_latency_seconds",
            "histogram",
            "Latency.",
            [
                Sample({"tier": "l1"}, 0.0, HistogramValue(bounds, [here, 0, 0, 0], here * 0.0005)),
                Sample({"tier": "up"}, 0.0, HistogramValue(bounds, [0, 0, up, 0], up * 0.05)),
            ],
        ),
    ]  # fmt: skip


class Client:
    """Asks the service under test."""

    def __init__(self, server: WebServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self._session = session

    async def get(self, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers of a GET."""
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with self._session.get(url, headers=headers) as answer:
            return answer.status, await answer.text(), dict(answer.headers)

    async def json(self, path: str) -> Any:
        """The JSON body of a GET."""
        return msgspec.json.decode((await self.get(path))[1])


@pytest.fixture
def state_dir() -> Iterator[StateDir]:
    """A state directory with a short path."""
    path = Path(tempfile.mkdtemp(prefix="rd-"))
    yield StateDir(path).create()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def fakes(state_dir: StateDir) -> AsyncIterator[Fakes]:
    """Fake processes, none started."""
    made = Fakes(state_dir)
    yield made
    for name in list(made.servers):
        await made.stop(name)


@pytest.fixture
async def client(state_dir: StateDir, fakes: Fakes) -> AsyncIterator[Client]:
    """A running web service and a client of it."""
    server = WebServer(WebConfig(listen="127.0.0.1:0"), state_dir, machine="fallback")
    await server.start()
    async with aiohttp.ClientSession() as session:
        yield Client(server, session)
    await server.close()

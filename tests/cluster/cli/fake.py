"""A fake node: real control servers on real sockets, whose methods are plain functions of a test."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from raydns.cluster.cli import main
from raydns.nodes.control import ControlServer
from raydns.nodes.paths import StateDir

Function = Callable[[dict[str, Any]], dict[str, Any]]

CLUSTER: dict[str, Any] = {
    "version": [3, 17],
    "machines": [
        {
            "name": "m1",
            "node": "ab",
            "version": [3, 17],
            "ingress_ready": True,
            "queries_per_second": 12.4,
            "alive": True,
        }
    ],
    "actors": [
        {
            "name": "query:0.g1",
            "kind": "query",
            "machine": "m1",
            "state": "ready",
            "since_s": 12.0,
            "problem": "",
            "statistics": {"in_flight": 3.0},
        },
        {
            "name": "cache:0.g1",
            "kind": "cache",
            "machine": "m1",
            "state": "starting",
            "since_s": 1.0,
            "problem": "[slow]",
        },
    ],
    "scale": {"query": 1, "cache": 1, "zone": 0, "llm": 0},
    "zones": 1,
    "zone_problems": {"broken.example.": "zones/broken:3: no TTL"},
    "events": [{"ago_s": 4.0, "what": "actor replaced", "actor": "cache:0", "why": "three probes failed"}],
}

INGRESS: dict[str, Any] = {"pid": 2, "ready": True, "queries_per_second": 100.0, "in_flight": 4, "engine": "python"}


class FakeNode:
    """Serves ``run/node.sock``, ``run/ingress.sock`` and ``run/agent.sock`` below a directory."""

    def __init__(self, directory: Path) -> None:
        self.state_dir = StateDir(directory).create()
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.methods: dict[str, dict[str, Function]] = {
            "node": {"status": lambda _: {"pid": 1, "ready": True, "addresses": ["127.0.0.1:1"], "web": ""}},
            "ingress": {
                "status": lambda _: {
                    "pid": 2,
                    "ready": True,
                    "queries_per_second": 100.0,
                    "in_flight": 4,
                    "engine": "python",
                },
                "recent": lambda _: {"queries": []},
            },
            "agent": {"status": lambda _: {"pid": 3, "machine": "m1", "version": [3, 17], "cluster": CLUSTER}},
        }
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[ControlServer] = []

    def __enter__(self) -> FakeNode:
        self._thread.start()
        directory = self.state_dir
        self.serve("node", directory.node_socket)
        self.serve("ingress", directory.ingress_socket)
        self.serve("agent", directory.agent_socket)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            asyncio.run_coroutine_threadsafe(server.close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def serve(self, name: str, path: Path) -> None:
        """Begins to answer for one process."""
        server = ControlServer(path, _Methods(self, name))
        asyncio.run_coroutine_threadsafe(server.start(), self._loop).result(5)
        self._servers.append(server)

    def method(self, process: str, name: str) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
        """The asynchronous method behind a plain function; it notes the call."""

        async def answer(params: dict[str, Any]) -> dict[str, Any]:
            self.calls.append((process, name, params))
            return self.methods[process][name](params)

        return answer


class _Methods(dict[str, Any]):
    """Looks up methods when they are called, so that a test may add them afterwards."""

    def __init__(self, node: FakeNode, process: str) -> None:
        names = {"status", "stop", "takeover", "recent", "scale", "zone.load", "zone.list", "zone.show"}
        names |= {"cache.flush", "config.reload", "config.show"}
        super().__init__({name: node.method(process, name) for name in names})


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error on standard error as JSON."""
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


def say(*words: str | Path) -> Said:
    """Runs ``raydns WORDS`` as ``main`` does, with standard output and error apart."""
    runner = CliRunner()
    with runner.isolation() as (out, err, _):
        code = main.run([str(word) for word in words])
        return Said(code, out.getvalue().decode(), err.getvalue().decode())

"""Streams to cache shards: who is dialled, when it is dialled anew, and what the engine is told."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from raydns.nodes.ingress.reference import ReferenceEngine
from raydns.nodes.ingress.uplink import Uplink, newest
from raydns.nodes.streams.server import StreamServer
from raydns.schemas.cluster import Endpoint
from raydns.schemas.errors import StateError

from .harness import address_of, ask, state, udp_client, udp_socket, until


def endpoint(index: int = 0, **more: Any) -> Endpoint:
    """A cache shard's."""
    fields: dict[str, Any] = {"kind": "cache", "generation": 1, "node": "n", "machine": "m1", "path": f"/tmp/c{index}"}
    return Endpoint(index=index, **(fields | more))


class FakeClient:
    """Remembers what was done to it."""

    made: list[FakeClient] = []

    def __init__(self, target: Endpoint, machine: str, **options: Any) -> None:
        self.endpoint, self.machine, self.options = target, machine, options
        self.connected, self.connects, self.last_problem = False, 0, ""
        self.closed = False
        self.woken = 0
        FakeClient.made.append(self)

    def start(self) -> None:
        """Connects at once."""
        self.connected = True
        self.options["on_state"](True)

    def wake(self) -> None:
        """Asked to pull."""
        self.woken += 1

    async def close(self) -> None:
        """Gone."""
        self.closed = True


def no_secret() -> Any:
    """A machine without the cluster's secret."""
    raise StateError("there is no secret", where="cluster_secret")


async def test_streams_follow_the_endpoints() -> None:
    """One stream a shard; what did not move is not touched, what moved is dialled anew, what left is closed."""
    FakeClient.made = []
    engine = ReferenceEngine(asyncio.get_running_loop())
    engine.install(state())
    uplink = Uplink(engine, no_secret, FakeClient)  # type: ignore[arg-type]
    uplink.update([endpoint(0), endpoint(1), endpoint(5, kind="query")], "m1")
    assert [client.endpoint.index for client in FakeClient.made] == [0, 1]
    uplink.update([endpoint(0, generation=2), endpoint(1, path="/tmp/new")], "m1")
    zero, one, moved = FakeClient.made
    assert moved.endpoint.path == "/tmp/new"
    await until(lambda: one.closed)
    assert not zero.closed
    one.options["on_state"](False)  # the old line's end says nothing about the new one
    assert engine.desk.flights._reachable[1]
    assert one.options["pull"]() is None
    uplink.wake(0)
    uplink.wake(7)
    assert zero.woken == 1
    uplink.update([], "m1")
    await uplink.close()
    assert zero.closed
    assert moved.closed
    engine.close()


async def test_a_shard_that_cannot_be_dialled_does_not_stop_the_others() -> None:
    """Without a secret a remote shard is left out, and the local one is served."""
    FakeClient.made = []
    engine = ReferenceEngine(asyncio.get_running_loop())
    engine.install(state())
    uplink = Uplink(engine, no_secret, FakeClient)  # type: ignore[arg-type]
    uplink.update([endpoint(0, machine="m2", host="127.0.0.1", port=9), endpoint(1)], "m1")
    assert [client.endpoint.index for client in FakeClient.made] == [1]
    assert list(uplink.statistics()) == ["cache:1.g1"]
    await uplink.close()
    engine.close()


def test_the_latest_generation_that_stays_is_taken() -> None:
    """Two generations of a shard: the later one; of equals the one that is not draining."""
    old, new = endpoint(0), endpoint(0, generation=2)
    draining = endpoint(0, generation=2, draining=True)
    assert newest([new, old])[0] is new
    assert newest([draining, new])[0] is new
    assert newest([old, draining])[0] is draining


async def test_a_miss_travels_over_a_real_stream_and_back() -> None:
    """Engine, stream client and stream server together: a query over UDP is answered by a shard behind a socket."""
    seen: list[Any] = []

    def handler(items: list[Any], responder: Any) -> None:
        seen.extend(items)
        for item in items:
            responder.answer(address_of(item))

    with tempfile.TemporaryDirectory(prefix="rd-") as folder:
        path = Path(folder) / "c.sock"
        server = StreamServer(handler, path=path)
        engine = ReferenceEngine(asyncio.get_running_loop())
        sock = udp_socket()
        engine.adopt([sock])
        engine.install(state())
        uplink = Uplink(engine, no_secret)
        uplink.update([endpoint(0, path=str(path))], "m1")
        client = await udp_client(sock.getsockname())
        task = asyncio.ensure_future(client.ask(ask("www.example.com")))
        await asyncio.sleep(0.05)
        await server.start()  # it comes up while the query waits
        made = await task
        assert made.answer[0][0].to_text() == "192.0.2.1"
        assert len(seen) == 1
        await uplink.close()
        await server.close(0.1)
        engine.close()

"""Upstream servers that do as a script says, on real sockets, and a virtual clock; fakes, not mocks."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from raydns.actors.query.forward.forwarder import Forwarder
from raydns.actors.query.forward.message import Question, Sent, build
from raydns.actors.query.forward.own import OwnAddresses
from raydns.actors.query.forward.world import real_world
from raydns.schemas import dns, names
from raydns.schemas.batch import QueryItem, Right
from raydns.schemas.config import Config

A, CNAME, SOA, TXT, AAAA, RRSIG, NSEC, DNAME, NS = 1, 5, 6, 16, 28, 46, 47, 39, 2


def name(text: str) -> bytes:
    """A name in key form."""
    return names.key(names.from_text(text))


def record(owner: bytes, rtype: int, rdata: bytes, ttl: int = 300, rclass: int = 1) -> bytes:
    """One encoded record; ``owner`` may be a pointer."""
    return owner + struct.pack("!HHIH", rtype, rclass, ttl, len(rdata)) + rdata


HERE = b"\xc0\x0c"
OPT = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"


def soa(zone: str, ttl: int = 900, minimum: int = 60) -> bytes:
    """An SOA record."""
    rdata = name("ns." + zone) + name("host." + zone) + struct.pack("!IIIII", 1, 2, 3, 4, minimum)
    return record(name(zone), SOA, rdata, ttl)


def response(
    ident: bytes,
    question: bytes,
    answer: Iterable[bytes] = (),
    authority: Iterable[bytes] = (),
    additional: Iterable[bytes] = (OPT,),
    *,
    rcode: int = 0,
    flags: int = dns.QR | dns.RD | dns.RA,
) -> bytes:
    """A response out of encoded records."""
    a, n, x = list(answer), list(authority), list(additional)
    head = ident + struct.pack("!HHHHH", flags | rcode, 1, len(a), len(n), len(x))
    return head + question + b"".join(a + n + x)


def sent_for(text: str, qtype: int = A, *, do: bool = False, seed: int = 1) -> Sent:
    """An upstream query as the exchange would send it."""
    return build(Question(name(text), qtype, 1, do), random.Random(seed).randbytes)


def question_of(query: bytes) -> bytes:
    """The question section of a query, as sent."""
    at = 12
    while query[at]:
        at += query[at] + 1
    return query[12 : at + 5]


def good(query: bytes, address: bytes = b"\xc0\x00\x02\x01", ttl: int = 300) -> bytes:
    """The right answer: one A record (NODATA-like SOA for the probe's SOA question is an answer as well)."""
    question = question_of(query)
    if question[-4:-2] == b"\x00\x06":
        return response(query[:2], question, [record(HERE, SOA, soa(".")[11:])])
    return response(query[:2], question, [record(HERE, A, address, ttl)])


Script = Callable[[bytes, str], "list[tuple[float, bytes]] | None"]
"""Query and transport to replies with their delays; ``None`` over TCP closes the connection."""


class ScriptedUpstream(asyncio.DatagramProtocol):
    """A server on UDP and TCP of the same port."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.queries: list[tuple[str, bytes]] = []
        self.sources: set[int] = set()
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        """As a configuration names it."""
        return f"127.0.0.1:{self.port}"

    async def start(self, *, tcp: bool = True, port: int = 0) -> ScriptedUpstream:
        """Listens on a free port, or on a given one."""
        loop = asyncio.get_running_loop()
        for _ in range(20):
            transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", port))
            self._transport = transport
            self.port = transport.get_extra_info("sockname")[1]
            if not tcp:
                return self
            try:
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            except OSError:
                transport.close()
                continue
            return self
        raise AssertionError("no port free for both UDP and TCP")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.queries.append(("udp", data))
        self.sources.add(addr[1])
        for delay, reply in self.script(data, "udp") or []:
            if delay:
                asyncio.get_running_loop().call_later(delay, self._reply, reply, addr)
            else:
                self._reply(reply, addr)

    def _reply(self, reply: bytes, addr: Any) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                query = await reader.readexactly(size)
                self.queries.append(("tcp", query))
                replies = self.script(query, "tcp")
                if replies is None:
                    break
                for delay, reply in replies:
                    await asyncio.sleep(delay)
                    writer.write(len(reply).to_bytes(2, "big") + reply)
        self._writers.discard(writer)
        writer.close()

    async def stop(self) -> None:
        """Nobody listens there any more."""
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.close()
        await asyncio.sleep(0)

    def asked(self, text: str) -> int:
        """How often a name was asked for, over any transport."""
        return sum(name(text) in query.lower() for _, query in self.queries)


def config(*rules: tuple[str, list[str]], **options: Any) -> Config:
    """A configuration with these forward rules; ``options`` go into section ``forward``."""
    forward = {
        "rules": [{"suffix": s, "upstreams": [{"address": a} for a in upstreams]} for s, upstreams in rules],
        "backoff_ms": 5,
        **options,
    }
    return Config.model_validate({"forward": forward, "llm": {"enabled": False}})


@contextlib.asynccontextmanager
async def forwarding(conf: Config) -> AsyncIterator[Forwarder]:
    """A forwarder that is closed at the end."""
    forwarder = Forwarder(conf, real_world(), OwnAddresses())
    try:
        yield forwarder
    finally:
        await forwarder.close()


def item(text: str, qtype: int = A, *, rd: bool = True, rights: int = Right.FORWARD, **fields: Any) -> QueryItem:
    """A query on its way up, with EDNS."""
    flags = dns.RD if rd else 0
    message = struct.pack("!HHHHHH", 7, flags, 1, 0, 0, 1) + names.from_text(text) + struct.pack("!HH", qtype, 1) + OPT
    return QueryItem(3, message, fields.pop("deadline_ms", 5000), rights=rights, **fields)


class _Call:
    def __init__(self, function: Callable[[], None]) -> None:
        self.function: Callable[[], None] | None = function

    def cancel(self) -> None:
        self.function = None


class VirtualTime:
    """A clock that moves only when it is told to, and the calls that wait for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._calls: list[tuple[float, int, _Call]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[[], None]) -> _Call:
        call = _Call(function)
        self._count += 1
        heapq.heappush(self._calls, (self.now + delay, self._count, call))
        return call

    def advance(self, seconds: float) -> None:
        """Moves on, making every call that falls due, at its time."""
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            at, _, call = heapq.heappop(self._calls)
            self.now = max(self.now, at)
            if call.function is not None:
                function, call.function = call.function, None
                function()
        self.now = end


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for a condition; fails when it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.005)

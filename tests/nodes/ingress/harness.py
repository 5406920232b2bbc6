"""What the ingress's tests share: states, a fake shard that answers batches, a fake clock, a door that remembers."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import dns.flags
import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from raydns.actors.zone.image_writer import ZoneSource, build
from raydns.actors.zone.master import parse
from raydns.nodes.ingress.desk import Desk
from raydns.nodes.ingress.engine import MachineState
from raydns.nodes.ingress.reference import ReferenceEngine
from raydns.schemas import batch, names, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem, QueryItem
from raydns.schemas.cluster import Flush, ImageRef, RingTable, Version, ZoneEntry
from raydns.schemas.config import Config

ONE_SHARD = RingTable(1, 7, [2**64 - 1], [0], [-1])
FIRST = Version(1, 1)
TWO_SHARDS = RingTable(1, 7, [2**64 - 1], [0], [1])


def state(
    config: dict[str, Any] | None = None,
    *,
    version: Version = FIRST,
    ring: RingTable = ONE_SHARD,
    zones: Sequence[ZoneEntry] = (),
    images: dict[str, Path] | None = None,
    flushes: Sequence[Flush] = (),
    interface_prefixes: Sequence[str] = (),
) -> MachineState:
    """A machine state with the defaults that most tests want."""
    return MachineState(
        version=version.packed,
        class_version=version.packed,
        config=Config.model_validate(config or {}),
        ring=ring,
        zones=zones,
        images=images or {},
        flushes=flushes,
        machine="m1",
        interface_prefixes=interface_prefixes,
    )


def zone_entry(apex: str) -> ZoneEntry:
    """An entry of the apex table without an image."""
    return ZoneEntry(names.from_text(apex), 0, 0, 1, 1, None)


def ask(name: str, rtype: str = "A", **options: Any) -> bytes:
    """A query in wire form; the plain ones without dnspython, which is slow."""
    if not options.keys() - {"id", "flags"}:
        header = struct.pack("!HHHHHH", options.get("id", 4660), options.get("flags", 0x100), 1, 0, 0, 0)
        return header + names.from_text(name) + struct.pack("!HH", dns.rdatatype.from_text(rtype), 1)
    return dns.message.make_query(name, rtype, **options).to_wire()


def answer(
    item: QueryItem,
    *records: str,
    rcode: int = 0,
    ttl: int = 300,
    flags: int = AnswerFlag.SHAREABLE,
    fresh_s: int | None = None,
    stale_s: int = 3600,
    authority: Sequence[str] = (),
    additional: Sequence[str] = (),
    began: int = Version(1, 1).packed,
    **more: Any,
) -> AnswerItem:
    """An answer to an item, as a shard makes it; ``records`` are ``TYPE data`` or ``owner TYPE data``."""
    query = wire.parse_query(item.message)
    name = names.to_text(query.key)
    message = dns.message.Message(id=0)
    message.flags = dns.flags.QR | rcode
    message.question = [dns.rrset.RRset(dns.name.from_text(name), query.qclass, query.qtype)]
    for section, texts in ((message.answer, records), (message.authority, authority), (message.additional, additional)):
        for text in texts:
            owner, rtype, data = text.split(" ", 2) if text[0].islower() else (name, *text.split(" ", 1))
            rrset = message.find_rrset(
                section,
                dns.name.from_text(owner),
                dns.rdataclass.IN,
                dns.rdatatype.from_text(rtype),
                create=True,
            )
            rrset.add(dns.rdata.from_text("IN", rtype, data), ttl)
    raw = message.to_wire(max_size=65535)
    fresh = fresh_s if fresh_s is not None else ttl
    return AnswerItem(item.slot, raw, flags, 0, fresh, stale_s, began, layout=wire.layout(raw), **more)


Responder = Callable[[QueryItem], AnswerItem | None]


def address_of(item: QueryItem) -> AnswerItem:
    """The usual answer: one A record."""
    return answer(item, "A 192.0.2.1")


class Clock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall_us(self) -> int:
        """The same as Unix time."""
        return int(self.now * 1_000_000)


class Letterbox:
    """A door that remembers what left by it."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Any]] = []

    def send(self, reply: bytes, peer: Any, ancillary: Any) -> None:
        """Remembers a reply."""
        self.sent.append((reply, peer))

    def destination(self, ancillary: Any) -> tuple[bytes, int]:
        """Where it was asked."""
        return bytes(10) + b"\xff\xff\x7f\x00\x00\x01", 53

    def messages(self) -> list[dns.message.Message]:
        """All replies, parsed."""
        return [dns.message.from_wire(reply) for reply, _ in self.sent]


class Counter:
    """A desk with a fake clock, a fake shard and a letterbox: the engine without sockets."""

    def __init__(self, config: dict[str, Any] | None = None, *, reachable: bool = True, **options: Any) -> None:
        self.clock = Clock()
        self.woken: list[int] = []
        self.door = Letterbox()
        self.items: list[QueryItem] = []
        self.spans: list[tuple[str, dict[str, Any]]] = []
        self.desk = Desk(
            clock=self.clock,
            wall_us=self.clock.wall_us,
            wake=self.woken.append,
            recorder=self,
            rng=random.Random(1),
        )
        self.desk.install(state(config, **options))
        if reachable:
            self.desk.flights.set_shard(0, reachable=True, now=self.clock())

    def record(self, name: str, **span: Any) -> None:
        """A span recorder."""
        self.spans.append((name, span))

    def raw(
        self, data: bytes, host: str = "127.0.0.1", port: int = 4000, transport: int = 1, door: Any = None
    ) -> bytes | None:
        """What the desk says to these octets."""
        peer = (host, port) if transport == 1 else None
        return self.desk.handle(data, host, port, transport, door or self.door, peer, None)

    def ask(self, name: str, rtype: str = "A", host: str = "127.0.0.1", **options: Any) -> dns.message.Message:
        """A reply that comes at once."""
        reply = self.raw(ask(name, rtype, **options), host)
        assert reply, "no reply at once"
        return dns.message.from_wire(reply)

    def pending(self, name: str, rtype: str = "A", host: str = "127.0.0.1", port: int = 4000, **options: Any) -> None:
        """A query whose reply has to wait."""
        assert self.raw(ask(name, rtype, **options), host, port) == b""

    def take(self, shard: int = 0) -> list[QueryItem]:
        """The next batch for a shard."""
        data = self.desk.take(shard)
        items = batch.decode_queries(data) if data else []
        self.items += items
        return items

    def serve(self, respond: Responder = address_of, shard: int = 0) -> list[QueryItem]:
        """Lets the shard answer all that waits for it."""
        items = self.take(shard)
        self.deliver(*[made for item in items if (made := respond(item)) is not None])
        return items

    def deliver(self, *answers: AnswerItem) -> None:
        """Answers from the shard."""
        if answers:
            self.desk.deliver(batch.encode_answers(list(answers)))

    def later(self, seconds: float) -> None:
        """Time passes, and deadlines are looked at."""
        self.clock.now += seconds
        self.desk.expire()

    def last(self) -> dns.message.Message:
        """The newest reply that had to wait."""
        return self.door.messages()[-1]


class FakeShard:
    """Answers an engine's batches in the same event loop, through the same calls as a stream."""

    def __init__(self, engine: ReferenceEngine, respond: Responder = address_of, shard: int = 0) -> None:
        self.engine = engine
        self.respond = respond
        self.items: list[QueryItem] = []
        self.delay_s = 0.0
        self.holding = False
        self._loop = asyncio.get_running_loop()
        engine.set_wakeup(self.wake)
        engine.set_shard(shard, reachable=True)

    def wake(self, shard: int) -> None:
        """The engine has something."""
        while data := self.engine.take_batch(shard):
            items = batch.decode_queries(data)
            self.items += items
            if not self.holding:
                self.reply(items)

    def reply(self, items: list[QueryItem]) -> None:
        """Answers these."""
        answers = [made for item in items if (made := self.respond(item)) is not None]
        if not answers:
            return
        data = batch.encode_answers(answers)
        if self.delay_s:
            self._loop.call_later(self.delay_s, self.engine.deliver, data)
        else:
            self._loop.call_soon(self.engine.deliver, data)


def udp_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A bound UDP socket as the supervisor makes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((host, port))
    return sock


def tcp_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening TCP socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((host, port))
    sock.listen(128)
    return sock


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Waits for a condition; fails at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not condition():
        assert loop.time() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


class UdpClient(asyncio.DatagramProtocol):
    """A client that keeps what comes back."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        self.sources: list[Any] = []
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A reply."""
        self.replies.append(data)
        self.sources.append(addr)

    async def pace(self, sent: int, window: int = 100) -> None:
        """Lets others run until few replies are outstanding: neither side's receive buffer may overflow."""
        await asyncio.sleep(0)
        if sent - len(self.replies) >= window:
            await until(lambda: sent - len(self.replies) < window, 20)

    async def ask(self, data: bytes, timeout_s: float = 5.0) -> dns.message.Message:
        """Sends a query and waits for its reply."""
        self.transport.sendto(data)
        await until(lambda: any(reply[:2] == data[:2] for reply in self.replies), timeout_s)
        reply = next(reply for reply in self.replies if reply[:2] == data[:2])
        self.replies.remove(reply)
        return dns.message.from_wire(reply)


async def udp_client(address: tuple[Any, ...]) -> UdpClient:
    """A client that is connected to a server."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_datagram_endpoint(UdpClient, remote_addr=address[:2])
    return client


def frame(message: bytes) -> bytes:
    """A message as TCP carries it."""
    return struct.pack("!H", len(message)) + message


async def read_frame(reader: asyncio.StreamReader, timeout_s: float = 5.0) -> bytes:
    """The next message of a TCP connection."""
    async with asyncio.timeout(timeout_s):
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(size)


def quick(item: QueryItem) -> AnswerItem:
    """The same answer as ``address_of`` without dnspython: for floods."""
    query = item.message[12:]
    end = query.index(b"\x00") + 5
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x01"
    raw = b"\x00\x00\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00" + query[:end] + record
    at = 12 + end
    layout = wire.LAYOUT.pack(at, at + 6, 0, 1)
    return AnswerItem(item.slot, raw, AnswerFlag.SHAREABLE, 0, 300, 3600, FIRST.packed, layout=layout)


def zone_files(folder: Path, zones: dict[str, str]) -> tuple[list[ZoneEntry], dict[str, Path]]:
    """Images of zones given as master-file text by apex, and the apex table that names them."""
    entries: list[ZoneEntry] = []
    paths: dict[str, Path] = {}
    for apex, text in zones.items():
        data = parse(text, names.from_text(apex), origin_file=f"{apex}zone")
        octets = build([ZoneSource(data)])
        sha256 = hashlib.sha256(octets).hexdigest()
        paths[sha256] = folder / f"{sha256}.img"
        paths[sha256].write_bytes(octets)
        entries.append(ZoneEntry(data.apex, 0, 0, data.serial, 0, ImageRef(sha256, len(octets)), data.records))
    return entries, paths

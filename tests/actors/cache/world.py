"""A shard with a virtual clock, scripted query actors, and messages to feed it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raydns.actors.cache.core import CacheCore
from raydns.actors.cache.settings import Settings
from raydns.schemas import dns, names, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem, QueryItem, RoomStamp, stamps
from raydns.schemas.cluster import Flush, RingTable, Version

NO_RING = RingTable(version=0, seed=0)
NAME = "www.example."
SHARE = AnswerFlag.SHAREABLE


def query(name: str, qtype: int = dns.Type.A, *, do: bool = False, cd: bool = False, opcode: int = 0) -> bytes:
    """A query message with RD."""
    flags = dns.RD | (dns.CD if cd else 0) | opcode << 11
    opt = wire.opt_record(udp_size=1232, do=True) if do else b""
    head = struct.pack("!HHHHHH", 0x1234, flags, 1, 0, 0, 1 if do else 0)
    return head + names.from_text(name) + struct.pack("!HH", qtype, 1) + opt


def record(owner: str | None, rtype: int, ttl: int, rdata: bytes) -> bytes:
    """One record; ``None``: a pointer to the question's name."""
    name = b"\xc0\x0c" if owner is None else names.from_text(owner)
    return name + struct.pack("!HHIH", rtype, 1, ttl, len(rdata)) + rdata


def soa(owner: str, ttl: int, minimum: int) -> bytes:
    """An SOA record."""
    rdata = names.from_text("ns.") + names.from_text("root.") + struct.pack("!IIIII", 1, 3600, 600, 86400, minimum)
    return record(owner, dns.Type.SOA, ttl, rdata)


def message(
    name: str,
    qtype: int = dns.Type.A,
    answer: Sequence[bytes] = (),
    authority: Sequence[bytes] = (),
    *,
    rcode: int = 0,
    flags: int = 0,
) -> bytes:
    """A response between rooms."""
    head = struct.pack("!HHHHHH", 0, dns.QR | flags | rcode, 1, len(answer), len(authority), 0)
    question = names.key(names.from_text(name)) + struct.pack("!HH", qtype, 1)
    return head + question + b"".join(answer) + b"".join(authority)


def positive(name: str, ttl: int = 300, last: int = 1, **fields: Any) -> AnswerItem:
    """An A answer as a query actor sends it."""
    fields = {"fresh_s": ttl, "stale_s": 86400, "flags": AnswerFlag.SHAREABLE, **fields}
    return AnswerItem(0, message(name, answer=[record(None, 1, ttl, bytes((192, 0, 2, last)))]), **fields)


def negative(name: str, ttl: int = 600, minimum: int = 60, rcode: int = 3, **fields: Any) -> AnswerItem:
    """NXDOMAIN or NODATA with an SOA."""
    body = message(name, authority=[soa("example.", ttl, minimum)], rcode=rcode)
    fields = {"fresh_s": 86400, "stale_s": 86400, "flags": AnswerFlag.SHAREABLE, **fields}
    return AnswerItem(0, body, **fields)


def failure(name: str, rcode: int = 2, **fields: Any) -> AnswerItem:
    """SERVFAIL, from an upstream unless flags say otherwise."""
    return AnswerItem(0, message(name, rcode=rcode), **{"flags": AnswerFlag.SHAREABLE, "ede": 22, **fields})


def rcode_of(answer: AnswerItem) -> int:
    """The response code."""
    return answer.message[3] & 15


def ttls(answer: AnswerItem) -> list[int]:
    """TTLs in order."""
    return [
        int.from_bytes(answer.message[at : at + 4], "big")
        for _, at, _, _ in wire.LAYOUT.iter_unpack(wire.layout(answer.message))
    ]


class Upstream:
    """A query actor (or another shard) that does what the test says."""

    def __init__(self) -> None:
        self.connected = True
        self.asked: list[QueryItem] = []
        self.dropped: list[int] = []
        self._open: dict[int, Callable[[AnswerItem | None], None]] = {}
        self._slot = 0

    @property
    def in_flight(self) -> int:
        return len(self._open)

    @property
    def open_slots(self) -> list[int]:
        return list(self._open)

    def send(self, item: QueryItem, done: Callable[[AnswerItem | None], None]) -> int:
        self._slot += 1
        item.slot = self._slot
        self.asked.append(item)
        self._open[self._slot] = done
        return self._slot

    def drop(self, slot: int) -> None:
        self.dropped.append(slot)
        self._open.pop(slot, None)

    def answer(self, item: AnswerItem | None, slot: int | None = None) -> None:
        """Answers the oldest question, or this one."""
        slot = next(iter(self._open)) if slot is None else slot
        done = self._open[slot] if item is not None and item.flags & AnswerFlag.MORE else self._open.pop(slot)
        done(item)

    def lose(self) -> None:
        """The stream breaks."""
        self.connected = False
        lost, self._open = list(self._open.values()), {}
        for done in lost:
            done(None)


class World:
    """One shard and what is around it."""

    def __init__(self, upstreams: int = 1, index: int = 0, tracer: Any = None, **settings: Any) -> None:
        self.now = 1000.0
        self.core = CacheCore(index, clock=lambda: self.now, random=lambda: 0.0, wall_offset=1e9, tracer=tracer)
        self.upstreams = [Upstream() for _ in range(upstreams)]
        self.peers: dict[int, Upstream] = {}
        self.settings = replace(Settings(), **settings)
        self.flushes: list[Flush] = []
        self.number = 1
        self.ring = NO_RING
        self.answers: dict[int, list[AnswerItem]] = {}
        self._slot = 0
        self.install()

    @property
    def upstream(self) -> Upstream:
        return self.upstreams[0]

    @property
    def version(self) -> int:
        return Version(1, self.number).packed

    def install(self) -> None:
        """A new snapshot."""
        self.core.install(self.settings, self.ring, self.flushes, self.version)
        self.core.connect([(u, False) for u in self.upstreams], self.peers)

    def flush(self, name: str, *, subtree: bool = False) -> None:
        """A flush reaches the shard."""
        self.number += 1
        self.flushes.append(Flush(names.from_text(name), subtree, Version(1, self.number)))
        self.install()

    def ask(self, name: str, qtype: int = dns.Type.A, *, do: bool = False, cd: bool = False, **fields: Any) -> int:
        """A query; returns its slot."""
        return self.send(query(name, qtype, do=do, cd=cd), **fields)

    def send(self, data: bytes, **fields: Any) -> int:
        """A message as a query."""
        self._slot += 1
        slot = self._slot
        self.answers[slot] = []
        self.core.ask(QueryItem(slot, data, **{"deadline_ms": 7000, **fields}), self.answers[slot].append)
        return slot

    def step(self, seconds: float) -> None:
        """Time passes, and everything that is due in it happens in order."""
        end = self.now + seconds
        while (due := self.core.next_wake()) is not None and due <= end:
            self.now = max(self.now, due)
            self.core.tick()
        self.now = end
        self.core.tick()

    def got(self, slot: int) -> AnswerItem:
        """The one answer of a slot."""
        found = self.answers[slot]
        assert len(found) == 1, f"slot {slot} has {len(found)} answers"
        assert found[0].slot == slot
        return found[0]

    def waits(self, slot: int) -> bool:
        """Whether a slot has no answer yet."""
        return not self.answers[slot]

    def room(self, slot: int) -> RoomStamp:
        """The shard's time stamps in a slot's answer."""
        return stamps(self.got(slot).rooms)[0]

    def fill(self, name: str, answer: AnswerItem | None = None) -> AnswerItem:
        """Asks and answers a name, so that it is in the store."""
        slot = self.ask(name)
        self.upstream.answer(answer or positive(name))
        return self.got(slot)

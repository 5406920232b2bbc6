"""Misses: one flight a key however many wait, a queue a shard, and what happens when a shard goes, lies or is silent.

A flight:

    queued ──take──▶ sent ──answer, shareable──▶ done: all who wait get it
      ▲                │ ──answer for one slot─▶ the leader gets it, the next waiter leads ──▶ queued
      │                │ ──RETRY─▶ parked until newer tables are installed ──▶ queued (at most ``RETRIES_MAX`` times)
      └──shard lost────┘ ──deadline of the flight─▶ whoever still waits leads a new one

Nobody here decides what a client gets: that is ``Settle``'s. Rules: waiters are bounded in all, a name and a client
prefix; a flight that nobody wants any more and that was not sent is dropped; one that was sent finishes, so that its
answer is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

import msgspec

from raydns.schemas import dns
from raydns.schemas.batch import ITEMS_MAX, AnswerItem, QueryFlag, QueryItem
from raydns.schemas.cluster import RingTable

from .asked import Door
from .render import Stored
from .target import Target
from .waiting import Waiter, Wheel

RETRIES_MAX: Final = 3
SLOT_MAX: Final = 0xFFFFFFFF
MARGIN_S: Final = 0.1
"""What those above get less than the client's time: their own SERVFAIL, with its reason, should come before ours."""
GRACE_S: Final = 1.0
"""How long after its deadline a flight's answer is still worth keeping."""
NO_SHARD: Final = -1


class Shed(Enum):
    """Why a query may not wait."""

    MACHINE = "machine"  # server.max_concurrent_queries
    NAME = "name"  # server.waiters_per_name_max
    PREFIX = "prefix"  # server.waiters_per_prefix_max
    LOOP = "loop"  # it is our own query, come back


class Limits(msgspec.Struct, frozen=True):
    """Bounds and times, from the configuration."""

    waiters_max: int
    name_max: int
    prefix_max: int
    timeout_s: float
    exempt_loopback: bool


class Arrived:
    """An answer from above, taken apart once for all who get it; without ``stored`` it could not be read."""

    __slots__ = ("item", "problem", "stored", "tail")

    def __init__(self, item: AnswerItem, stored: Stored | None, problem: str = "") -> None:
        self.item = item
        self.stored = stored
        self.tail = stored.tail if stored is not None else b""
        self.problem = problem


class Settle(Protocol):
    """Who answers those that waited."""

    def settle(self, waiter: Waiter, answer: Arrived | None) -> None:
        """Answers one; ``None``: nothing came in time."""

    def grow_stale(self, waiter: Waiter) -> bool:
        """Gives a stale answer to one that waited long enough; ``False`` if there is none any more."""


class Flight:
    """One question on its way up."""

    __slots__ = (
        "deadline",
        "identities",
        "prefetch",
        "prefixes",
        "queued_at",
        "retries",
        "sent",
        "shard",
        "slot",
        "state_version",
        "target",
        "tick",
        "waiters",
    )

    def __init__(self, target: Target, slot: int, deadline: float) -> None:
        self.target = target
        self.slot = slot
        self.deadline = deadline
        self.shard = NO_SHARD
        self.sent = False
        self.retries = 0
        self.prefetch = False
        self.queued_at = 0.0
        self.state_version = 0  # of the tables that it was sent with
        self.waiters: dict[Waiter, None] = {}  # in the order of arrival: the first one leads
        self.identities: dict[tuple[bytes, int, bytes, int], Waiter] = {}
        self.prefixes: dict[bytes, int] = {}  # waiters of a client prefix
        self.tick = -1


class Flights:
    """All flights of this ingress."""

    def __init__(self, wheel: Wheel, settle: Settle, wake: Callable[[int], None]) -> None:
        self.waiting = 0
        self._wheel = wheel
        self._settle = settle
        self._wake = wake
        self._limits = Limits(10_000, 10_000, 100, 7.0, True)
        self._ring = RingTable(0, 0)
        self._versions = (0, 0, 0)  # class table, ring, state
        self._slot = 0
        self._by_key: dict[tuple[bytes, int], Flight] = {}
        self._by_slot: dict[int, Flight] = {}
        self._queues: dict[int, dict[int, Flight]] = {}
        self._parked: dict[int, Flight] = {}
        self._reachable: dict[int, bool] = {}
        self._by_door: dict[Door, dict[Waiter, None]] = {}  # of connections: UDP never goes away

    @property
    def in_flight(self) -> int:
        """Questions on their way."""
        return len(self._by_slot)

    @property
    def queued(self) -> int:
        """Questions that no shard has taken yet."""
        return sum(len(queue) for queue in self._queues.values()) + len(self._parked)

    def configure(self, limits: Limits, ring: RingTable, versions: tuple[int, int, int], now: float) -> None:
        """New bounds and tables: what waits for a shard finds its new owner, what had to be retried is sent again."""
        self._limits, self._ring, self._versions = limits, ring, versions
        for flight in [f for queue in self._queues.values() for f in queue.values()]:
            self._unqueue(flight)
            self._enqueue(flight, now)
        for flight in list(self._parked.values()):
            if versions[2] > flight.state_version:
                del self._parked[flight.slot]
                self._enqueue(flight, now)

    def reachable(self, ring_hash: int) -> bool:
        """Whether anybody who owns this hash can be asked now."""
        return any(self._reachable.get(shard, False) for shard in self._ring.owners(ring_hash))

    def find(self, target: Target) -> Flight | None:
        """The flight of this question, if one is up."""
        return self._by_key.get(target.flight_key)

    def join(self, target: Target, waiter: Waiter, now: float) -> Shed | None:
        """Lets a query wait; starts a flight if none is up. Returns why not, if it may not."""
        limits = self._limits
        flight = self._by_key.get(target.flight_key)
        if flight is not None and waiter.asked.identity in flight.identities:
            return None  # a retransmission: its first copy is answered, once
        if self.waiting >= limits.waiters_max:
            return Shed.MACHINE
        prefix = waiter.asked.client.prefix
        if flight is not None:
            if len(flight.waiters) >= limits.name_max:
                return Shed.NAME
            exempt = waiter.asked.client.loopback and limits.exempt_loopback
            if not exempt and flight.prefixes.get(prefix, 0) >= limits.prefix_max:
                return Shed.PREFIX
            waiter.joined = True
            flight.prefetch = False
        elif len(self._by_slot) >= limits.waiters_max:
            return Shed.MACHINE
        else:
            flight = self._start(target, now)
        waiter.flight = flight
        flight.waiters[waiter] = None
        flight.identities[waiter.asked.identity] = waiter
        flight.prefixes[prefix] = flight.prefixes.get(prefix, 0) + 1
        self.waiting += 1
        if waiter.asked.transport != dns.Transport.UDP:
            self._by_door.setdefault(waiter.asked.door, {})[waiter] = None
        self._wheel.add(waiter, min(waiter.stale_at or waiter.deadline, waiter.deadline))
        return None

    def prefetch(self, target: Target, now: float) -> None:
        """Asks again for what is popular and about to expire; nobody waits, and under load nothing happens."""
        if target.flight_key in self._by_key or len(self._by_slot) * 2 >= self._limits.waiters_max:
            return
        self._start(target, now, prefetch=True)

    def forget(self, door: Door) -> None:
        """A connection is gone: its queries wait no more."""
        for waiter in list(self._by_door.get(door, ())):
            self._remove(waiter)

    def take(self, shard: int, now: float) -> list[QueryItem]:
        """The next questions for a shard, oldest first, at most one batch."""
        queue = self._queues.get(shard)
        items: list[QueryItem] = []
        while queue and len(items) < ITEMS_MAX:
            slot = next(iter(queue))
            flight = queue.pop(slot)
            leader = next(iter(flight.waiters), None)
            if leader is None and not flight.prefetch:
                self._end(flight)
                continue
            flight.sent = True
            flight.state_version = self._versions[2]
            left = max(int((flight.deadline - MARGIN_S - now) * 1000), 1)
            flags = QueryFlag.PREFETCH if flight.prefetch else 0
            flags |= QueryFlag.PROVEN if leader is not None and leader.asked.transport != dns.Transport.UDP else 0
            asked = leader.asked if leader is not None else None
            items.append(flight.target.item(slot, asked, flags=flags, deadline_ms=left, versions=self._versions))
        return items

    def flight_by_slot(self, slot: int) -> Flight | None:
        """The flight that an answer is for."""
        flight = self._by_slot.get(slot)
        return flight if flight is not None and flight.sent else None

    def finish(self, flight: Flight, answer: Arrived, *, shared: bool, now: float) -> None:
        """An answer came: all get it, or only the one who leads; then the next one leads."""
        waiters = list(flight.waiters) if shared else list(flight.waiters)[:1]
        for waiter in waiters:
            self._remove(waiter, keep=True)
            self._settle.settle(waiter, answer)
        if flight.waiters:
            self._lead_again(flight, now)
        else:
            self._end(flight)

    def retry(self, flight: Flight, now: float) -> bool:
        """A shard did not know our tables. Asks again with newer ones; ``False`` when it was tried often enough."""
        if flight.retries >= RETRIES_MAX:
            return False
        flight.retries += 1
        self._renumber(flight)
        if self._versions[2] > flight.state_version:
            self._enqueue(flight, now)
        else:
            self._parked[flight.slot] = flight
        return True

    def set_shard(self, shard: int, *, reachable: bool, now: float) -> None:
        """A shard's stream came or went: what it had is lost, what waited may go elsewhere."""
        self._reachable[shard] = reachable
        if not reachable:
            for flight in [f for f in self._by_slot.values() if f.sent and f.shard == shard]:
                # A new slot: an answer from a connection that died cannot be taken for one of the next.
                self._renumber(flight)
                self._enqueue(flight, now)
        for other, queue in list(self._queues.items()):
            if self._reachable.get(other, False) or not queue:
                continue
            for flight in list(queue.values()):
                if self._route(flight) != other:
                    self._unqueue(flight)
                    self._enqueue(flight, now)
        if reachable and self._queues.get(shard):
            self._wake(shard)

    def expire(self, now: float) -> None:
        """Deals with all whose time has come."""
        for timed in self._wheel.due(now):
            if isinstance(timed, Waiter):
                self._expire_waiter(timed, now)
            elif isinstance(timed, Flight):
                self._expire_flight(timed, now)

    def clear(self) -> None:
        """Drops everything at once, answering nobody."""
        for flight in list(self._by_slot.values()):
            for waiter in list(flight.waiters):
                self._remove(waiter, keep=True)
            self._end(flight)

    def _expire_waiter(self, waiter: Waiter, now: float) -> None:
        if now < waiter.deadline and waiter.stale_at:
            waiter.stale_at = 0.0
            if self._settle.grow_stale(waiter):
                self._remove(waiter)
            else:
                self._wheel.add(waiter, waiter.deadline)
            return
        self._remove(waiter)
        self._settle.settle(waiter, None)

    def _expire_flight(self, flight: Flight, now: float) -> None:
        if flight.waiters:
            self._lead_again(flight, now)
        else:
            self._end(flight)

    def _start(self, target: Target, now: float, *, prefetch: bool = False) -> Flight:
        flight = Flight(target, self._next_slot(), now + self._limits.timeout_s)
        flight.prefetch = prefetch
        self._by_key[target.flight_key] = flight
        self._by_slot[flight.slot] = flight
        self._wheel.add(flight, flight.deadline + GRACE_S)
        self._enqueue(flight, now)
        return flight

    def _lead_again(self, flight: Flight, now: float) -> None:
        self._renumber(flight)
        flight.deadline = now + self._limits.timeout_s
        flight.retries = 0
        self._wheel.add(flight, flight.deadline + GRACE_S)
        self._enqueue(flight, now)

    def _renumber(self, flight: Flight) -> None:
        self._unqueue(flight)
        self._by_slot.pop(flight.slot, None)
        flight.slot = self._next_slot()
        flight.sent = False
        self._by_slot[flight.slot] = flight

    def _next_slot(self) -> int:
        while True:
            self._slot = self._slot + 1 if self._slot < SLOT_MAX else 0
            if self._slot not in self._by_slot:
                return self._slot

    def _route(self, flight: Flight) -> int:
        first, second = self._ring.owners(flight.target.ring_hash)
        reachable = self._reachable.get
        if not reachable(first, False) and second >= 0 and reachable(second, False):
            return second
        return first

    def _enqueue(self, flight: Flight, now: float) -> None:
        flight.shard = shard = self._route(flight)
        flight.queued_at = now
        queue = self._queues.get(shard)
        if queue is None:
            queue = self._queues[shard] = {}
        queue[flight.slot] = flight
        if len(queue) == 1 and shard >= 0:
            self._wake(shard)

    def _unqueue(self, flight: Flight) -> None:
        self._parked.pop(flight.slot, None)
        queue = self._queues.get(flight.shard)
        if queue is not None:
            queue.pop(flight.slot, None)

    def _remove(self, waiter: Waiter, *, keep: bool = False) -> None:
        flight = waiter.flight
        if flight is None:
            return
        waiter.flight = None
        self._wheel.remove(waiter)
        del flight.waiters[waiter]
        flight.identities.pop(waiter.asked.identity, None)
        prefix = waiter.asked.client.prefix
        left = flight.prefixes[prefix] - 1
        if left:
            flight.prefixes[prefix] = left
        else:
            del flight.prefixes[prefix]
        self.waiting -= 1
        others = self._by_door.get(waiter.asked.door)
        if others is not None:
            others.pop(waiter, None)
            if not others:
                del self._by_door[waiter.asked.door]
        if not flight.waiters and not flight.sent and not keep:
            self._end(flight)  # unwanted before it started

    def _end(self, flight: Flight) -> None:
        self._unqueue(flight)
        self._wheel.remove(flight)
        self._by_slot.pop(flight.slot, None)
        if self._by_key.get(flight.target.flight_key) is flight:
            del self._by_key[flight.target.flight_key]

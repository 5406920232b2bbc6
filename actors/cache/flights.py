"""Flights: the questions that are on their way up, and who waits for each. State only; what to do is core.py's.

        lead ──▶ WAITING ──channel──▶ STARTED ──last answer──▶ LANDED
                    │                   │  ▲
                    │ nobody waits      └──┘ this slot only: the next waiter leads
                    ▼                        stream lost: once more at somebody else
                 DROPPED

A flight has its own deadline and budget, never what was left of its leader's. WAITING means that no query actor
can be reached at the moment: unwanted there, it is dropped; once STARTED it finishes and its answer is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, Protocol

from raydns.schemas.batch import AnswerItem, QueryItem

from .store import Entry

Reply = Callable[[AnswerItem], None]
Done = Callable[[AnswerItem | None], None]

# Waiters of all flights of a shard: each is a query that an ingress holds too, so this only bounds memory (20 MB).
WAITERS_TOTAL_MAX: Final = 100_000
# Flights that wait for a query actor to come back; the oldest are the most likely to be wanted no longer.
PENDING_MAX: Final = 10_000


class Channel(Protocol):
    """A stream to a query actor or to another shard, as ``nodes.streams.requests.Requests`` offers it."""

    @property
    def in_flight(self) -> int:
        """Questions without an answer."""

    @property
    def connected(self) -> bool:
        """Whether it takes questions now."""

    def send(self, item: QueryItem, done: Done) -> int:
        """Sends; ``done`` is called later, with ``None`` if the stream was lost."""

    def drop(self, slot: int) -> None:
        """The answer is wanted no longer."""


class State(IntEnum):
    """Where a flight is."""

    WAITING = 0
    STARTED = 1
    LANDED = 2
    DROPPED = 3


class Waiter:
    """One query that waits for a flight; ``item`` is ``None`` once it has been answered."""

    __slots__ = ("arrived", "flight", "item", "joined", "reply", "slot", "span_id")

    def __init__(self, item: QueryItem, reply: Reply, arrived: float) -> None:
        self.item: QueryItem | None = item
        self.slot = item.slot  # the item's own is set anew by the channel that it is sent on
        self.reply = reply
        self.arrived = arrived
        self.joined = False  # another leads
        self.flight: Flight | None = None
        self.span_id = b""


class Flight:
    """One question on its way up."""

    __slots__ = (
        "attempts",
        "began",
        "channel",
        "deadline_at",
        "entry",
        "item",
        "key",
        "live",
        "name",
        "prefetch",
        "question",
        "relay_to",
        "stale_at",
        "state",
        "streaming",
        "ticket",
        "transfer",
        "waiters",
    )

    def __init__(self, key: bytes, question: bytes, item: QueryItem) -> None:
        self.key = key
        self.question = question  # in key form, with type and class
        self.name = question[:-4]
        self.item = item  # the leader's
        self.waiters: deque[Waiter] = deque()  # in order of arrival; answered ones stay until they are met
        self.live = 0  # waiters without an answer
        self.state = State.WAITING
        self.channel: Channel | None = None
        self.ticket = -1  # slot on the channel
        self.attempts = 0
        self.began = 0  # packed state version at its start
        self.deadline_at = 0.0  # its own; 0 until it is sent or held
        self.stale_at = 0.0  # from when on a stale answer is given instead of waiting; 0: there is none
        self.entry: Entry | None = None  # what may be served stale, or stays fresh while it is fetched anew
        self.prefetch = False
        self.relay_to = -1  # the shard that owns the name, -1: answered here
        self.transfer = False  # more than one answer may come; nobody joins
        self.streaming = False  # a first part came: from now on each part has the flight's time

    def begin_anew(self, item: QueryItem) -> None:
        """Another leads, with a deadline, a budget and attempts of its own."""
        self.item = item
        self.attempts = 0
        self.deadline_at = 0.0
        self.channel = None

    @property
    def over(self) -> bool:
        """Whether it ended, one way or the other."""
        return self.state >= State.LANDED

    def unanswered(self) -> Iterator[Waiter]:
        """Who still waits, leader first."""
        return (waiter for waiter in self.waiters if waiter.item is not None)

    def leader(self) -> Waiter | None:
        """The first who still waits."""
        while self.waiters and self.waiters[0].item is None:
            self.waiters.popleft()
        return self.waiters[0] if self.waiters else None


class Flights:
    """The flights of a shard by key; counts waiters, bounds them, and keeps those that wait for a channel."""

    def __init__(self) -> None:
        self.waiters = 0
        self.started = 0
        self._by_key: dict[bytes, Flight] = {}
        self._detached: set[Flight] = set()  # flushed ones; bounded, since each was in ``_by_key``
        self._pending: deque[Flight] = deque()
        self._number = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: bytes) -> Flight | None:
        """The flight that a query with this key joins."""
        return self._by_key.get(key)

    def new_number(self) -> int:
        """For keys that nobody shares."""
        self._number += 1
        return self._number

    def add(self, flight: Flight) -> None:
        """A new flight, not started."""
        self._by_key[flight.key] = flight

    def join(self, flight: Flight, waiter: Waiter) -> None:
        """One more waits for it."""
        waiter.flight = flight
        flight.waiters.append(waiter)
        flight.live += 1
        self.waiters += 1

    def answered(self, waiter: Waiter) -> None:
        """The waiter has its answer; lets go of all that it holds."""
        waiter.item = None
        if waiter.flight is not None:
            waiter.flight.live -= 1
            self.waiters -= 1
            waiter.flight = None

    def start(self, flight: Flight) -> None:
        """It was sent."""
        if flight.state == State.WAITING:
            self.started += 1
        flight.state = State.STARTED

    def end(self, flight: Flight, state: State) -> None:
        """It is over; new queries of its key lead another."""
        if flight.state == State.STARTED:
            self.started -= 1
        flight.state = state
        flight.channel = None
        if self._by_key.get(flight.key) is flight:
            del self._by_key[flight.key]
        else:
            self._detached.discard(flight)
        if not flight.live:
            flight.waiters.clear()

    def detach(self, flight: Flight) -> None:
        """It goes on for those who wait, but nobody joins it any more (its name was flushed)."""
        if self._by_key.get(flight.key) is flight:
            del self._by_key[flight.key]
            self._detached.add(flight)

    def hold(self, flight: Flight) -> Flight | None:
        """Keeps a flight that no channel can take; returns the one that had to give way, if any."""
        if flight.state == State.STARTED:
            self.started -= 1
        flight.state = State.WAITING
        self._pending.append(flight)
        return self._pending.popleft() if len(self._pending) > PENDING_MAX else None

    def held(self) -> list[Flight]:
        """Those that wait for a channel; they are held no longer."""
        found = [flight for flight in self._pending if flight.state == State.WAITING]
        self._pending.clear()
        return found

    def all(self) -> list[Flight]:
        """Every flight that is not over."""
        return [*self._by_key.values(), *self._detached]

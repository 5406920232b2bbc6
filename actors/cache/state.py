"""What departures, arrivals and the core share: the one state of a shard, and the questions that all ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from raydns.nodes.timers import Timers
from raydns.schemas.cluster import FlushTable, RingTable

from .failures import Failures
from .flights import Channel, Flight, Flights, Waiter
from .metrics import CacheMetrics
from .pool import Pool
from .replies import Replies
from .settings import Settings
from .store import Entry, Store


class ShardState:
    """Everything that a shard knows; all of it soft."""

    def __init__(
        self,
        index: int,
        clock: Callable[[], float],
        random: Callable[[], float],
        replies: Replies,
        metrics: CacheMetrics,
    ) -> None:
        self.index = index
        self.clock = clock
        self.settings = Settings()
        self.version = 0
        """Packed version of the snapshot in force: where a flight begins."""
        self.ring = RingTable(version=0, seed=0)
        self.flushes = FlushTable([])
        self.peers: Mapping[int, Channel] = {}
        """Other shards by index."""
        self.store = Store(self.settings.bytes_max)
        self.failures = Failures()
        self.flights = Flights()
        self.timers: Timers[Waiter | Flight] = Timers()
        self.pool = Pool(random, self.settings.in_flight_max)
        self.replies = replies
        self.metrics = metrics

    def flushed(self, name: bytes, began: int) -> bool:
        """Whether what began then is older than a flush of the name."""
        return began < self.flushes.newest and self.flushes.covers(name, began)

    def usable(self, flight: Flight, now: float) -> Entry | None:
        """What a flight may serve instead of an answer: its entry, unless that is too old, gone or flushed."""
        entry = flight.entry
        if entry is None or now >= entry.stale_until or self.flushed(flight.name, entry.began):
            return None
        return entry

    def give_old(self, flight: Flight, entry: Entry, now: float) -> None:
        """Answers all who wait with what there is; the flight itself may go on."""
        for waiter in list(flight.unanswered()):
            self.from_old(waiter, entry, now)
            self.flights.answered(waiter)

    def from_old(self, waiter: Waiter, entry: Entry, now: float) -> None:
        """From what is held, which may still be fresh where it was being fetched before its time."""
        if now < entry.fresh_until:
            self.replies.fresh(waiter, entry, now)
        else:
            self.replies.stale(waiter, entry, now)

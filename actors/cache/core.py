"""The shard without its sockets: what happens to a query from its arrival to its one answer.

Order for each query: store (fresh) → stale that is given at once → remembered failure → the name's owner, if that is
another shard → join or lead a flight. How a flight goes up is in departures.py, how it ends in arrivals.py, what may
be kept in answers.py, what is sent in replies.py.

Rules of these files: every waiter is answered exactly once, whatever query actors do; at most one flight a key is
started unless its name was flushed meanwhile; nothing awaits, and time comes from the clock that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from raydns.nodes.metrics import Family
from raydns.schemas import dns, wire
from raydns.schemas.batch import QueryFlag, QueryItem
from raydns.schemas.cluster import Flush, FlushTable, RingTable
from raydns.schemas.errors import MessageError

from .arrivals import Arrivals
from .departures import BUSY, NOT_READY, Departures
from .failures import Failure
from .flights import WAITERS_TOTAL_MAX, Channel, Flight, Reply, State, Waiter
from .keys import TRANSFERS, for_relay, key_of, question_of
from .metrics import CacheMetrics
from .replies import LATE, Replies, SpanSink
from .settings import Settings
from .state import ShardState
from .store import Entry

# Our SERVFAIL, which says why, should be below before the waiter's own deadline there.
MARGIN_MS: Final = 100
LEAVING: Final = "the cache shard is leaving"


class CacheCore:
    """One cache shard.

    Args:
        index: of the shard on the ring.
        clock: seconds, monotonic.
        random: numbers in [0, 1), for the choice of query actors.
        wall_offset: what the clock lacks to Unix time.
        tracer: takes the spans of sampled queries.
    """

    def __init__(
        self,
        index: int,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        wall_offset: float = 0.0,
        tracer: SpanSink | None = None,
    ) -> None:
        self.metrics = CacheMetrics()
        self.replies = Replies(index, wall_offset, self.metrics, tracer)
        self.state = ShardState(index, clock, random, self.replies, self.metrics)
        self._arrivals = Arrivals(self.state)
        self._departures = Departures(self.state, self._arrivals)
        state = self.state
        self.metrics.gauges(
            {
                "entries": lambda: float(len(state.store)),
                "bytes": lambda: float(state.store.size),
                "bytes_limit": lambda: float(state.store.bytes_max),
                "waiters": lambda: float(state.flights.waiters),
                "flights_open": lambda: float(len(state.flights)),
                "failures_known": lambda: float(len(state.failures)),
                "in_flight": lambda: float(state.flights.started),
            }
        )

    # What the cluster decided.

    def install(self, settings: Settings, ring: RingTable, flushes: Sequence[Flush], version: int) -> None:
        """Takes over a snapshot.

        Entries below a flush are gone when they are next met; flights that began before it end for those who
        wait, but nobody joins them any more.
        """
        state = self.state
        state.settings, state.ring = settings, ring
        state.version = max(version, state.version)
        state.pool.in_flight_max = settings.in_flight_max
        self.replies.ring_version = ring.version
        self.replies.stale_ttl = settings.stale_ttl
        state.store.limit(settings.bytes_max, state.clock())
        if not settings.enabled:
            state.store.clear()
            state.failures.clear()
        newest = state.flushes.newest
        state.flushes = FlushTable(list(flushes))
        if state.flushes.newest != newest:
            for flight in state.flights.all():
                if not flight.transfer and state.flushed(flight.name, flight.began):
                    state.flights.detach(flight)

    def connect(self, query: Iterable[tuple[Channel, bool]], peers: Mapping[int, Channel]) -> None:
        """The query actors (each with whether it is draining) and the other shards, by index.

        Flights at channels that are not among them any more are asked again at once.
        """
        before = {*self.state.pool.channels, *self.state.peers.values()}
        self.state.pool.replace(query)
        self.state.peers = peers
        gone = before - {*self.state.pool.channels, *peers.values()}
        if gone:
            self._departures.forsake(gone)
        self.reachable()

    def reachable(self) -> None:
        """A channel came up."""
        self._departures.release()

    # Queries.

    def ask(self, item: QueryItem, reply: Reply) -> None:
        """Answers a query now or later, by exactly one call of ``reply`` (more only where the flag MORE says so)."""
        state = self.state
        now = state.clock()
        waiter = Waiter(item, reply, now)
        try:
            query = wire.parse_query(item.message)
        except MessageError as error:
            self.replies.formerr(waiter, error.message, now)
            return
        question = question_of(query, item.message)
        if query.flags & dns.OPCODE_MASK or query.qtype in TRANSFERS:
            self._transfer(waiter, question, now)
            return
        key = key_of(query, item, question)
        entry: Entry | None = None
        if state.settings.enabled and not item.flags & QueryFlag.APEX:
            entry = self._find(key, query.key)
            if entry is not None and now < entry.stale_until:
                if self._from_entry(waiter, item, entry, key=key, question=question, now=now):
                    return
            elif (failure := self._failure(key, query.key, now)) is not None:
                self.replies.remembered(waiter, question, failure, now)
                return
        self._fly(waiter, item, entry, key=key, question=question, now=now)

    def _find(self, key: bytes, name: bytes) -> Entry | None:
        state = self.state
        entry = state.store.get(key)
        if entry is not None and state.flushed(name, entry.began):
            state.store.forget(entry)
        return entry

    def _failure(self, key: bytes, name: bytes, now: float) -> Failure | None:
        state = self.state
        failure = state.failures.get(key, now)
        if failure is not None and state.flushed(name, failure.began):
            state.failures.forget(key)
            return None
        return failure

    def _from_entry(
        self, waiter: Waiter, item: QueryItem, entry: Entry, *, key: bytes, question: bytes, now: float
    ) -> bool:
        if now >= entry.fresh_until:
            if now < entry.retry_at:  # it was tried a moment ago, and failed
                self.replies.stale(waiter, entry, now)
                return True
            return False
        ending = (entry.fresh_until - now) * 10 <= entry.ttl
        if ending and item.flags & QueryFlag.PREFETCH and now >= entry.retry_at:
            return False
        entry.hits += 1
        self.replies.fresh(waiter, entry, now)
        if ending:
            self._prefetch(item, entry, key, question, now)
        return True

    def _fly(
        self, waiter: Waiter, item: QueryItem, entry: Entry | None, *, key: bytes, question: bytes, now: float
    ) -> None:
        state = self.state
        relay_to = self._departures.owner_elsewhere(item, question[:-4])
        if relay_to >= 0:
            key = for_relay(key, question, item.flags)
        elif item.flags & QueryFlag.LOOKUP_ONLY and not item.flags & QueryFlag.APEX:
            self.replies.not_held(waiter, question, now)
            return
        flight = state.flights.get(key)
        if flight is None:
            flight = Flight(key, question, item)
            flight.relay_to = relay_to
            self._lead(flight, waiter, entry, now)
            return
        usable = self._fallback(flight, entry, now)
        if usable is not None and flight.stale_at and now >= flight.stale_at:
            state.from_old(waiter, usable, now)
        elif flight.live >= state.settings.waiters_max or state.flights.waiters >= WAITERS_TOTAL_MAX:
            state.metrics.shed.inc()
            if usable is not None:
                state.from_old(waiter, usable, now)
            else:
                self.replies.servfail(waiter, question, dns.Ede.OTHER, BUSY, now)
        else:
            waiter.joined = True
            self._wait(flight, waiter, item, now)
            state.metrics.joined.inc()

    def _lead(self, flight: Flight, waiter: Waiter, entry: Entry | None, now: float) -> None:
        state = self.state
        state.flights.add(flight)
        self._fallback(flight, entry, now)
        self._wait(flight, waiter, flight.item, now)
        state.metrics.misses.inc()
        self._departures.launch(flight, now)

    def _fallback(self, flight: Flight, entry: Entry | None, now: float) -> Entry | None:
        """What is held beyond its TTL, if anything; from the first who asks on, the stale timer runs."""
        state = self.state
        if entry is not None and now < entry.stale_until:
            flight.entry = entry
            if not flight.stale_at:
                flight.stale_at = now + state.settings.stale_wait
                state.timers.add(flight.stale_at, flight)
        return state.usable(flight, now)

    def _wait(self, flight: Flight, waiter: Waiter, item: QueryItem, now: float) -> None:
        self.state.flights.join(flight, waiter)
        left_ms = max(item.deadline_ms - MARGIN_MS, item.deadline_ms // 2)
        self.state.timers.add(now + left_ms / 1000, waiter)

    def _transfer(self, waiter: Waiter, question: bytes, now: float) -> None:
        """A transfer, NOTIFY or UPDATE passes through: nobody shares it, and it may have many answers."""
        item = waiter.item
        assert item is not None
        flight = Flight(b"\x00transfer%d" % self.state.flights.new_number(), question, item)
        flight.transfer = True
        self._lead(flight, waiter, None, now)

    def _prefetch(self, item: QueryItem, entry: Entry, key: bytes, question: bytes, now: float) -> None:
        """Popular and in the last tenth of its time: fetched anew while it still serves."""
        state = self.state
        wanted = state.settings.prefetch_hits
        if not wanted or entry.hits < wanted or now < entry.retry_at or state.flights.get(key) is not None:
            return
        if item.flags & QueryFlag.LOOKUP_ONLY or self._departures.owner_elsewhere(item, question[:-4]) >= 0:
            return
        channel = state.pool.pick(now)
        if channel is None or channel.in_flight * 2 >= state.settings.in_flight_max:
            return  # a luxury, never at the cost of those who wait
        flight = Flight(key, question, item)
        flight.prefetch = True
        flight.entry = entry
        state.flights.add(flight)
        state.metrics.prefetches.inc()
        self._departures.send(flight, channel, now)

    # Time.

    def next_wake(self) -> float | None:
        """When ``tick`` has something to do; ``None``: not before the next query."""
        return self.state.timers.next()

    def tick(self) -> None:
        """Does what is due: waiters' deadlines, stale answers, flights that took too long."""
        now = self.state.clock()
        for thing in self.state.timers.take(now):
            if isinstance(thing, Waiter):
                if thing.item is not None and thing.flight is not None and not thing.flight.streaming:
                    self._waited(thing, thing.flight, now)
            elif not thing.over:
                self._flown(thing, now)

    def _waited(self, waiter: Waiter, flight: Flight, now: float) -> None:
        state = self.state
        usable = state.usable(flight, now)
        if usable is not None:
            state.from_old(waiter, usable, now)
        elif flight.state == State.WAITING:
            self.replies.servfail(waiter, flight.question, dns.Ede.NOT_READY, NOT_READY, now)
        else:
            self.replies.servfail(waiter, flight.question, dns.Ede.OTHER, LATE, now)
        state.flights.answered(waiter)
        self._drop_if_unwanted(flight)

    def _flown(self, flight: Flight, now: float) -> None:
        if flight.deadline_at and now >= flight.deadline_at:
            self._departures.overdue(flight, now)
        elif flight.stale_at and now >= flight.stale_at:
            usable = self.state.usable(flight, now)
            if usable is not None:
                self.state.give_old(flight, usable, now)
                self._drop_if_unwanted(flight)

    def _drop_if_unwanted(self, flight: Flight) -> None:
        if not flight.live and flight.state == State.WAITING:
            self._arrivals.end(flight, State.DROPPED, "dropped")

    def abandon(self) -> None:
        """Answers everybody who still waits; the shard is leaving."""
        now = self.state.clock()
        for flight in self.state.flights.all():
            self._arrivals.fail(flight, dns.Ede.NOT_READY, LEAVING, now)

    # What can be seen.

    def families(self) -> list[Family]:
        """All metrics as they stand now."""
        self.metrics.evictions.values[""] = self.state.store.evictions
        return self.metrics.all.families()

    def statistics(self) -> dict[str, float]:
        """What the controller and the status page want to know; ``in_flight`` are the queries that wait."""
        state, metrics = self.state, self.metrics
        store = state.store.statistics()
        return {
            "in_flight": float(state.flights.waiters),
            "flights": float(state.flights.started),
            "entries": float(store.entries),
            "bytes": float(store.size),
            "bytes_max": float(store.bytes_max),
            "evictions": float(store.evictions),
            "hits": float(metrics.hits.total),
            "misses": float(metrics.misses.total),
            "joined": float(metrics.joined.total),
            "stale": float(metrics.stale.total),
            "failures": float(metrics.failures.total),
            "shed": float(metrics.shed.total),
            "version": float(state.version),
        }

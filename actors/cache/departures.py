"""The way up: to whom a flight is sent, with what deadline and budget, and what happens if that one is lost."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Final

from raydns.schemas import dns, names
from raydns.schemas.batch import AnswerItem, QueryFlag, QueryItem

from .arrivals import Arrivals
from .flights import Channel, Flight, State
from .replies import LATE
from .state import ShardState

# The query actor tells its own deadline; only if even that does not come is the actor itself silent.
GRACE_S: Final = 0.25
ATTEMPTS_MAX: Final = 2  # a lost stream is asked about once more, elsewhere
BUSY: Final = "busy"
NOT_READY: Final = "no query actor can be reached"
LOST: Final = "the query actor was lost"


class Departures:
    """Starts flights, and starts them again."""

    def __init__(self, state: ShardState, arrivals: Arrivals) -> None:
        self._state = state
        self._arrivals = arrivals

    def owner_elsewhere(self, item: QueryItem, name: bytes) -> int:
        """The shard to relay to; -1: answered here, since we own it, it was relayed already, or nobody else can."""
        state = self._state
        ring = state.ring
        if item.flags & QueryFlag.RELAYED or not ring.bounds:
            return -1
        # An ingress and we may have different tables, but hash alike: the seed is the cluster's.
        first, second = ring.owners(item.ring_hash or names.ring_hash(name, ring.seed))
        if state.index in {first, second}:
            return -1
        for owner in (first, second):
            peer = state.peers.get(owner)
            if peer is not None and peer.connected:
                return owner
        return -1

    def launch(self, flight: Flight, now: float) -> None:
        """Sends a flight up; with everybody full it fails at once, with nobody there it waits."""
        state = self._state
        channel: Channel | None = None
        if flight.relay_to >= 0:
            channel = state.peers.get(flight.relay_to)
            if channel is None or not channel.connected:
                flight.relay_to, channel = -1, None  # the owner was lost meanwhile: answered here after all
        if channel is None:
            channel = state.pool.pick(now, flight.channel)
        if channel is not None:
            self.send(flight, channel, now)
        elif state.pool.reachable:
            state.metrics.shed.inc()
            self._arrivals.fail(flight, dns.Ede.OTHER, BUSY, now)
        else:
            self._hold(flight, now)

    def send(self, flight: Flight, channel: Channel, now: float) -> None:
        """Sends a flight on this channel."""
        state = self._state
        if not flight.deadline_at:
            self.set_deadline(flight, now)
        if not flight.attempts:
            flight.began = state.version
        flight.attempts += 1
        flight.channel = channel
        state.flights.start(flight)
        flight.ticket = channel.send(self._upward(flight, now), partial(self._answered, flight, flight.attempts))

    def release(self) -> None:
        """A query actor can be reached again: what waited for one starts."""
        if not self._state.pool.reachable:
            return
        now = self._state.clock()
        for flight in self._state.flights.held():
            self.launch(flight, now)

    def forsake(self, gone: Collection[Channel]) -> None:
        """These channels are about to be closed: their flights are asked again elsewhere, at once."""
        now = self._state.clock()
        for flight in self._state.flights.all():
            channel = flight.channel
            if flight.state == State.STARTED and channel is not None and channel in gone:
                channel.drop(flight.ticket)
                self._lost(flight, now)

    def overdue(self, flight: Flight, now: float) -> None:
        """The flight's own deadline has passed."""
        channel = flight.channel
        waiting = flight.state == State.WAITING
        if channel is not None and not waiting:
            channel.drop(flight.ticket)
            if flight.relay_to < 0:
                self._state.pool.timed_out(channel, now)
        if waiting:
            self._arrivals.fail(flight, dns.Ede.NOT_READY, NOT_READY, now)
        else:
            self._arrivals.fail(flight, dns.Ede.OTHER, LATE, now)

    def set_deadline(self, flight: Flight, now: float) -> None:
        """The flight's own deadline, from now on."""
        flight.deadline_at = now + self._state.settings.flight + GRACE_S
        self._state.timers.add(flight.deadline_at, flight)

    def _answered(self, flight: Flight, attempt: int, answer: AnswerItem | None) -> None:
        if flight.over or flight.attempts != attempt or flight.channel is None:
            return
        now = self._state.clock()
        if answer is None:
            self._lost(flight, now)
            return
        if flight.relay_to < 0:
            self._state.pool.answered(flight.channel)
        if not flight.transfer:
            self._arrivals.land(flight, answer, now, self.launch)
        elif self._arrivals.pass_on(flight, answer, now):
            flight.streaming = True
            self.set_deadline(flight, now)

    def _lost(self, flight: Flight, now: float) -> None:
        """The stream broke: asked once more at another query actor if there is time."""
        if flight.attempts >= ATTEMPTS_MAX or flight.transfer or now >= flight.deadline_at - GRACE_S:
            self._arrivals.fail(flight, dns.Ede.NETWORK_ERROR, LOST, now)
            return
        flight.relay_to = -1
        self.launch(flight, now)

    def _hold(self, flight: Flight, now: float) -> None:
        """No query actor at the moment; Ray brings one back within a second."""
        if not flight.deadline_at:
            self.set_deadline(flight, now)
        oldest = self._state.flights.hold(flight)
        if oldest is not None and not oldest.over:
            self._state.metrics.shed.inc()
            self._arrivals.fail(oldest, dns.Ede.NOT_READY, NOT_READY, now)

    def _upward(self, flight: Flight, now: float) -> QueryItem:
        state, item = self._state, flight.item
        settings = state.settings
        flags, trace_flags, span_id = item.flags, item.trace_flags, item.span_id
        if flight.relay_to >= 0:
            flags |= QueryFlag.RELAYED
            state.metrics.relayed.inc()
        if flight.prefetch:
            flags, trace_flags = flags | QueryFlag.PREFETCH, 0
        elif trace_flags & 1 and (leader := flight.leader()) is not None:
            span_id = leader.span_id = leader.span_id or state.replies.new_span_id(item)
        left_ms = int((flight.deadline_at - GRACE_S - now) * 1000)
        return QueryItem(
            0,
            item.message,
            max(min(left_ms, item.deadline_ms) if flight.transfer else left_ms, 1),
            flags,
            item.transport,
            item.scope,
            item.source,
            item.source_port,
            item.destination,
            item.destination_port,
            item.class_id,
            item.view_id,
            item.rights,
            item.class_version,
            state.ring.version,
            state.version,
            item.ring_hash,
            item.trace_id,
            span_id,
            trace_flags,
            settings.budget_queries,
            settings.budget_octets,
            settings.budget_cnames,
            item.tsig_key,
            item.identity,
        )

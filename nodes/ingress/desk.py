"""The desk: one query's way through this machine, and nothing that knows sockets.

One path for all transports (design: rule 2). Its order:

    parse → class → access list → token bucket            admission.py
    → other classes, codes and types; special names        odd.py, special.py
    → apex table, zone images; LLM zones                   installed.py, nodes/images
    → rights → L1 → up                                     l1.py, misses.py, settling.py

``handle`` returns the reply, ``None`` for silence, or ``PENDING``: then the reply leaves by the door later.
Time comes in as two clocks; nothing here waits. What is installed is swapped whole by ``install``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from raydns.schemas import dns, names, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem, QueryFlag, Right, decode_answers, encode_queries
from raydns.schemas.dns import Ede, Rcode
from raydns.schemas.errors import MessageError
from raydns.schemas.wire import BadQuery, NotAQuery, Query, parse_query

from . import counters as tiers
from .admission import ALLOW, DROP
from .asked import Asked, Door
from .engine import MachineState, Refusal
from .installed import Installed
from .l1 import AnswerCache, Entry, Key, facet
from .ledger import Ledger
from .misses import Arrived, Flight, Flights, Shed
from .odd import is_odd
from .policy import ASK_ABOVE, RESOLVE
from .render import TCP_SIZE_MAX, Stored
from .settling import Settling
from .target import Target
from .traces import Recorder
from .waiting import Waiter, Wheel

PENDING: Final = b""
"""The reply comes later."""
PARSED_MAX: Final = 4096
PARSED_SIZE_MAX: Final = 320  # a longer packet is not worth remembering

_UDP: Final = int(dns.Transport.UDP)


class Desk:
    """Answers queries from one installed state."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall_us: Callable[[], int],
        wake: Callable[[int], None],
        recorder: Recorder | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.ledger = Ledger(clock, wall_us, recorder, rng or random.Random())
        self.counters = self.ledger.counters
        self.wheel = Wheel(clock())
        self._clock = clock
        self._settling = Settling(self.ledger)
        self.flights = self._settling.flights = Flights(self.wheel, self._settling, wake)
        self.l1: AnswerCache | None = None
        self.installed: Installed | None = None

    def install(self, state: MachineState) -> list[Refusal]:
        """Swaps in a new state; images that cannot be used are told, never raised."""
        previous = self.installed
        installed = Installed(state, self.counters, previous)
        if self.l1 is None:
            self.l1 = self._settling.l1 = AnswerCache(state.config.cache, installed.flushes)
        else:
            self.l1.configure(state.config.cache, installed.flushes)
        self.installed = self._settling.installed = installed
        self.ledger.traces.configure(state.config.telemetry.trace)
        self.flights.configure(installed.limits, state.ring, installed.versions, self._clock())
        if previous is None:
            self._add_gauges(self.l1)
        else:
            installed.retire(previous)
        return installed.refusals

    def handle(  # noqa: PLR0917 - called for every packet
        self, data: bytes, host: str, port: int, transport: int, door: Door, peer: Any = None, ancillary: Any = None
    ) -> bytes | None:
        """One message from a client; a state must be installed.

        Args:
            data: the message.
            host: its source address as the socket gives it.
            port: its source port.
            transport: ``dns.Transport``.
            door: where the reply leaves if it comes later.
            peer: whom the door sends it to; ``None`` where it has only one.
            ancillary: what the door needs beside it.

        Returns:
            The reply, ``None`` for silence, or ``PENDING``.
        """
        now = self._clock()
        installed = self.installed
        assert installed is not None
        problem: BadQuery | None = None
        query = installed.parsed.get(data[2:])
        if query is None:
            try:
                query = parse_query(data)
            except NotAQuery:
                # Silence: a response is never answered, and what has no header cannot be (RFC 1035 section 4.1.1).
                self.counters.malformed.inc("response" if len(data) >= dns.HEADER_SIZE else "short")
                return None
            except BadQuery as error:
                problem = error
            else:
                self._remember(data, query, installed)
        admission = installed.admission
        client = admission.client(host, now)
        if client.klass.action != ALLOW:
            return self._deny(data, query, client.klass.action, now, installed)
        if client.bucket is not None and not admission.admits(client, now):
            self.counters.limited.inc("enforce" if admission.enforced else "shadow")
            if admission.enforced:
                return None
        if query is None:
            assert problem is not None
            return self.ledger.count(installed.odd.malformed(data, problem), tiers.ERROR, now)
        asked = Asked(data, query, client, now, port, transport, door, peer, ancillary)
        traces = self.ledger.traces
        if traces.ratio or (query.edns is not None and query.edns.options):
            asked.trace = traces.decide(query, client)
        if is_odd(query):
            limit = installed.renderer.limit(query) if transport == _UDP else TCP_SIZE_MAX
            reply = installed.odd.answer(data, query, limit)
            return self.ledger.done(reply, tiers.ERROR if reply[3] & 15 else tiers.SPECIAL, asked)
        return self._answer(asked, installed)

    def _answer(self, asked: Asked, installed: Installed) -> bytes | None:
        """Special names, zones, rights, L1; what is left goes up."""
        query, client, ledger = asked.query, asked.client, self.ledger
        key, qtype, klass = query.key, query.qtype, client.klass
        rights = klass.rights
        renderer = installed.renderer
        ra = dns.RA if rights & ASK_ABOVE else 0
        limit = renderer.limit(query) if asked.transport == _UDP else TCP_SIZE_MAX
        options = ledger.traces.option(asked.trace) if asked.trace is not None else b""
        flags, fallback = 0, b""
        hit = installed.zone_answers.get((key, qtype, klass.view))
        if hit is None:
            special = installed.special.find(query) if rights & RESOLVE else None
            if special is not None:
                reply = renderer.reply(asked.data, query, special, special.tail, limit, ra, options)
                return ledger.done(reply, tiers.SPECIAL, asked)
            apex = installed.apex(query, client)
            if apex is False:
                return self._prohibit(asked, installed)
            if apex is True:
                flags = QueryFlag.APEX
            elif apex is not None:
                hit = apex
        if hit is not None:
            reply = renderer.reply(asked.data, query, hit[0], hit[0].tail, limit, ra, options)
            if not (hit[1] and query.flags & dns.RD and rights & ASK_ABOVE):
                return ledger.done(reply, tiers.ZONE, asked)
            flags, fallback = QueryFlag.APEX, reply  # the pipeline follows the chain; without it this is the answer
        l1_key: Key = (key, facet(qtype, query.qclass, do=query.do, cd=query.cd, view=klass.view))
        if flags:
            return self._go_up(asked, installed, Waiter(asked, l1_key, limit=limit, deadline=0.0), flags, fallback)
        if not rights & RESOLVE or not installed.may_resolve(key, qtype, rights):
            return self._prohibit(asked, installed)
        if rights & Right.CACHE:
            assert self.l1 is not None
            entry = self.l1.find(l1_key, asked.arrived)
            if entry is not None:
                if entry.hits >= installed.prefetch_hits:
                    self._prefetch(entry, asked, installed)
                tail = entry.fresh(asked.arrived)
                reply = renderer.reply(asked.data, query, entry.stored, tail, limit, ra, options)
                return ledger.done(reply, tiers.L1, asked)
        if not query.flags & dns.RD or not rights & ASK_ABOVE:
            flags = QueryFlag.LOOKUP_ONLY  # RD=0 never goes upstream
        return self._go_up(asked, installed, Waiter(asked, l1_key, limit=limit, deadline=0.0), flags, b"")

    def _go_up(self, asked: Asked, installed: Installed, waiter: Waiter, flags: int, fallback: bytes) -> bytes | None:
        query, now = asked.query, asked.arrived
        asked.data = asked.data[
            : query.question_end
        ]  # all that a reply needs: those who wait are bounded by octets too
        asked.wall_us = self.ledger.wall_us()
        ring_hash = names.ring_hash(query.key, installed.state.ring.seed)
        waiter.deadline = now + installed.timeout_s
        waiter.fallback = fallback
        entry = self._stale_entry(waiter, installed) if not flags & QueryFlag.APEX else None
        if entry is not None:
            if now < entry.retry_at or not self.flights.reachable(ring_hash):
                return self._settling.stale_reply(waiter, entry)
            waiter.stale_at = now + installed.stale_wait_s
        elif fallback and not self.flights.reachable(ring_hash):
            return self.ledger.done(fallback, tiers.ZONE, asked)
        edns = query.edns
        shed: Shed | None
        if edns is not None and edns.options and edns.options.get(dns.EdnsOption.LOOP) == installed.loop_token:
            shed = Shed.LOOP  # our own query has come back: it must not go up a second time (schemas/loops.py)
        else:
            shed = self.flights.join(Target(query, waiter.key, flags, ring_hash), waiter, now)
        if shed is None:
            return PENDING
        self.counters.shed.inc(shed.value)
        if fallback:
            return self.ledger.done(fallback, tiers.ZONE, asked)
        if shed is Shed.LOOP:
            reply = self._settling.error(waiter, Rcode.SERVFAIL, Ede.OTHER, "forwarding loop")
        elif entry is not None:
            return self._settling.stale_reply(waiter, entry)
        else:
            reply = self._settling.error(waiter, Rcode.SERVFAIL, Ede.OTHER, "overloaded")
        return self.ledger.done(reply, tiers.FAILED, asked)

    def _stale_entry(self, waiter: Waiter, installed: Installed) -> Entry | None:
        if not installed.stale or not waiter.asked.client.klass.rights & Right.CACHE:
            return None
        assert self.l1 is not None
        entry = self.l1.find_stale(waiter.key, waiter.asked.arrived)
        return entry if entry is not None and entry.stored.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN) else None

    def _deny(self, data: bytes, query: Query | None, action: int, now: float, installed: Installed) -> bytes | None:
        """The access list: silence, or REFUSED with EDE 18, also to what could not be parsed."""
        if action == DROP:
            self.counters.dropped.inc("access")
            return None
        if query is None:
            reply = installed.renderer.malformed(data, Rcode.REFUSED)
        else:
            reply = installed.renderer.error(data, query, Rcode.REFUSED, ede=Ede.PROHIBITED)
        return self.ledger.count(reply, tiers.REFUSED, now)

    def _prohibit(self, asked: Asked, installed: Installed) -> bytes:
        options = self.ledger.traces.option(asked.trace)
        ra = installed.ra(asked.client)
        reply = installed.renderer.error(
            asked.data, asked.query, Rcode.REFUSED, ra=ra, ede=Ede.PROHIBITED, options=options
        )
        return self.ledger.done(reply, tiers.REFUSED, asked)

    def _prefetch(self, entry: Entry, asked: Asked, installed: Installed) -> None:
        """Asks for a popular answer in the last tenth of its life, once."""
        query, now = asked.query, asked.arrived
        if entry.prefetching or now < entry.born + entry.fresh_s * 0.9 or not query.flags & dns.RD:
            return
        entry.prefetching = True
        self.counters.prefetches.inc()
        target = Target(query, entry.key, 0, names.ring_hash(query.key, installed.state.ring.seed))
        self.flights.prefetch(target, now)

    @staticmethod
    def _remember(data: bytes, query: Query, installed: Installed) -> None:
        if len(data) > PARSED_SIZE_MAX:
            return
        if len(installed.parsed) >= PARSED_MAX:
            installed.parsed.clear()
        installed.parsed[data[2:]] = query

    # Upwards and back

    def take(self, shard: int) -> bytes | None:
        """The next batch of misses for a shard."""
        items = self.flights.take(shard, self._clock())
        if not items:
            return None
        self.counters.batches.inc("up")
        return encode_queries(items)

    def deliver(self, data: bytes) -> None:
        """Answers from a shard; raises ``BatchError`` for what is no batch of answers."""
        self.counters.batches.inc("down")
        now = self._clock()
        for item in decode_answers(data):
            flight = self.flights.flight_by_slot(item.slot)
            if flight is None:
                self.counters.answers_bad.inc("unwanted")
            elif item.flags & AnswerFlag.RETRY:
                if not self.flights.retry(flight, now):
                    failure = Arrived(item, None, "the tables above are older than ours")
                    self.flights.finish(flight, failure, shared=True, now=now)
            elif item.flags & AnswerFlag.MORE:
                self.counters.answers_bad.inc("more")  # nobody here asks for streams; the last part answers
            else:
                self._arrived(flight, self._open(flight, item), now)

    def expire(self) -> None:
        """Deals with deadlines; called every ``waiting.TICK_S`` or so."""
        self.flights.expire(self._clock())

    def _open(self, flight: Flight, item: AnswerItem) -> Arrived:
        target = flight.target
        if not target.matches(item.message):
            self.counters.answers_bad.inc("question")
            return Arrived(item, None, "an answer to another question")
        ede = wire.ede_option(item.ede, item.ede_text) if item.ede >= 0 else b""
        secure = bool(item.flags & AnswerFlag.SECURE)
        try:
            stored = Stored.of(item.message, item.layout, target.query.question_end, secure=secure, ede=ede)
        except MessageError as error:
            self.counters.answers_bad.inc("message")
            return Arrived(item, None, error.message)
        return Arrived(item, stored)

    def _arrived(self, flight: Flight, arrived: Arrived, now: float) -> None:
        item, stored = arrived.item, arrived.stored
        shared = stored is None or bool(item.flags & AnswerFlag.SHAREABLE)
        if stored is not None:
            # A failure of our own making is as true for the others; to try it for each of them would feed the fire.
            shared = shared or bool(item.flags & AnswerFlag.LOCAL_FAILURE and stored.rcode == Rcode.SERVFAIL)
            assert self.l1 is not None
            self.l1.store(flight.target.l1_key, stored, item, now)
        self.flights.finish(flight, arrived, shared=shared, now=now)

    def _add_gauges(self, l1: AnswerCache) -> None:
        count, gauge, flights = self.counters.counted, self.counters.gauge, self.flights
        gauge("raydns_ingress_waiters", "Queries that wait for an answer from above.", lambda: flights.waiting)
        gauge("raydns_ingress_flights", "Questions on their way up.", lambda: flights.in_flight)
        gauge("raydns_ingress_queued", "Questions that no shard has taken yet.", lambda: flights.queued)
        gauge("raydns_ingress_l1_bytes", "Octets of cached answers.", lambda: l1.bytes)
        gauge("raydns_ingress_l1_entries", "Cached answers.", lambda: len(l1))
        gauge("raydns_ingress_clients", "Addresses remembered.", self._clients)
        count("raydns_ingress_l1_hits_total", "Look-ups in L1 that found a fresh answer.", lambda: l1.hits)
        count("raydns_ingress_l1_misses_total", "Look-ups in L1 that did not.", lambda: l1.misses)
        count("raydns_ingress_l1_evictions_total", "Answers evicted from L1.", lambda: l1.evictions)
        count("raydns_ingress_sampled_total", "Queries with a trace.", lambda: self.ledger.traces.sampled)

    def _clients(self) -> float:
        return float(self.installed.admission.clients) if self.installed is not None else 0.0

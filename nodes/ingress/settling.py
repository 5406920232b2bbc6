"""Settling: what those who waited are told, be it an answer, an old one, or that there is none."""

from __future__ import annotations

from raydns.schemas import names, wire
from raydns.schemas.batch import AnswerFlag, Outcome, Right
from raydns.schemas.dns import Ede, Rcode

from . import counters as tiers
from .installed import Installed
from .l1 import AnswerCache, Entry
from .ledger import Ledger
from .misses import Arrived, Flights
from .waiting import Waiter


class Settling:
    """Answers waiters from the present state (``Settle`` of ``misses``)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.flights: Flights
        self.l1: AnswerCache
        self.installed: Installed

    def settle(self, waiter: Waiter, answer: Arrived | None) -> None:
        """Answers one who waited; ``None``: nothing came in time."""
        rooms = answer.item.rooms if answer is not None else b""
        stored = answer.stored if answer is not None else None
        if answer is None or stored is None or _failed(answer):
            entry = self._stale_entry(waiter)
            if entry is not None:
                self._send(waiter, self.stale_reply(waiter, entry, rooms))
                return
            if waiter.fallback:
                self._leave(waiter, waiter.fallback, tiers.ZONE, rooms)
                return
        if answer is None or stored is None:
            self._leave(waiter, self._failure(waiter, answer), tiers.FAILED, rooms)
            return
        asked = waiter.asked
        options = self._ledger.traces.option(asked.trace)
        ra = self.installed.ra(asked.client)
        renderer = self.installed.renderer
        reply = renderer.reply(asked.data, asked.query, stored, answer.tail, waiter.limit, ra, options)
        self._leave(waiter, reply, tiers.UP, rooms)

    def grow_stale(self, waiter: Waiter) -> bool:
        """Gives a stale answer to one who waited ``cache.stale_wait_ms`` (RFC 8767 section 5)."""
        entry = self._stale_entry(waiter)
        if entry is None:
            return False
        self._send(waiter, self.stale_reply(waiter, entry))
        return True

    def stale_reply(self, waiter: Waiter, entry: Entry, rooms: bytes = b"") -> bytes:
        """The reply from an entry beyond its time, counted; from now on it is given at once for a while."""
        now = self._ledger.clock()
        asked, stored, installed = waiter.asked, entry.stored, self.installed
        if now >= entry.born + entry.fresh_s:
            if now >= entry.retry_at:
                entry.retry_at = now + installed.config.cache.stale_retry_s
            tail = stored.capped(installed.config.cache.stale_ttl_s)
            code = Ede.STALE_NXDOMAIN if stored.rcode == Rcode.NXDOMAIN else Ede.STALE_ANSWER
            options = wire.ede_option(code)
        else:  # it was replaced meanwhile
            tail, options = entry.fresh(now), b""
        options += self._ledger.traces.option(asked.trace)
        ra = installed.ra(asked.client)
        reply = installed.renderer.reply(asked.data, asked.query, stored, tail, waiter.limit, ra, options)
        return self._ledger.done(reply, tiers.STALE, asked, rooms)

    def error(self, waiter: Waiter, rcode: int, ede: int, text: str) -> bytes:
        """A reply without records for one who waits or wanted to."""
        asked = waiter.asked
        options = self._ledger.traces.option(asked.trace)
        ra = self.installed.ra(asked.client)
        renderer = self.installed.renderer
        return renderer.error(asked.data, asked.query, rcode, ra=ra, ede=ede, text=text, options=options)

    def _stale_entry(self, waiter: Waiter) -> Entry | None:
        asked = waiter.asked
        if not self.installed.stale or waiter.fallback or not asked.client.klass.rights & Right.CACHE:
            return None
        entry = self.l1.find_stale(waiter.key, self._ledger.clock())
        return entry if entry is not None and entry.stored.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN) else None

    def _failure(self, waiter: Waiter, answer: Arrived | None) -> bytes:
        if answer is not None:
            code = Ede.NOT_READY if answer.item.flags & AnswerFlag.RETRY else Ede.INVALID_DATA
            return self.error(waiter, Rcode.SERVFAIL, code, answer.problem)
        ring_hash = names.ring_hash(waiter.key[0], self.installed.state.ring.seed)
        if self.flights.reachable(ring_hash):
            return self.error(waiter, Rcode.SERVFAIL, Ede.NO_REACHABLE_AUTHORITY, "no answer in time")
        return self.error(waiter, Rcode.SERVFAIL, Ede.NETWORK_ERROR, "no cache shard can be reached")

    def _leave(self, waiter: Waiter, reply: bytes, tier: str, rooms: bytes) -> None:
        self._send(waiter, reply)
        outcome = Outcome.JOINED if waiter.joined and tier == tiers.UP else None
        self._ledger.done(reply, tier, waiter.asked, rooms, outcome)

    @staticmethod
    def _send(waiter: Waiter, reply: bytes) -> None:
        asked = waiter.asked
        asked.door.send(reply, asked.peer, asked.ancillary)


def _failed(answer: Arrived) -> bool:
    """Whether an old answer is better than this one; a bogus one is never hidden (design: limits)."""
    stored = answer.stored
    return stored is not None and stored.rcode == Rcode.SERVFAIL and answer.item.ede != Ede.DNSSEC_BOGUS

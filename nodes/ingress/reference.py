"""``ReferenceEngine``: the engine in Python, the one that a native engine must agree with.

It owns sockets and timers and lets the desk (``desk.py``) decide. Everything runs in one event loop; nothing is called
per packet across the seam of ``engine.py``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from raydns.nodes.metrics import Family
from raydns.schemas import dns

from .admission import Client
from .desk import Desk
from .engine import MachineState, RecentQuery, Refusal
from .misses import NO_SHARD
from .tcp import Connection, TcpDoors
from .traces import Recorder
from .udp import UdpDoor
from .waiting import TICK_S

SWEEP_S: Final = 0.5
FAULT_KINDS_MAX: Final = 64

log = logging.getLogger(__name__)


class ReferenceEngine:
    """``Engine`` on an asyncio (or uvloop) event loop.

    Args:
        loop: where everything runs.
        recorder: where spans go; ``None``: nowhere.
        clock: monotonic seconds.
        wall_us: Unix time in microseconds.
        rng: source of sampling.
    """

    name = "python"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        recorder: Recorder | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        rng: random.Random | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._wake: Callable[[int], None] | None = None
        self.desk = Desk(clock=clock, wall_us=wall_us, wake=self._wake_soon, recorder=recorder, rng=rng)
        self._udp: list[UdpDoor] = []
        counters = self.desk.counters
        self._tcp = TcpDoors(loop, self._handle, counters, clock=clock, client=self._client, gone=self._connection_gone)
        self._reading = True  # once a state is installed
        self._timer: asyncio.TimerHandle | None = None
        self._swept_at = clock()
        self._faults: dict[str, int] = {}
        counters.gauge("raydns_ingress_tcp_connections", "TCP connections open now.", lambda: float(len(self._tcp)))

    @property
    def ready(self) -> bool:
        """Whether a state is installed."""
        return self.desk.installed is not None

    @property
    def sockets(self) -> list[tuple[str, socket.socket]]:
        """The bound sockets with their kind, for a hand-over."""
        return [("udp", door.socket) for door in self._udp] + [("tcp", one) for one in self._tcp.listeners]

    def adopt(self, sockets: Sequence[socket.socket]) -> None:
        """Takes bound sockets (UDP, and listening TCP) and starts reading as soon as a state is installed."""
        for one in sockets:
            if one.type == socket.SOCK_DGRAM:
                door = UdpDoor(one, self._loop, self._handle, self.desk.counters)
                self._udp.append(door)
            else:
                self._tcp.adopt(one)
        self._start()

    def install(self, state: MachineState) -> list[Refusal]:
        """Swaps in a new state between two packets. Never raises for a bad image."""
        refusals = self.desk.install(state)
        self._tcp.config = state.config.server.tcp
        self._tcp.exempt_loopback = state.config.access.rate.exempt_loopback
        self._start()
        return refusals

    def set_wakeup(self, wake: Callable[[int], None]) -> None:
        """``wake(shard)`` is called when the queue of misses for a shard goes from empty to not empty."""
        self._wake = wake

    def take_batch(self, shard: int) -> bytes | None:
        """The next encoded batch of misses for a shard, or ``None``."""
        return self.desk.take(shard)

    def deliver(self, data: bytes) -> None:
        """An encoded batch of answers from a shard; raises ``BatchError`` where it is malformed."""
        self.desk.deliver(data)

    def set_shard(self, shard: int, *, reachable: bool) -> None:
        """Whether a shard's stream is up."""
        self.desk.flights.set_shard(shard, reachable=reachable, now=self._clock())

    def stop_reading(self) -> None:
        """First half of a take-over: sockets are left to the next ingress; what was read is still answered."""
        self._reading = False
        for door in self._udp:
            door.stop()
        self._tcp.stop()

    async def drain(self, timeout_s: float) -> bool:
        """Stops reading, answers what was read, lets TCP connections finish; ``True`` if nothing was left."""
        self.stop_reading()
        self._tcp.draining = True
        deadline = self._clock() + timeout_s
        while self._unfinished() and self._clock() < deadline:  # noqa: ASYNC110 - many things end, none tells
            await asyncio.sleep(TICK_S / 2)
        return not self._unfinished()

    def metrics(self) -> list[Family]:
        """Counters and histograms since start."""
        return self.desk.counters.families()

    def recent(self, limit: int, trace_id: str = "") -> list[RecentQuery]:
        """The newest remembered queries, or those of one trace."""
        return self.desk.ledger.traces.recent(limit, trace_id)

    def close(self) -> None:
        """Drops everything at once."""
        self.stop_reading()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.desk.flights.clear()
        for door in self._udp:
            door.close()
        self._udp.clear()
        self._tcp.close()

    def statistics(self) -> dict[str, float]:
        """What a status page wants to know at a glance."""
        flights, l1 = self.desk.flights, self.desk.l1
        return {
            "in_flight": float(flights.waiting),
            "flights": float(flights.in_flight),
            "connections": float(len(self._tcp)),
            "queries": float(self.desk.counters.queries.total),
            "misses": float(self.desk.counters.tiers.values.get("up", 0)),
            "l1_entries": float(len(l1)) if l1 is not None else 0.0,
            "l1_bytes": float(l1.bytes) if l1 is not None else 0.0,
        }

    def _start(self) -> None:
        if not self._reading or not self.ready:
            return
        for door in self._udp:
            door.start()
        self._tcp.start()
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        """The only timer: deadlines, and every half a second the connections."""
        self._timer = self._loop.call_later(TICK_S, self._tick)
        try:
            if self.desk.wheel:
                self.desk.expire()
            now = self._clock()
            if now - self._swept_at >= SWEEP_S:
                self._swept_at = now
                self._tcp.sweep()
        except Exception as error:
            self._fault(error)

    def _handle(  # noqa: PLR0917 - called for every packet
        self, data: bytes, host: str, port: int, transport: int, door: Any, peer: Any = None, ancillary: Any = None
    ) -> bytes | None:
        """The desk behind the last guard: whatever a packet does, the next one is served."""
        try:
            return self.desk.handle(data, host, port, transport, door, peer, ancillary)
        except Exception as error:
            self._fault(error)
        if len(data) < dns.HEADER_SIZE or data[2] & 0x80:
            return None
        flags = dns.QR | (int.from_bytes(data[2:4], "big") & (dns.OPCODE_MASK | dns.RD)) | dns.Rcode.SERVFAIL
        return data[:2] + flags.to_bytes(2, "big") + bytes(8)

    def _fault(self, error: Exception) -> None:
        """Counts by kind and tells the log once a kind: never a line a packet."""
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        place = f"{at.tb_frame.f_code.co_name}:{at.tb_lineno}" if at is not None else "?"
        kind = f"{type(error).__name__} {place}"
        if kind not in self._faults:
            if len(self._faults) >= FAULT_KINDS_MAX:
                kind = "other"
            else:
                log.error("unexpected exception", exc_info=error, extra={"kind": kind})
        self._faults[kind] = self._faults.get(kind, 0) + 1
        self.desk.counters.faults.inc(kind)

    def _client(self, host: str) -> Client:
        installed = self.desk.installed
        assert installed is not None  # accepting starts with the first state
        return installed.admission.client(host, self._clock())

    def _connection_gone(self, connection: Connection) -> None:
        self.desk.flights.forget(connection)

    def _wake_soon(self, shard: int) -> None:
        # Not at once: what else came in with this wake-up of the loop travels in the same batch.
        if self._wake is not None and shard != NO_SHARD:
            self._loop.call_soon(self._wake, shard)

    def _unfinished(self) -> bool:
        return bool(self.desk.flights.waiting or len(self._tcp) or any(door.unsent for door in self._udp))

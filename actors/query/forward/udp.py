"""Connected UDP sockets to one upstream: random ports, random IDs, replies matched to who waits (RFC 5452).

A connected socket lets the kernel drop what comes from elsewhere and tells at once of a port where nobody listens.
Each query takes a random socket of the pool; a socket lives for a bounded number of uses and seconds, so that its
port stays a guess. An ID is used once in a socket's life: whatever comes late finds nobody.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from raydns.schemas import dns

USES_MAX: Final = 256
AGE_MAX_S: Final = 30.0
STRANGERS_MAX: Final = 16  # replies that nobody waits for, after which a socket is left for a new port
DATAGRAM_SIZE_MAX: Final = 4096  # above what our OPT announces: anything longer is broken anyway
READS_A_WAKEUP: Final = 64
_BIND_TRIES: Final = 16


class Address(NamedTuple):
    """Where an upstream listens."""

    host: str  # IPv4 or IPv6, text
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Waiter(Protocol):
    """Who waits for a reply. Its methods are called from the event loop and never raise."""

    asked: bytes
    """The question section as sent."""

    def datagram(self, data: bytes) -> None:
        """A message with the right ID."""

    def wrong_id(self) -> None:
        """A reply to the right question with an ID that is not ours."""

    def lost(self, error: OSError) -> None:
        """The transport failed."""


class PortRange(NamedTuple):
    """Local ports that sockets may have, and how many sockets are kept."""

    port_min: int
    port_max: int
    sockets: int


class _Socket:
    __slots__ = ("fd", "opened_at", "pending", "retired", "sock", "strangers", "used")

    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.pending: dict[int, Waiter] = {}
        self.used: set[int] = set()  # every ID of its life; at most USES_MAX
        self.opened_at = now
        self.strangers = 0
        self.retired = False


Ticket = tuple[_Socket, int]
"""What ``cancel`` needs."""


class UdpPool:
    """The sockets to one upstream."""

    def __init__(
        self,
        address: Address,
        ports: PortRange,
        loop: asyncio.AbstractEventLoop,
        random_below: Callable[[int], int],
    ) -> None:
        self.address = address
        self.strangers = 0  # replies with an ID that was never ours
        self.late = 0  # replies whose waiter had gone
        self._ports = ports
        self._loop = loop
        self._random_below = random_below
        self._slots: list[_Socket | None] = [None] * ports.sockets
        self._retired: set[_Socket] = set()
        self._family = socket.AF_INET6 if ":" in address.host else socket.AF_INET

    def start(self, body: bytes, waiter: Waiter, now: float) -> Ticket:
        """Sends ``body`` with a fresh ID in front of it; raises ``OSError`` where the kernel refuses."""
        holder = self._pick(now)
        ident = self._random_below(65536)
        while ident in holder.used:
            ident = self._random_below(65536)
        holder.used.add(ident)
        holder.pending[ident] = waiter
        try:
            holder.sock.send(ident.to_bytes(2, "big") + body)
        except BlockingIOError:
            pass  # the send buffer is full: as good as lost on the way, the retry covers it
        except OSError:
            del holder.pending[ident]
            self._retire(holder)
            raise
        return holder, ident

    def cancel(self, ticket: Ticket) -> None:
        """Forgets a waiter; its reply, should it come, is dropped."""
        holder, ident = ticket
        holder.pending.pop(ident, None)
        if holder.retired and not holder.pending:
            self._close(holder)

    def close(self) -> None:
        """Closes every socket; whoever still waits hears that it is lost."""
        for holder in [*self._retired, *(s for s in self._slots if s is not None)]:
            pending = list(holder.pending.values())
            holder.pending.clear()
            holder.retired = True
            self._close(holder)
            for waiter in pending:
                waiter.lost(OSError("the socket was closed"))
        self._slots = [None] * len(self._slots)

    @property
    def open_sockets(self) -> int:
        """Sockets open now, those that only wait for their last replies included."""
        return len(self._retired) + sum(s is not None for s in self._slots)

    def _pick(self, now: float) -> _Socket:
        at = self._random_below(len(self._slots))
        holder = self._slots[at]
        if holder is not None:
            if len(holder.used) < USES_MAX and now - holder.opened_at < AGE_MAX_S:
                return holder
            self._retire(holder)
        holder = _Socket(self._open(), now)
        self._loop.add_reader(holder.fd, self._readable, holder)
        self._slots[at] = holder
        return holder

    def _open(self) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        wildcard = "::" if self._family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - a client's source
        low, high = self._ports.port_min, self._ports.port_max
        try:
            for _ in range(_BIND_TRIES):
                try:
                    sock.bind((wildcard, low + self._random_below(high - low + 1)))
                    break
                except OSError:
                    continue  # taken: the kernel's own choice, made at connect, is random as well
            sock.connect((self.address.host, self.address.port))
        except OSError:
            sock.close()
            raise
        return sock

    def _readable(self, holder: _Socket) -> None:
        receive = holder.sock.recv
        for _ in range(READS_A_WAKEUP):
            try:
                data = receive(DATAGRAM_SIZE_MAX)
            except BlockingIOError:
                return
            except OSError as error:  # ICMP: nobody listens there, or no way leads there
                self._fail(holder, error)
                return
            self._deliver(holder, data)
            if holder.fd < 0 or not holder.pending:
                return  # nothing more is awaited here: another look would cost a call for nothing

    def _deliver(self, holder: _Socket, data: bytes) -> None:
        if len(data) < dns.HEADER_SIZE:
            holder.strangers += 1
            self.strangers += 1
            return
        ident = (data[0] << 8) | data[1]
        waiter = holder.pending.pop(ident, None)
        if waiter is not None:
            waiter.datagram(data)
            if holder.retired and not holder.pending:
                self._close(holder)
        elif ident in holder.used:
            self.late += 1
        else:
            self._stranger(holder, data)

    def _stranger(self, holder: _Socket, data: bytes) -> None:
        """A reply with an ID of nobody's: told to whoever waits for its question, since somebody may be guessing."""
        self.strangers += 1
        holder.strangers += 1
        question = data[dns.HEADER_SIZE : dns.HEADER_SIZE + 260].lower()
        for waiter in holder.pending.values():
            if question.startswith(waiter.asked.lower()):
                waiter.wrong_id()
                break
        if holder.strangers >= STRANGERS_MAX and not holder.retired:
            self._retire(holder)

    def _fail(self, holder: _Socket, error: OSError) -> None:
        pending = list(holder.pending.values())
        holder.pending.clear()
        self._retire(holder)
        for waiter in pending:
            waiter.lost(error)

    def _retire(self, holder: _Socket) -> None:
        if holder.retired:
            return
        holder.retired = True
        self._slots = [None if s is holder else s for s in self._slots]
        self._retired.add(holder)
        if not holder.pending:
            self._close(holder)

    def _close(self, holder: _Socket) -> None:
        self._retired.discard(holder)
        if holder.fd >= 0:
            self._loop.remove_reader(holder.fd)
            holder.sock.close()
            holder.fd = -1

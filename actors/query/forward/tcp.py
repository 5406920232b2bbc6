"""TCP connections to one upstream: reused, pipelined, answered in any order (RFC 7766)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from raydns.schemas import dns

from .udp import Address, Waiter

CONNECTIONS_MAX: Final = 4
IN_FLIGHT_MAX: Final = 64  # on one connection; above it another one is opened
IDLE_S: Final = 10.0  # RFC 7766 section 6.2.3: a client closes what it does not use
USES_MAX: Final = 4096
CONNECT_TIMEOUT_S: Final = 3.0


class TooManyExchanges(OSError):
    """Every connection that we allow ourselves is full; a failure of our own making."""


class _Connection(asyncio.Protocol):
    """One connection. Frames are two octets of length and a message (RFC 1035 section 4.2.2)."""

    def __init__(self, pool: TcpPool) -> None:
        self.pool = pool
        self.pending: dict[int, Waiter] = {}
        self.used: set[int] = set()
        self.answered = 0
        self._queue: list[bytes] = []  # until the connection stands; at most IN_FLIGHT_MAX
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._idle: asyncio.TimerHandle | None = None

    def send(self, ident: int, body: bytes, waiter: Waiter) -> None:
        """Queues or writes one query."""
        self.used.add(ident)
        self.pending[ident] = waiter
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        frame = (len(body) + 2).to_bytes(2, "big") + ident.to_bytes(2, "big") + body
        if self._transport is None:
            self._queue.append(frame)
        else:
            self._transport.write(frame)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends what waited for the connection, in one segment (RFC 7766 section 8)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"".join(self._queue))
        self._queue.clear()
        self.rest()

    def data_received(self, data: bytes) -> None:
        """Cuts frames and hands them on; an ID that was never ours ends the connection."""
        buffer = self._buffer
        buffer += data
        position = 0
        while len(buffer) - position >= 2:
            size = (buffer[position] << 8) | buffer[position + 1]
            if len(buffer) - position - 2 < size:
                break
            message = bytes(buffer[position + 2 : position + 2 + size])
            position += 2 + size
            if not self._message(message):
                self.fail(ConnectionError("the upstream sent what nobody asked for"))
                return
        del buffer[:position]
        self.rest()

    def _message(self, message: bytes) -> bool:
        if len(message) < dns.HEADER_SIZE:
            return False
        ident = (message[0] << 8) | message[1]
        waiter = self.pending.pop(ident, None)
        if waiter is None:
            return ident in self.used
        self.answered += 1
        waiter.datagram(message)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells whoever still waits."""
        self.fail(exc if isinstance(exc, OSError) else ConnectionResetError("the upstream closed the connection"))

    def fail(self, error: OSError) -> None:
        """Ends the connection; idempotent."""
        self.pool.forget(self)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._transport is not None:
            self._transport.abort()
        pending = list(self.pending.values())
        self.pending.clear()
        for waiter in pending:
            waiter.lost(error)

    def rest(self) -> None:
        """Starts the idle clock when nobody waits."""
        if not self.pending and self._idle is None and self._transport is not None:
            self._idle = self.pool.loop.call_later(IDLE_S, self.fail, ConnectionError("idle"))


TcpTicket = tuple[_Connection, int]


class TcpPool:
    """The connections to one upstream."""

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop, random_below: Callable[[int], int]) -> None:
        self.address = address
        self.loop = loop
        self.opened = 0  # connections ever started
        self._random_below = random_below
        self._connections: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, body: bytes, waiter: Waiter) -> TcpTicket:
        """Sends a query over the least busy connection; raises ``TooManyExchanges``."""
        connection = self._pick()
        ident = self._random_below(65536)
        while ident in connection.used:
            ident = self._random_below(65536)
        connection.send(ident, body, waiter)
        return connection, ident

    def cancel(self, ticket: TcpTicket) -> None:
        """Forgets a waiter; its reply, should it come, is dropped."""
        connection, ident = ticket
        connection.pending.pop(ident, None)
        connection.rest()

    def forget(self, connection: _Connection) -> None:
        """Takes no new query on this connection."""
        if connection in self._connections:
            self._connections.remove(connection)

    @property
    def open_connections(self) -> int:
        """Connections that stand or are being made."""
        return len(self._connections)

    def close(self) -> None:
        """Ends every connection; whoever still waits hears that it is lost."""
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.fail(ConnectionError("the connection was closed"))

    def _pick(self) -> _Connection:
        for connection in list(self._connections):
            if len(connection.used) >= USES_MAX:
                # It closes by itself when its last waiter is gone and its idle time is over.
                self.forget(connection)
                connection.rest()
        best = min(self._connections, key=lambda c: len(c.pending), default=None)
        if best is not None and len(best.pending) < IN_FLIGHT_MAX:
            return best
        if len(self._connections) >= CONNECTIONS_MAX:
            raise TooManyExchanges(f"{CONNECTIONS_MAX} connections of {IN_FLIGHT_MAX} queries each are in use")
        connection = _Connection(self)
        self._connections.append(connection)
        self.opened += 1
        task = self.loop.create_task(self._connect(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return connection

    async def _connect(self, connection: _Connection) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self.loop.create_connection(lambda: connection, self.address.host, self.address.port)
        except TimeoutError:
            connection.fail(TimeoutError("no connection in time"))
        except OSError as error:
            connection.fail(error)

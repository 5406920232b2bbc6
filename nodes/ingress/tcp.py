"""TCP (RFC 7766, RFC 9210): pipelined queries, answers out of order, and limits that keep others served.

A connection:

    reading ──64 unanswered──▶ paused ──answers leave──▶ reading
       │ ──more queries than a turn in the buffer──▶ the rest after the other connections' turn
       │ ──the client reads slowly──▶ paused until its buffer has drained; aborted when that takes too long
       │ ──end of file──▶ half closed: what was asked is answered, then closed
       └──idle──▶ closed (RFC 7766 section 6.2.3); a new one that finds no room closes the longest idle one
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any, Final, cast

from raydns.schemas import dns
from raydns.schemas.config.server import TcpConfig

from .admission import Client, pack_address
from .counters import Counters
from .udp import Handler, errno_label

ACCEPTS: Final = 32
"""Connections taken a wake-up."""
BUFFER_MAX: Final = 2 + dns.MESSAGE_SIZE_MAX
"""Above it reading pauses: one whole message always fits."""
WRITE_HIGH: Final = 256 * 1024
"""Octets of replies that a client may leave unread before we stop reading its queries."""
DRAIN_IDLE_S: Final = 0.5
"""While draining, a connection that has been quiet for so long is closed."""
_LENGTH: Final = struct.Struct("!H")
_TCP: Final = int(dns.Transport.TCP)


class Connection(asyncio.Protocol):
    """One TCP connection; it is the door of its queries."""

    def __init__(self, doors: TcpDoors, client: Client, peer: Any) -> None:
        self.client = client
        self.active_at = 0.0  # last whole query, or last answer
        self.in_flight = 0
        self._doors = doors
        self._peer = peer
        self._buffer = bytearray()
        self._position = 0
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._blocked_at = 0.0  # since when the client reads too slowly; 0: it does not
        self._scheduled = False
        self._ended = False  # the client has said all it will say
        self._destination: tuple[bytes, int] = (bytes(16), 0)

    @property
    def idle(self) -> bool:
        """Whether nothing is asked and nothing unsent."""
        return not self.in_flight and not self._scheduled and not self._blocked_at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is ours."""
        # A cast, since not every event loop's transports derive from asyncio's classes.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        name = transport.get_extra_info("sockname")
        if name:
            self._destination = (pack_address(name[0]), name[1])
        self.active_at = self._doors.clock()
        self._doors.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: nobody waits for its answers."""
        self._transport = None
        self._buffer.clear()
        self._doors.lost(self)

    def data_received(self, data: bytes) -> None:
        """Octets came in."""
        self._buffer += data
        if not self._scheduled:
            self._serve()

    def eof_received(self) -> bool:
        """The client is done asking; it still gets its answers (RFC 7766 section 6.2.4 lets it half-close)."""
        self._ended = True
        self._close_if_done()
        return self._transport is not None

    def pause_writing(self) -> None:
        """The client does not read its replies: no more queries from it until it does."""
        self._blocked_at = self._doors.clock()
        self._adjust()

    def resume_writing(self) -> None:
        """It reads again."""
        self._blocked_at = 0.0
        self._resume()

    def send(self, reply: bytes, peer: Any, ancillary: Any) -> None:
        """Sends one of the answers that were pending."""
        self.in_flight -= 1
        self._write(reply)
        self._resume()
        self._close_if_done()

    def destination(self, ancillary: Any) -> tuple[bytes, int]:
        """The address and port that the client connected to."""
        return self._destination

    def close(self) -> None:
        """Closes after what was written has gone."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    def overdue(self, now: float, idle_s: float) -> bool:
        """Whether it has been idle, or its client deaf, for too long."""
        if self._blocked_at:
            return now - self._blocked_at >= idle_s
        return self.idle and now - self.active_at >= idle_s

    def _serve(self) -> None:
        """Answers whole messages in the buffer: at most a turn, at most as many as may be unanswered."""
        config = self._doors.config
        buffer, position = self._buffer, self._position
        turn = config.turn
        while turn and self._may_ask(config):
            if len(buffer) - position < 2:
                break
            (size,) = _LENGTH.unpack_from(buffer, position)
            end = position + 2 + size
            if end > len(buffer):
                break
            message = bytes(memoryview(buffer)[position + 2 : end])
            position = end
            turn -= 1
            self._ask(message)
        if self._transport is None:
            return
        self._position = position
        self._compact()
        if not turn and self._has_whole() and self._may_ask(config):
            self._scheduled = True
            self._doors.loop.call_soon(self._next_turn)
        self._adjust()
        self._close_if_done()

    def _ask(self, message: bytes) -> None:
        doors = self._doors
        self.active_at = doors.clock()
        self.in_flight += 1  # before asking: a reply may come through ``send`` at any time
        host, port = self._peer[0], self._peer[1]
        reply = doors.handler(message, host, port, _TCP, self, None, None)
        doors.count()
        if reply is None:
            self.in_flight -= 1
            self.close()  # what got no answer is not worth a connection: a dropped client, or no DNS at all
        elif reply:
            self.in_flight -= 1
            self._write(reply)

    def _next_turn(self) -> None:
        self._scheduled = False
        if self._transport is not None:
            self._serve()

    def _resume(self) -> None:
        if self._transport is None or self._scheduled:
            return
        if self._has_whole() and self._may_ask(self._doors.config):
            self._scheduled = True
            self._doors.loop.call_soon(self._next_turn)
        self._adjust()

    def _write(self, reply: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self.active_at = self._doors.clock()
        transport.write(_LENGTH.pack(len(reply)) + reply)

    def _may_ask(self, config: TcpConfig) -> bool:
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and not self._blocked_at
            and self.in_flight < config.in_flight_max
        )

    def _has_whole(self) -> bool:
        left = len(self._buffer) - self._position
        return left >= 2 and left >= 2 + _LENGTH.unpack_from(self._buffer, self._position)[0]

    def _compact(self) -> None:
        if self._position:
            del self._buffer[: self._position]
            self._position = 0

    def _adjust(self) -> None:
        """Reads only while there is room: for a message in the buffer, and for an answer on the way."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        want = self._may_ask(self._doors.config) and len(self._buffer) <= BUFFER_MAX
        if want == self._paused:
            self._paused = not want
            if self._paused:
                transport.pause_reading()
            elif not self._ended:
                transport.resume_reading()

    def _close_if_done(self) -> None:
        if self._ended and self.idle and not self._has_whole():
            self.close()


class TcpDoors:
    """The listening sockets and all connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: Handler,
        counters: Counters,
        *,
        clock: Callable[[], float],
        client: Callable[[str], Client],
        gone: Callable[[Connection], None],
    ) -> None:
        self.loop = loop
        self.handler = handler
        self.clock = clock
        self.config = TcpConfig()
        self.exempt_loopback = True
        self.listeners: list[socket.socket] = []
        self.draining = False
        self._client = client
        self._gone = gone
        self._counters = counters
        self._connections: dict[Connection, None] = {}
        self._prefixes: Tally[bytes] = Tally()
        self._reading = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._connections)

    def adopt(self, listener: socket.socket) -> None:
        """Takes a listening socket."""
        listener.setblocking(False)
        self.listeners.append(listener)
        if self._reading:
            self.loop.add_reader(listener.fileno(), self._accept, listener)

    def start(self) -> None:
        """Begins to accept."""
        if not self._reading:
            self._reading = True
            for listener in self.listeners:
                self.loop.add_reader(listener.fileno(), self._accept, listener)

    def stop(self) -> None:
        """Accepts no more; what is connected stays."""
        if self._reading:
            self._reading = False
            for listener in self.listeners:
                self.loop.remove_reader(listener.fileno())

    def sweep(self) -> None:
        """Closes what has been idle, or deaf, for too long; called every second or so."""
        now = self.clock()
        idle_s = min(self.config.idle_s, DRAIN_IDLE_S) if self.draining else self.config.idle_s
        for connection in [c for c in self._connections if c.overdue(now, idle_s)]:
            if connection.idle:
                self._counters.connections.inc("idle")
                connection.close()
            else:
                self._counters.connections.inc("deaf")
                connection.abort()

    def close(self) -> None:
        """Drops everything."""
        self.stop()
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()

    def opened(self, connection: Connection) -> None:
        """A connection is up (called by it)."""
        self._counters.connections.inc("accepted")

    def lost(self, connection: Connection) -> None:
        """A connection is gone (called by it)."""
        if connection in self._connections:
            del self._connections[connection]
            prefix = connection.client.prefix
            self._prefixes[prefix] -= 1
            if not self._prefixes[prefix]:
                del self._prefixes[prefix]
        if connection.in_flight:
            self._gone(connection)

    def count(self) -> None:
        """One query was read (called by a connection)."""
        values = self._counters.queries.values
        values["tcp"] = values.get("tcp", 0) + 1

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors left: those who wait in the backlog try again
                self._counters.connections.inc(errno_label(error))
                self.sweep()
                return
            sock.setblocking(False)
            client = self._client(peer[0])
            if not self._make_room(client):
                self._counters.connections.inc("refused")
                sock.close()
                continue
            connection = Connection(self, client, peer)
            self._connections[connection] = None
            self._prefixes[client.prefix] += 1
            task = self.loop.create_task(self._connect(sock, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket, connection: Connection) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.connect_accepted_socket(lambda: connection, sock)
        except OSError as error:  # it was reset before we looked
            self._counters.connections.inc(errno_label(error))
            sock.close()
            self.lost(connection)

    def _make_room(self, client: Client) -> bool:
        """Whether a new connection may stay; the longest idle one goes for it."""
        exempt = client.loopback and self.exempt_loopback
        if not exempt and self._prefixes[client.prefix] >= self.config.prefix_clients_max:
            return self._close_idlest(client.prefix)
        if len(self._connections) >= self.config.clients_max:
            return self._close_idlest(None)
        return True

    def _close_idlest(self, prefix: bytes | None) -> bool:
        idle = [c for c in self._connections if c.idle and (prefix is None or c.client.prefix == prefix)]
        if not idle:
            return False
        victim = min(idle, key=lambda c: c.active_at)
        self._counters.connections.inc("displaced")
        victim.abort()
        self.lost(victim)
        return True

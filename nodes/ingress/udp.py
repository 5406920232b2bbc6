"""UDP: a bound socket, up to 64 packets a wake-up, replies from the address that was asked.

A socket bound to a wildcard address learns with each packet which address it was sent to (IP_PKTINFO, ip(7);
IPV6_RECVPKTINFO, RFC 3542 section 6) and says so in the reply. What the kernel does not take at once waits in a
bounded queue; what does not fit there is dropped and counted, as the network would.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections import deque
from typing import Any, Final, Protocol

from raydns.schemas import dns

from .admission import pack_address
from .counters import Counters

BURST: Final = 64
"""Packets a wake-up: after them timers, streams and TCP get their turn (engine.md: a batch of 64)."""
SEND_QUEUE_MAX: Final = 1024
RECEIVE_SIZE: Final = 65535  # RFC 768: a query may be that long; the buffer is Python's, for one packet at a time
_IP_PKTINFO: Final = getattr(socket, "IP_PKTINFO", 8)
_PKTINFO4: Final = struct.Struct("=I4s4s")
_PKTINFO6: Final = struct.Struct("=16sI")
_ANCILLARY_SIZE: Final = 64
_KNOWN_MAX: Final = 1024
_UDP: Final = int(dns.Transport.UDP)

Ancillary = list[tuple[int, int, bytes]]


class Handler(Protocol):
    """What a door does with a message: the desk's ``handle`` behind the last guard."""

    def __call__(  # noqa: D102, PLR0917
        self, data: bytes, host: str, port: int, transport: int, door: Any, peer: Any = None, ancillary: Any = None
    ) -> bytes | None: ...


class UdpDoor:
    """One UDP socket."""

    def __init__(
        self, sock: socket.socket, loop: asyncio.AbstractEventLoop, handler: Handler, counters: Counters
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.reading = False
        self._loop = loop
        self._handler = handler
        self._counters = counters
        self._queue: deque[tuple[bytes, Any, Any]] = deque()
        self._writing = False
        host, self._port = sock.getsockname()[:2]
        self._own = pack_address(host)
        self._wildcard = ipaddress.ip_address(host.partition("%")[0]).is_unspecified
        self._replies: dict[bytes, Ancillary] = {}
        if self._wildcard:
            self._ask_for_destination()

    def start(self) -> None:
        """Begins to read."""
        if not self.reading:
            self.reading = True
            self._loop.add_reader(self.socket.fileno(), self._read_wildcard if self._wildcard else self._read)

    def stop(self) -> None:
        """Leaves what is queued in the socket to whoever else holds it."""
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self.socket.fileno())

    @property
    def unsent(self) -> int:
        """Replies that the kernel has not taken yet."""
        return len(self._queue)

    def close(self) -> None:
        """Drops everything."""
        self.stop()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self.socket.fileno())
        self._queue.clear()
        self.socket.close()

    def send(self, reply: bytes, peer: Any, ancillary: Any) -> None:
        """Sends a reply, or queues it; never raises."""
        if self._queue:
            self._enqueue(reply, peer, ancillary)
            return
        try:
            if ancillary is None:
                self.socket.sendto(reply, peer)
            else:
                self.socket.sendmsg((reply,), ancillary, 0, peer)
        except (BlockingIOError, InterruptedError):
            self._enqueue(reply, peer, ancillary)
        except OSError as error:
            # No route, a firewall, port 0: the client's or the network's matter; it shows in the metrics.
            self._counters.sends.inc(errno_label(error))

    def destination(self, ancillary: Any) -> tuple[bytes, int]:
        """The address and port that a packet was sent to."""
        if not ancillary:
            return self._own, self._port
        level, _, data = ancillary[0]
        if level == socket.IPPROTO_IP:
            return bytes(10) + b"\xff\xff" + _PKTINFO4.unpack(data)[1], self._port
        return _PKTINFO6.unpack(data)[0], self._port

    def _read(self) -> None:
        receive, handler, send = self.socket.recvfrom, self._handler, self.socket.sendto
        count = 0
        for _ in range(BURST):
            try:
                data, peer = receive(RECEIVE_SIZE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # An ICMP error of an earlier reply is reported here; the next packet is fine.
                self._counters.sends.inc(errno_label(error))
                continue
            count += 1
            reply = handler(data, peer[0], peer[1], _UDP, self, peer, None)
            if reply:
                if self._queue:
                    self._enqueue(reply, peer, None)
                    continue
                try:
                    send(reply, peer)
                except OSError:
                    self.send(reply, peer, None)
        self._count(count)

    def _read_wildcard(self) -> None:
        receive, handler, send = self.socket.recvmsg, self._handler, self.send
        count = 0
        for _ in range(BURST):
            try:
                data, received, _, peer = receive(RECEIVE_SIZE, _ANCILLARY_SIZE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._counters.sends.inc(errno_label(error))
                continue
            count += 1
            ancillary: Ancillary | None = None
            if received:
                ancillary = self._replies.get(received[0][2])
                if ancillary is None:
                    ancillary = self._reply_ancillary(received)
            reply = handler(data, peer[0], peer[1], _UDP, self, peer, ancillary)
            if reply:
                send(reply, peer, ancillary)
        self._count(count)

    def _count(self, count: int) -> None:
        values = self._counters.queries.values
        values["udp"] = values.get("udp", 0) + count

    def _reply_ancillary(self, received: Ancillary) -> Ancillary | None:
        """The control message that makes a reply leave from the address that was asked."""
        level, kind, data = received[0]
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _PKTINFO4.size:
            _, local, _ = _PKTINFO4.unpack_from(data)
            # Interface 0: routing decides on the way back; only the address is ours to say.
            reply = [(level, kind, _PKTINFO4.pack(0, local, bytes(4)))]
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) >= _PKTINFO6.size:
            address, interface = _PKTINFO6.unpack_from(data)
            link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
            reply = [(level, kind, _PKTINFO6.pack(address, interface if link_local else 0))]
        else:
            return None
        if len(self._replies) >= _KNOWN_MAX:
            self._replies.clear()
        self._replies[data] = reply
        return reply

    def _ask_for_destination(self) -> None:
        if self.socket.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def _enqueue(self, reply: bytes, peer: Any, ancillary: Any) -> None:
        if len(self._queue) >= SEND_QUEUE_MAX:
            self._counters.sends.inc("queue_full")
            return
        self._queue.append((reply, peer, ancillary))
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self.socket.fileno(), self._write)

    def _write(self) -> None:
        while self._queue:
            reply, peer, ancillary = self._queue[0]
            try:
                self.socket.sendmsg((reply,), ancillary or (), 0, peer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._counters.sends.inc(errno_label(error))
            self._queue.popleft()
        self._writing = False
        self._loop.remove_writer(self.socket.fileno())


def errno_label(error: OSError) -> str:
    """A bounded label for a failed system call."""
    known: dict[int, str] = _ERRNO
    return known.get(error.errno or 0, "other")


_ERRNO: Final = {
    1: "not_permitted",
    13: "not_permitted",
    22: "invalid",
    90: "too_large",
    101: "unreachable",
    105: "no_buffer",
    111: "refused",
    113: "unreachable",
}

"""One query as it was read: what it says, who sent it, and by which door its reply leaves."""

from __future__ import annotations

from typing import Any, Protocol

from raydns.schemas import dns
from raydns.schemas.wire import Query

from .admission import Client


class Door(Protocol):
    """Where a query came in and its reply goes out: a UDP socket or a TCP connection."""

    def send(self, reply: bytes, peer: Any, ancillary: Any) -> None:
        """Sends a reply; never raises, never blocks, drops it where it cannot go."""

    def destination(self, ancillary: Any) -> tuple[bytes, int]:
        """The address (16 octets) and port that were asked."""


class Trace:
    """A sampled query's identity; exists for no other query."""

    __slots__ = ("parent_id", "span_id", "tell", "trace_id")

    def __init__(self, trace_id: bytes, parent_id: bytes, span_id: bytes, *, tell: bool) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.span_id = span_id
        self.tell = tell  # the client asked by EDNS and may know


class Asked:
    """A query that was parsed and admitted."""

    __slots__ = (
        "ancillary",
        "arrived",
        "client",
        "data",
        "door",
        "peer",
        "port",
        "query",
        "trace",
        "transport",
        "wall_us",
    )

    def __init__(  # noqa: PLR0917 - made for every query, and keywords cost a tenth of a hit
        self,
        data: bytes,
        query: Query,
        client: Client,
        arrived: float,
        port: int,
        transport: int,
        door: Door,
        peer: Any,
        ancillary: Any,
    ) -> None:
        self.data = data
        self.query = query
        self.client = client
        self.arrived = arrived  # monotonic seconds
        self.port = port
        self.transport = transport
        self.door = door
        self.peer = peer  # as the door knows it; None where the door has only one (TCP)
        self.ancillary = ancillary
        self.trace: Trace | None = None
        self.wall_us = 0  # Unix time of arrival; only known for those who wait

    @property
    def identity(self) -> tuple[bytes, int, bytes, int]:
        """Equal for a query and its retransmissions: they are answered once."""
        own_door = 0 if self.transport == dns.Transport.UDP else id(self.door)
        return self.client.address, self.port, self.data[:2], own_door

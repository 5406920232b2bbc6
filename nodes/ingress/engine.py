"""The ``Engine``: the part of the ingress that owns sockets and packets, and its contract with the rest.

Two implementations pass the same tests: the Python reference engine beside this file and, later, a native one.
The seam is narrow on purpose: state comes in whole and immutable, misses leave and answers come back as encoded
batches (``raydns.schemas.batch``), nothing is called per packet.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from raydns.nodes.metrics import Family
from raydns.schemas.cluster import Flush, RingTable, ZoneEntry
from raydns.schemas.config import Config


@dataclass(frozen=True, slots=True)
class MachineState:
    """All tables that an engine answers from; one immutable value, installed in one step."""

    version: int
    """Packed version of the snapshot that it was made from."""
    class_version: int
    """Packed version of the section that the class table came from."""
    config: Config
    ring: RingTable
    zones: Sequence[ZoneEntry]
    """Every apex of every view; one without an image is never passed over."""
    images: Mapping[str, Path]
    """Image files present on this machine, by SHA-256."""
    flushes: Sequence[Flush] = ()
    machine: str = ""
    interface_prefixes: Sequence[str] = field(default=())
    """Prefixes of this machine's own interfaces, for classes that say ``on_link``."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An image that the engine will not serve, and why; its zone answers SERVFAIL with EDE until it is mended."""

    apex: bytes
    sha256: str
    problem: str


@dataclass(frozen=True, slots=True)
class RecentQuery:
    """One remembered query for ``raydns query --trace`` and the status page."""

    trace_id: str
    name: str
    qtype: int
    rcode: int
    source: str
    transport: int
    time_us: int
    duration_us: int
    rooms: bytes
    """``batch.ROOM`` entries, the ingress's own first."""


class Engine(Protocol):
    """Answers packets. All methods are called from one thread (the ingress's event loop)."""

    name: str
    """``python`` or ``native``: shown by status, log and /health."""

    def adopt(self, sockets: Sequence[socket.socket]) -> None:
        """Takes bound sockets (UDP, and listening TCP) and starts reading as soon as a state is installed."""

    def install(self, state: MachineState) -> list[Refusal]:
        """Swaps in a new state between two packets: no answer ever mixes two. Never raises for a bad image."""

    def set_wakeup(self, wake: Callable[[int], None]) -> None:
        """``wake(shard)`` is called when the queue of misses for a shard goes from empty to not empty."""

    def take_batch(self, shard: int) -> bytes | None:
        """The next encoded batch of misses for a shard, or ``None``."""

    def deliver(self, data: bytes) -> None:
        """An encoded batch of answers from a shard; slots that nobody waits for any more are ignored.

        Raises:
            BatchError: the batch is malformed (the caller closes that stream).
        """

    def set_shard(self, shard: int, *, reachable: bool) -> None:
        """Whether a shard's stream is up. Down: its unanswered queries go to the second shard, or wait."""

    def stop_reading(self) -> None:
        """First half of a take-over: sockets are left to the next ingress; what was read is still answered."""

    async def drain(self, timeout_s: float) -> bool:
        """Stops reading, answers what was read, lets TCP connections finish; ``True`` if nothing was left."""

    def metrics(self) -> list[Family]:
        """Counters and histograms since start."""

    def recent(self, limit: int, trace_id: str = "") -> list[RecentQuery]:
        """The newest remembered queries, or those of one trace."""

    def close(self) -> None:
        """Drops everything at once."""

"""The stream protocol as a state machine without IO: octets and time go in, events and octets come out.

A stream carries batches (``raydns.schemas.batch``) both ways between two processes. Little-endian; another
language must be able to speak it from this page alone:

    frame  = length u32 (of what follows) | type u8 | body
    HELLO  = magic "RDNS" | newest version u8 | oldest version u8 | role u8 | name length u8 | name (UTF-8)
             | octets that a later version may add and this one ignores
    BATCH  = seq u32 (the first is 1, then one more each, modulo 2^32) | batch
    ACK    = seq u32: everything up to it has been handed over
    PING, PONG, BYE = no body

Rules:

1. Each side's first frame is HELLO, unasked. Both then speak the lower of the two newest versions, if it is
   not below either's oldest; one version back is always understood, so that a rolling upgrade works.
2. A BATCH is in flight until acknowledged; each direction has at most ``WINDOW`` in flight. Who sends more has
   broken the protocol. The acknowledgement is the receiver's back-pressure.
3. A silent peer is asked with PING; one that says nothing for ``silence_s`` is dead.
4. BYE means: send me no new batch; what I owe you still comes, then I close.
5. Whatever else comes in is a ``FrameError``; the connection is then useless, and nothing more is kept of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from raydns.schemas.batch import BATCH_SIZE_MAX
from raydns.schemas.errors import FrameError

MAGIC: Final = b"RDNS"
VERSION: Final = 1
VERSION_OLDEST: Final = max(1, VERSION - 1)  # rule 1
WINDOW: Final = 4  # measured (ray.md): one in flight costs three times the CPU, more than four gains nothing
PING_AFTER_S: Final = 1.0
SILENCE_S: Final = 5.0  # a Python process may well be busy for a second; five are a verdict (design: health)

_LENGTH: Final = struct.Struct("<IB")
_SEQ: Final = struct.Struct("<IBI")
_HELLO: Final = struct.Struct("<4sBBBB")
_MASK: Final = 0xFFFFFFFF

NAME_SIZE_MAX: Final = 255
HELLO_SIZE_MAX: Final = 1024
BATCH_FRAME_SIZE_MAX: Final = BATCH_SIZE_MAX + 5


class FrameType(IntEnum):
    """The type octet of a frame."""

    HELLO = 1
    BATCH = 2
    ACK = 3
    PING = 4
    PONG = 5
    BYE = 6


# Smallest and largest ``length`` that each type may announce: a liar is found before anything is buffered.
_SIZES: Final[dict[int, tuple[int, int]]] = {
    FrameType.HELLO: (1 + _HELLO.size, HELLO_SIZE_MAX),
    FrameType.BATCH: (5, BATCH_FRAME_SIZE_MAX),
    FrameType.ACK: (5, 5),
    FrameType.PING: (1, 1),
    FrameType.PONG: (1, 1),
    FrameType.BYE: (1, 1),
}


class Role(IntEnum):
    """Who speaks; only for logs and metrics, unknown numbers are fine."""

    OTHER = 0
    INGRESS = 1
    CACHE = 2
    QUERY = 3
    ZONE = 4
    HEALTH = 5
    AGENT = 6


class State(Enum):
    """HELLO → OPEN → CLOSED; an error leads from anywhere to CLOSED."""

    HELLO = "hello"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer said HELLO: batches may now be sent."""

    version: int
    role: int
    name: str


@dataclass(frozen=True, slots=True)
class BatchReceived:
    """A batch came in; call ``acknowledge(seq)`` when it has been handed over."""

    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The peer took batches: the window has room again."""

    count: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """The peer said BYE: it takes no new batch, but still pays what it owes."""


Event = Opened | BatchReceived | Acknowledged | Leaving


class Connection:
    """One end of a stream. Not thread-safe; knows neither sockets nor clocks."""

    def __init__(
        self,
        role: int,
        name: str,
        now: float,
        *,
        version: int = VERSION,
        version_oldest: int = VERSION_OLDEST,
        ping_after_s: float = PING_AFTER_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.state = State.HELLO
        self.leaving = False
        """The peer said BYE."""
        self._version = version
        self._version_oldest = version_oldest
        self._ping_after_s = ping_after_s
        self._silence_s = silence_s
        self._heard = now
        self._pinged = now
        self._in = bytearray()  # at most one incomplete frame
        self._out: list[bytes] = []
        self._sent = self._sent_acked = 0  # sequence numbers of what we send
        self._received = self._received_acked = self._handed_over = 0  # and of what the peer sends
        self._pong_due = False
        self._bye_said = False
        self._out.append(_hello(role, name, version, version_oldest))

    @property
    def in_flight(self) -> int:
        """Batches sent and not yet acknowledged."""
        return (self._sent - self._sent_acked) & _MASK

    @property
    def window(self) -> int:
        """How many batches may be sent now."""
        if self.state is not State.OPEN or self.leaving:
            return 0
        return WINDOW - self.in_flight

    def send_batch(self, batch: bytes) -> None:
        """Queues a batch; raises ``FrameError`` where the window has no room or the batch is too large."""
        if self.window <= 0:
            raise FrameError("a batch was sent without room in the window")
        if len(batch) > BATCH_SIZE_MAX:
            raise FrameError(f"a batch of {len(batch)} octets; a frame holds at most {BATCH_SIZE_MAX}")
        self._sent = (self._sent + 1) & _MASK
        self._out.append(_SEQ.pack(len(batch) + 5, FrameType.BATCH, self._sent))
        self._out.append(batch)

    def acknowledge(self, seq: int) -> None:
        """Everything up to ``seq`` has been handed over; the ACK goes out with the next octets."""
        if (seq - self._handed_over) & _MASK <= (self._received - self._handed_over) & _MASK:
            self._handed_over = seq

    def say_bye(self) -> None:
        """Tells the peer to send nothing new; what is owed may still be sent. Saying it twice is once."""
        if not self._bye_said and self.state is not State.CLOSED:
            self._bye_said = True
            self._out.append(_LENGTH.pack(1, FrameType.BYE))

    @property
    def unacknowledged(self) -> int:
        """Batches that were handed over and whose acknowledgement has not gone out yet."""
        return (self._handed_over - self._received_acked) & _MASK

    def data_to_send(self, *, lone_ack: bool = True) -> bytes:
        """All octets that wait to be sent; empty where there is nothing.

        Args:
            lone_ack: whether an ACK goes out with nothing else to carry it. Without, it waits for an answer that
                goes the same way, unless half of the peer's window waits already.
        """
        if self.state is State.CLOSED:
            return b""
        if self._pong_due:
            self._pong_due = False
            self._out.append(_LENGTH.pack(1, FrameType.PONG))
        waiting = self.unacknowledged
        if waiting and (lone_ack or self._out or waiting >= WINDOW // 2):
            self._received_acked = self._handed_over
            self._out.append(_SEQ.pack(5, FrameType.ACK, self._handed_over))
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def tick(self, now: float) -> None:
        """Asks a quiet peer with PING; raises ``FrameError`` for one that has been silent too long."""
        if self.state is State.CLOSED:
            return
        quiet = now - self._heard
        if quiet >= self._silence_s:
            before = "HELLO" if self.state is State.HELLO else "anything"
            raise self._broken(f"the peer has not said {before} for {quiet:.1f} s")
        if self.state is State.OPEN and quiet >= self._ping_after_s and now - self._pinged >= self._ping_after_s:
            self._pinged = now
            self._out.append(_LENGTH.pack(1, FrameType.PING))

    def heard(self, now: float) -> None:
        """Starts the silence anew: said after we ourselves had stopped reading."""
        self._heard = now

    def close(self) -> None:
        """Nothing more goes in or out."""
        self.state = State.CLOSED
        self._in.clear()
        self._out.clear()

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Takes octets as they arrive, in any fragmentation.

        Raises:
            FrameError: the peer broke the protocol; the connection is closed.
        """
        if self.state is State.CLOSED:
            raise FrameError("the connection is closed")
        if data:
            self._heard = now
        if self._in:  # rare: a frame is spread over several reads
            self._in += data
            data = bytes(self._in)
            self._in.clear()
        events: list[Event] = []
        position, size = 0, len(data)
        while size - position >= 5:
            length, kind = _LENGTH.unpack_from(data, position)
            bounds = _SIZES.get(kind)
            if bounds is None or not bounds[0] <= length <= bounds[1]:
                raise self._broken(f"a frame of type {kind} announces {length} octets")
            if self.state is State.HELLO and kind != FrameType.HELLO:
                raise self._broken("the first frame is not HELLO")
            end = position + 4 + length
            if end > size:
                break
            event = self._frame(kind, data, position + 5, end)
            if event is not None:
                events.append(event)
            position = end
        if position < size:
            self._in += data[position:] if position else data
        return events

    def _frame(self, kind: int, data: bytes, start: int, end: int) -> Event | None:
        if kind == FrameType.BATCH:
            return self._on_batch(int.from_bytes(data[start : start + 4], "little"), data[start + 4 : end])
        if kind == FrameType.ACK:
            return self._on_ack(int.from_bytes(data[start:end], "little"))
        if kind == FrameType.HELLO:
            return self._on_hello(data[start:end])
        if kind == FrameType.PING:
            self._pong_due = True  # many PINGs in one read are worth one PONG
        elif kind == FrameType.BYE and not self.leaving:
            self.leaving = True
            return Leaving()
        return None

    def _on_batch(self, seq: int, data: bytes) -> BatchReceived:
        if seq != (self._received + 1) & _MASK:
            raise self._broken(f"batch {seq} came after {self._received}")
        if (self._received - self._received_acked) & _MASK >= WINDOW:
            raise self._broken(f"more than {WINDOW} batches in flight")
        self._received = seq
        return BatchReceived(seq, data)

    def _on_ack(self, seq: int) -> Acknowledged | None:
        count = (seq - self._sent_acked) & _MASK
        if count > self.in_flight:
            raise self._broken(f"batch {seq} acknowledged, which was never sent")
        self._sent_acked = seq
        return Acknowledged(count) if count else None

    def _on_hello(self, body: bytes) -> Opened:
        if self.state is not State.HELLO:
            raise self._broken("a second HELLO")
        magic, newest, oldest, role, name_len = _HELLO.unpack_from(body)
        if magic != MAGIC:
            raise self._broken("not a raydns stream")
        if oldest > newest or _HELLO.size + name_len > len(body):
            raise self._broken("a HELLO that makes no sense")
        version = min(newest, self._version)
        if version < max(oldest, self._version_oldest):
            raise self._broken(
                f"the peer speaks versions {oldest} to {newest}, this side {self._version_oldest} to {self._version}",
                hint="upgrade one version at a time",
            )
        self.state = State.OPEN
        name = body[_HELLO.size : _HELLO.size + name_len].decode("utf-8", "replace")
        return Opened(version, role, name)

    def _broken(self, message: str, hint: str = "") -> FrameError:
        self.close()
        return FrameError(message, hint=hint)


def _hello(role: int, name: str, version: int, version_oldest: int) -> bytes:
    text = name.encode("utf-8", "replace")[:NAME_SIZE_MAX]
    body = _HELLO.pack(MAGIC, version, version_oldest, role, len(text)) + text
    return _LENGTH.pack(len(body) + 1, FrameType.HELLO) + body

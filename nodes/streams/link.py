"""The shell around a ``Connection``: an asyncio protocol with flow control, used by both ends of a stream.

Everything that leaves goes through ``flush``, which runs once a turn of the loop: acknowledgements, PONG and
batches of the same turn are one write. An acknowledgement alone waits a moment for something to travel with: a
write, and a peer woken for nothing, cost more than all else that a small batch needs. Batches are asked for
(``_pull``) only while the window has room and the transport takes octets, so that nothing piles up here; whoever
holds the queue bounds it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Final, cast

from raydns.schemas.errors import FrameError, WireError

from .frames import Acknowledged, BatchReceived, Connection, Leaving, Opened, State
from .secret import pinned

log = logging.getLogger(__name__)

WRITE_BUFFER_HIGH: Final = 1 << 20  # one largest batch; above it nothing more is pulled
WRITE_CHUNK: Final = 1 << 18  # batches are joined up to this size before they go to the transport
ACK_DELAY_S: Final = 0.002  # much less than what fills a window, much more than what most answers take
STALL_S: Final = 5.0  # a peer that takes no octet for so long while we have some is dead
TICK_S: Final = 0.5


class Link(asyncio.Protocol):
    """One connection of a stream; subclasses say what happens to batches and where they come from."""

    def __init__(self, role: int, name: str, tls: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = Connection(role, name, self.loop.time())
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        """The peer's name as its HELLO gave it."""
        self.reason = ""
        """Why the link ended; empty for an orderly end."""
        self._tls = tls
        self._writable = True
        self._stalled_at = 0.0
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._ack_timer: asyncio.TimerHandle | None = None
        self._lost = False

    # What a subclass provides.

    def _on_open(self) -> None:
        """The peer said HELLO."""

    def _on_batch(self, data: bytes) -> None:
        """A batch came in; raises ``WireError`` where it is malformed."""

    def _pull(self) -> bytes | None:
        """The next batch to send, if there is one."""
        return None

    def _on_leaving(self) -> None:
        """The peer said BYE."""

    def _on_lost(self) -> None:
        """The connection is gone; called once."""

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Checks the peer's certificate, then says HELLO."""
        self.transport = cast("asyncio.Transport", transport)
        if self._tls and not self._peer_is_pinned():
            self.abort("the peer does not hold this cluster's secret")
            return
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH)
        self._timer = self.loop.call_later(TICK_S, self._tick)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Octets from the peer."""
        if self._lost or self.transport is None or self.connection.state is State.CLOSED:
            return
        try:
            for event in self.connection.receive(data, self.loop.time()):
                if type(event) is BatchReceived:
                    self._on_batch(event.data)
                    self.connection.acknowledge(event.seq)
                elif type(event) is Opened:
                    self.peer = event.name
                    self._on_open()
                elif type(event) is Leaving:
                    self._on_leaving()
                elif type(event) is not Acknowledged:
                    raise AssertionError(event)
        except WireError as error:
            self.abort(str(error))
            return
        except Exception:
            # A bug above us must not leave a link that looks alive: it is closed, and its slots asked again.
            log.exception("stream_handler_failed", extra={"peer": self.peer})
            self.abort("the handler failed")
            return
        self.schedule()

    def pause_writing(self) -> None:
        """The transport is full: no more pulls, and no more reading of what would make us answer."""
        self._writable = False
        self._stalled_at = self.loop.time()

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._writable = True
        self.connection.heard(self.loop.time())
        self.schedule()

    def connection_lost(self, error: Exception | None) -> None:
        """The end, whatever the reason."""
        if self._lost:
            return
        self._lost = True
        if error is not None and not self.reason:
            self.reason = f"{type(error).__name__}: {error}"
        for timer in (self._timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self.connection.close()
        self._on_lost()

    # What we do.

    @property
    def open(self) -> bool:
        """Whether the peer said HELLO and the connection is still there."""
        return not self._lost and self.connection.state is State.OPEN

    def schedule(self) -> None:
        """Has ``flush`` run once, at the end of this turn of the loop."""
        if not self._scheduled and not self._lost:
            self._scheduled = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Pulls batches while there is room, and writes all that waits."""
        self._scheduled = False
        transport, connection = self.transport, self.connection
        if transport is None or self._lost or transport.is_closing():
            return
        joined = 0
        try:
            while self._writable and connection.window > 0:
                batch = self._pull()
                if batch is None:
                    break
                connection.send_batch(batch)
                joined += len(batch)
                if joined >= WRITE_CHUNK:
                    joined = 0
                    transport.write(connection.data_to_send())
        except FrameError as error:
            self.abort(str(error))
            return
        data = connection.data_to_send(lone_ack=False)
        if data:
            transport.write(data)
        if self._ack_timer is None and connection.unacknowledged:
            self._ack_timer = self.loop.call_later(ACK_DELAY_S, self._acknowledge)

    def _acknowledge(self) -> None:
        """Nothing came that the acknowledgement could have travelled with."""
        self._ack_timer = None
        if self.transport is None or self._lost or self.transport.is_closing():
            return
        data = self.connection.data_to_send()
        if data:
            self.transport.write(data)

    def say_bye(self) -> None:
        """Tells the peer to send nothing new."""
        self.connection.say_bye()
        self.flush()

    def close(self) -> None:
        """Says BYE and ends once what is buffered has gone out."""
        if self.transport is not None and not self._lost:
            self.say_bye()
            self.transport.close()

    def abort(self, reason: str) -> None:
        """Ends at once; the reason is kept for the log."""
        self.reason = self.reason or reason
        self.connection.close()
        if self.transport is not None:
            self.transport.abort()

    def _tick(self) -> None:
        now = self.loop.time()
        try:
            if self._writable:
                self.connection.tick(now)
            elif now - self._stalled_at >= STALL_S:
                raise FrameError(f"the peer has not read for {now - self._stalled_at:.1f} s")
        except FrameError as error:
            self.abort(str(error))
            return
        self.flush()
        self._timer = self.loop.call_later(TICK_S, self._tick)

    def _peer_is_pinned(self) -> bool:
        assert self.transport is not None
        session: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        context: ssl.SSLContext | None = self.transport.get_extra_info("sslcontext")
        if session is None:
            return False
        return pinned(context or session.context, session.getpeercert(binary_form=True))

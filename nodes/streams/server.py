"""The side of a stream that listens: hands queries to a handler, and sends answers back as one batch a turn.

Everything here runs in the thread of the loop in which ``start`` was called; so must ``Responder.answer``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raydns.schemas import batch
from raydns.schemas.batch import AnswerFlag, AnswerItem, QueryItem
from raydns.schemas.errors import BatchError, SocketError

from .frames import Role
from .link import Link
from .packing import BATCH_ROOM, answer_size
from .probe import answer_probe
from .secret import ClusterContext
from .sockets import inode, listen_unix

log = logging.getLogger(__name__)

BACKLOG_SIZE_MAX: Final = 32 << 20  # octets of answers that one peer may leave untaken
CONNECTIONS_MAX: Final = 1024
DRAIN_POLL_S: Final = 0.01
CLOSE_S: Final = 1.0

Handler = Callable[[list[QueryItem], "Responder"], None]


@dataclass(frozen=True, slots=True)
class Tls:
    """Where and how to listen for other machines."""

    host: str
    port: int
    """0 takes a free one; ``StreamServer.port`` tells it."""
    context: ClusterContext
    """``secret.server_context``."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """What a server did since its start."""

    connections: int
    """Open now."""
    queries: int
    answers: int
    probes: int
    refused: int
    """Connections that were ended because of what the peer sent, or did not read."""


class StreamServer:
    """Listens on a Unix socket, on TLS, or on both.

    Args:
        handler: called with the queries of one batch and the connection's responder; returns at once, and sees
            to it that each slot is answered once (more often only with the flag MORE).
        path: of the Unix socket.
        tls: for other machines.
        identity: the actor's name; with it, health probes are answered here.
        role: what we are, for the peer's log.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        path: Path | None = None,
        tls: Tls | None = None,
        identity: str = "",
        role: int = Role.OTHER,
        backlog_size_max: int = BACKLOG_SIZE_MAX,
    ) -> None:
        self.handler = handler
        self.identity = identity
        self.role = role
        self.backlog_size_max = backlog_size_max
        self.port = 0
        """The TLS port in use, after ``start``."""
        self.queries = self.answers = self.probes = self.refused = 0
        self._path = path
        self._tls = tls
        self._links: set[_ServerLink] = set()
        self._servers: list[asyncio.Server] = []
        self._inode: tuple[int, int] | None = None
        self._closing = False
        self._empty = asyncio.Event()

    async def start(self) -> None:
        """Listens; raises ``SocketError`` where that is impossible."""
        loop = asyncio.get_running_loop()
        try:
            if self._path is not None:
                listener = listen_unix(self._path)
                self._inode = inode(self._path)
                self._servers.append(await loop.create_unix_server(lambda: _ServerLink(self, False), sock=listener))
            if self._tls is not None:
                await self._start_tls(loop, self._tls)
        except BaseException:
            await self.close(0)
            raise

    async def _start_tls(self, loop: asyncio.AbstractEventLoop, tls: Tls) -> None:
        try:
            server = await loop.create_server(
                lambda: _ServerLink(self, True), tls.host, tls.port, ssl=tls.context, ssl_handshake_timeout=5.0
            )
        except OSError as error:
            raise SocketError(
                f"cannot listen for streams: {error.strerror or error}",
                where=f"{tls.host}:{tls.port}",
                hint="another process has the port, or the address is not this machine's",
            ) from error
        self._servers.append(server)
        for listener in server.sockets:
            if listener.family in {socket.AF_INET, socket.AF_INET6}:
                self.port = listener.getsockname()[1]

    async def close(self, drain_s: float = 0.0) -> bool:
        """Stops listening, lets queries be answered for at most ``drain_s``, and closes; ``True``: none was lost."""
        self._closing = True
        for server in self._servers:
            server.close()
        if self._path is not None and self._inode is not None and inode(self._path) == self._inode:
            with contextlib.suppress(OSError):
                self._path.unlink()
        loop = asyncio.get_running_loop()
        end = loop.time() + drain_s
        for link in list(self._links):
            link.say_bye()
        # Polled: it happens once in a server's life, and every answer would otherwise pay for a check.
        while any(link.owes for link in self._links) and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_POLL_S)
        drained = not any(link.owes for link in self._links)
        for link in list(self._links):
            if link.owes:
                link.abort("the server closed")
            else:
                link.close()
        try:
            await asyncio.wait_for(self._wait_empty(), CLOSE_S)
        except TimeoutError:  # a peer that does not even take our BYE
            for link in list(self._links):
                link.abort("the server closed")
        return drained

    async def _wait_empty(self) -> None:
        if self._links:
            await self._empty.wait()

    def statistics(self) -> ServerStatistics:
        """Counters since start."""
        return ServerStatistics(len(self._links), self.queries, self.answers, self.probes, self.refused)

    def joined(self, link: _ServerLink) -> bool:
        """Whether a new connection may stay (called by the link)."""
        if self._closing or len(self._links) >= CONNECTIONS_MAX:
            return False
        self._links.add(link)
        return True

    def left(self, link: _ServerLink) -> None:
        """A connection is gone (called by the link)."""
        self._links.discard(link)
        if self._closing and not self._links:
            self._empty.set()
        if link.reason and not self._closing:
            self.refused += 1
            log.warning("stream_ended", extra={"actor": self.identity, "peer": link.peer, "problem": link.reason})


class Responder:
    """Takes the answers of one connection, in any order; slots are that connection's."""

    __slots__ = ("_link",)

    def __init__(self, link: _ServerLink) -> None:
        self._link = link

    @property
    def connected(self) -> bool:
        """Whether an answer can still reach its asker."""
        return self._link.open

    @property
    def peer(self) -> str:
        """The name that the asker gave in its HELLO."""
        return self._link.peer

    @property
    def backlog(self) -> int:
        """Octets of answers that the asker has not taken yet: those who stream should wait while it is large."""
        return self._link.backlog

    def answer(self, item: AnswerItem) -> None:
        """Sends an answer at the end of this turn of the loop; without a connection it does nothing."""
        self._link.answer(item)


class _ServerLink(Link):
    def __init__(self, server: StreamServer, tls: bool) -> None:
        super().__init__(server.role, server.identity, tls)
        self.backlog = 0
        self._server = server
        self._responder = Responder(self)
        self._answers: deque[AnswerItem] = deque()
        self._unanswered = 0

    @property
    def owes(self) -> bool:
        """Whether the peer still waits for something of ours."""
        return bool(self.open and (self._unanswered or self._answers or self.connection.in_flight))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Lets the connection in, unless there are too many."""
        if not self._server.joined(self):
            self.reason = "too many connections"
            transport.abort()  # type: ignore[attr-defined]  # it is a Transport
            return
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """A peer that does not read is not read either: its questions would only make more answers."""
        super().pause_writing()
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def answer(self, item: AnswerItem) -> None:
        """See ``Responder.answer``."""
        if not self.open:
            return
        self._answers.append(item)
        self.backlog += answer_size(item)
        if not item.flags & AnswerFlag.MORE and self._unanswered:
            self._unanswered -= 1
        if self.backlog > self._server.backlog_size_max:
            self.abort(f"the peer left {self.backlog} octets of answers untaken")
            return
        self.schedule()

    def _on_batch(self, data: bytes) -> None:
        queries = batch.decode_queries(data)
        server = self._server
        server.queries += len(queries)
        self._unanswered += len(queries)
        if server.identity:
            queries = self._without_probes(queries, server)
        if queries:
            server.handler(queries, self._responder)

    def _without_probes(self, queries: list[QueryItem], server: StreamServer) -> list[QueryItem]:
        others: list[QueryItem] = []
        for item in queries:
            found = answer_probe(item, server.identity) if item.flags else None
            if found is None:
                others.append(item)
            else:
                server.probes += 1
                self.answer(found)
        return others

    def _pull(self) -> bytes | None:
        while items := self._take():
            try:
                data = batch.encode_answers(items)
            except BatchError:
                # One of them fits no batch: a bug of the handler's, which must not cost the others their answers.
                good = [item for item in items if _encodes(item)]
                log.exception(
                    "answer_does_not_fit", extra={"actor": self._server.identity, "count": len(items) - len(good)}
                )
                if not good:
                    continue
                items, data = good, batch.encode_answers(good)
            self._server.answers += len(items)
            return data
        return None

    def _take(self) -> list[AnswerItem]:
        answers = self._answers
        items: list[AnswerItem] = []
        room = BATCH_ROOM
        while answers and len(items) < batch.ITEMS_MAX:
            size = answer_size(answers[0])
            if size > room and items:
                break
            room -= size
            self.backlog -= size
            items.append(answers.popleft())
        return items

    def _on_lost(self) -> None:
        self._answers.clear()
        self.backlog = 0
        self._server.left(self)


def _encodes(item: AnswerItem) -> bool:
    try:
        batch.encode_answers([item])
    except BatchError:
        return False
    return True

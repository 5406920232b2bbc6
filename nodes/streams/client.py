"""The side of a stream that connects, stays connected, and pulls batches whenever the window has room.

All methods and all callbacks run in the thread of the loop in which ``start`` was called.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from raydns.schemas.cluster import Endpoint
from raydns.schemas.errors import StateError

from .frames import Role
from .link import Link
from .secret import HOST_NAME, ClusterContext

log = logging.getLogger(__name__)

BACKOFF_MIN_S: Final = 0.01
BACKOFF_MAX_S: Final = 1.0
CONNECT_TIMEOUT_S: Final = 5.0


class StreamClient:
    """A stream to one endpoint that reconnects for ever: 10 ms, doubling to 1 s, each with jitter.

    Args:
        endpoint: where to connect.
        machine: the name of the machine that we run on: an endpoint on it is reached by its Unix socket, any
            other by TLS.
        pull: the next encoded batch, or ``None``; asked whenever the window has room. What it returns is sent
            once, on the present connection.
        on_batch: an encoded batch that came in; a ``WireError`` from it closes the connection.
        on_state: ``True`` when the peer has said HELLO; ``False`` once for each ``True``: every unanswered slot of
            that connection is lost.
        ssl_context: ``secret.client_context``; needed for endpoints on other machines.
        role: what we are, for the peer's log.
        rng: source of the jitter.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        machine: str,
        *,
        pull: Callable[[], bytes | None],
        on_batch: Callable[[bytes], None],
        on_state: Callable[[bool], None],
        ssl_context: ClusterContext | None = None,
        role: int = Role.OTHER,
        rng: random.Random | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.machine = machine
        self.role = role
        self.local = endpoint.machine == machine and bool(endpoint.path)
        if not self.local and ssl_context is None:
            raise StateError(
                "a stream to another machine needs the cluster secret",
                where=f"{endpoint.actor} at {endpoint.host}:{endpoint.port}",
                hint="copy the head's cluster_secret to this machine",
            )
        self.connects = 0
        """How often the stream came up."""
        self.last_problem = ""
        """Why the last attempt or connection ended."""
        self._pull = pull
        self._on_batch = on_batch
        self._on_state = on_state
        self._ssl = ssl_context
        self._rng = rng or random.Random()
        self._link: _ClientLink | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether batches can be sent now (perhaps after the window opens)."""
        return self._link is not None and self._link.open

    @property
    def leaving(self) -> bool:
        """Whether the peer said BYE: it takes nothing new until it is back."""
        return self._link is not None and self._link.connection.leaving

    @property
    def peer(self) -> str:
        """The name that the peer gave in its HELLO."""
        return self._link.peer if self._link is not None else ""

    def start(self) -> None:
        """Starts to connect; call once, in the running loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"stream {self.endpoint.actor}")

    def wake(self) -> None:
        """``pull`` has something again: it is asked once this turn of the loop is over."""
        if self._link is not None:
            self._link.schedule()

    async def close(self) -> None:
        """Says BYE and stops for good."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._link is not None:
            link = self._link
            link.close()
            try:
                await asyncio.wait_for(link.ended.wait(), 1.0)
            except TimeoutError:
                link.abort("closed")
                await link.ended.wait()

    async def _run(self) -> None:
        backoff = BACKOFF_MIN_S
        while True:
            came_up = self.connects
            try:
                await self._connect()
            except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
                self._note(f"{type(error).__name__}: {error}")
            else:
                link = self._link
                assert link is not None
                await link.ended.wait()
                self._link = None
                if link.reason:
                    self._note(link.reason)
            backoff = BACKOFF_MIN_S if self.connects > came_up else min(backoff * 2, BACKOFF_MAX_S)
            await asyncio.sleep(backoff * self._rng.uniform(0.5, 1.0))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        link = _ClientLink(self, self._pull, self._on_batch, self._on_state)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if self.local:
                await loop.create_unix_connection(lambda: link, self.endpoint.path)
            else:
                await loop.create_connection(
                    lambda: link,
                    self.endpoint.host,
                    self.endpoint.port,
                    ssl=self._ssl,
                    server_hostname=HOST_NAME,
                )
        self._link = link

    def _note(self, problem: str) -> None:
        if problem != self.last_problem:  # one line a kind of trouble, not one an attempt
            self.last_problem = problem
            log.warning("stream_down", extra={"endpoint": self.endpoint.actor, "problem": problem})

    def opened(self, peer: str) -> None:
        """The link is up (called by the link)."""
        self.connects += 1
        self.last_problem = ""
        log.info("stream_up", extra={"endpoint": self.endpoint.actor, "peer": peer})


class _ClientLink(Link):
    def __init__(
        self,
        client: StreamClient,
        pull: Callable[[], bytes | None],
        on_batch: Callable[[bytes], None],
        on_state: Callable[[bool], None],
    ) -> None:
        super().__init__(client.role, client.machine, tls=not client.local)
        self.ended = asyncio.Event()
        self._client = client
        self._take = pull
        self._give = on_batch
        self._tell = on_state
        self._told = False

    def _on_open(self) -> None:
        self._client._link = self
        self._told = True
        self._client.opened(self.peer)
        self._tell(True)

    def _on_batch(self, data: bytes) -> None:
        self._give(data)

    def _pull(self) -> bytes | None:
        return self._take()

    def _on_lost(self) -> None:
        self.ended.set()
        if self._told:
            self._told = False
            self._tell(False)

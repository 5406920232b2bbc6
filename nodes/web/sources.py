"""What the web service knows of the other processes: asked at most once a second, remembered with its age."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from raydns.nodes import control
from raydns.nodes.known import Known
from raydns.nodes.metrics import Family
from raydns.nodes.paths import StateDir
from raydns.schemas.cluster import Snapshot
from raydns.schemas.errors import RaydnsError, WireError

log = logging.getLogger(__name__)

T = TypeVar("T")

FRESH_S: Final = 1.0
CALL_TIMEOUT_S: Final = 5.0
RECENT_SHOWN: Final = 40

Clock = Callable[[], float]


class Source(Generic[T]):
    """One thing to ask for: a single question at a time, its last good answer, and what went wrong since."""

    def __init__(self, name: str, ask: Callable[[], Awaitable[T]], empty: T, clock: Clock) -> None:
        self.name = name
        self.value = empty
        """The last good answer; ``empty`` before the first."""
        self.problem = ""
        """Why the last question failed; empty after a success."""
        self._ask = ask
        self._clock = clock
        self._good_at: float | None = None
        self._asked_at = -FRESH_S
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether the last question was answered."""
        return self._good_at is not None and not self.problem

    @property
    def age_s(self) -> float | None:
        """Seconds since the last good answer; ``None`` before the first."""
        return None if self._good_at is None else max(self._clock() - self._good_at, 0.0)

    def refresh(self, fresh_s: float = FRESH_S) -> asyncio.Task[None] | None:
        """Asks again, unless a question is out or was answered just now; the task to wait for, if there is one."""
        if self._task is not None and not self._task.done():
            return self._task
        if self._clock() - self._asked_at < fresh_s:
            return None
        self._asked_at = self._clock()
        self._task = asyncio.get_running_loop().create_task(self._refresh())
        return self._task

    def cancel(self) -> None:
        """Gives up the question that is out."""
        if self._task is not None:
            self._task.cancel()

    async def _refresh(self) -> None:
        try:
            self.value = await self._ask()
        except (RaydnsError, OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self.problem = str(error)
            return
        except Exception as error:
            # The page must show what is left, whatever a process of another version answers.
            log.exception("source_failed", extra={"source": self.name})
            self.problem = f"{type(error).__name__}: {error}"
            return
        self._good_at = self._clock()
        self.problem = ""


class Sources:
    """All sources of one machine.

    Args:
        state_dir: where the control sockets and what was last known are.
        clock: monotonic seconds.
    """

    def __init__(self, state_dir: StateDir, clock: Clock) -> None:
        self._state_dir = state_dir
        self._known_mark: tuple[int, int] | None = None
        self._known: Snapshot | None = None

        def status(path: Path) -> Callable[[], Awaitable[dict[str, Any]]]:
            return lambda: control.call(path, "status", timeout_s=CALL_TIMEOUT_S)

        self.node: Source[dict[str, Any]] = Source("node", status(state_dir.node_socket), {}, clock)
        self.ingress: Source[dict[str, Any]] = Source("ingress", status(state_dir.ingress_socket), {}, clock)
        self.agent: Source[dict[str, Any]] = Source("agent", status(state_dir.agent_socket), {}, clock)
        self.ingress_metrics: Source[list[Family]] = Source(
            "ingress_metrics", lambda: _metrics(state_dir.ingress_socket), [], clock
        )
        self.agent_metrics: Source[list[Family]] = Source(
            "agent_metrics", lambda: _metrics(state_dir.agent_socket), [], clock
        )
        self.recent: Source[list[dict[str, Any]]] = Source("recent", self._ask_recent, [], clock)
        self.known: Source[Snapshot | None] = Source("known", self._ask_known, None, clock)

    @property
    def all(self) -> tuple[Source[Any], ...]:
        """Every source."""
        return (
            self.node, self.ingress, self.agent, self.ingress_metrics, self.agent_metrics, self.recent, self.known,
        )  # fmt: skip

    def close(self) -> None:
        """Gives up all questions that are out."""
        for source in self.all:
            source.cancel()

    async def _ask_recent(self) -> list[dict[str, Any]]:
        answer = await control.call(self._state_dir.ingress_socket, "recent", {"limit": RECENT_SHOWN})
        found = answer.get("queries", [])
        if not isinstance(found, list):
            raise WireError("the answer of `recent` holds no list of queries")
        return [query for query in found if isinstance(query, dict)]

    async def _ask_known(self) -> Snapshot | None:
        """The snapshot on disk, read again only when its file has changed."""
        mark = await asyncio.to_thread(_mark, self._state_dir.known)
        if mark != self._known_mark:
            self._known = await asyncio.to_thread(lambda: Known(self._state_dir).load())
            self._known_mark = mark
        return self._known


async def wait(tasks: Iterable[asyncio.Task[None] | None], timeout_s: float) -> None:
    """Waits for refreshes; those that take longer go on, and their last known value is used meanwhile."""
    pending = [task for task in tasks if task is not None]
    if pending:
        await asyncio.wait(pending, timeout=timeout_s)


async def _metrics(path: Path) -> list[Family]:
    answer = await control.call(path, "metrics", timeout_s=CALL_TIMEOUT_S)
    return msgspec.msgpack.decode(answer.get("families", b"\x90"), type=list[Family])


def _mark(known: Path) -> tuple[int, int]:
    try:
        status = (known / "snapshot.msgpack").stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ino

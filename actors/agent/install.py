"""Installing a delta on a machine: remember it on disk first, then tell everybody who reads from there.

The order matters: a process that starts between the two steps reads the new state by itself, and one that is
told reads what has been written. A reader that does not answer in time is reported, not waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from raydns.schemas.cluster import Delta, Snapshot, Version
from raydns.schemas.errors import RaydnsError

log = logging.getLogger(__name__)

NOTHING: Final = Version(-1, 0)


class Memory(Protocol):
    """What the machine last knew, as ``nodes.known.Known`` keeps it."""

    def load(self) -> Snapshot | None:
        """The newest usable snapshot."""

    def save(self, snapshot: Snapshot) -> None:
        """Makes it durable."""


Reader = Callable[[], Awaitable[Any]]
"""Tells one process to re-read what is known; raises where it cannot."""


@dataclass(slots=True)
class Installer:
    """Keeps the machine at the newest snapshot that the controller has given."""

    memory: Memory
    refresh_timeout_s: float = 3.0
    snapshot: Snapshot | None = None
    installed: Version = NOTHING
    """What every reader of this machine has confirmed."""
    problems: dict[str, str] = field(default_factory=dict)
    """Reader → why it does not have the newest state."""

    def remember(self) -> None:
        """Reads what the disk holds, at the agent's own start."""
        self.snapshot = self.memory.load()

    def known_versions(self) -> dict[str, Version]:
        """Section versions for the next poll; nothing known asks for everything."""
        return dict(self.snapshot.section_versions) if self.snapshot is not None else {}

    async def install(self, delta: Delta, readers: Mapping[str, Reader]) -> None:
        """Merges and saves a delta, then refreshes every reader."""
        self.snapshot = self.snapshot.merge(delta) if self.snapshot is not None else delta.snapshot()
        await asyncio.to_thread(self.memory.save, self.snapshot)
        await self.refresh(readers)

    async def refresh(self, readers: Mapping[str, Reader]) -> None:
        """Tells every reader; counts the state as installed even where one failed, and says so."""
        if self.snapshot is None:
            return
        version = self.snapshot.version
        names = list(readers)
        results = await asyncio.gather(
            *(asyncio.wait_for(readers[name](), self.refresh_timeout_s) for name in names), return_exceptions=True
        )
        self.problems = {}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, BaseException):
                # A dead or restarting reader reads the disk when it comes back, so it is not behind for long.
                self.problems[name] = describe(result)
                log.warning("a reader did not take the new state", extra={"reader": name, "problem": describe(result)})
        self.installed = version


def describe(error: BaseException) -> str:
    """One line about an error, for status and log."""
    if isinstance(error, RaydnsError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")

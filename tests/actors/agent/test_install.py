"""How a machine takes in a new state."""

from __future__ import annotations

import asyncio

from raydns.actors.agent.install import Installer
from raydns.schemas.cluster import Flush, Snapshot, Version, first_snapshot
from raydns.schemas.config import Config


class Memory:
    """A disk that remembers in which order things happened."""

    def __init__(self, log: list[str], snapshot: Snapshot | None = None) -> None:
        self.log = log
        self.snapshot = snapshot

    def load(self) -> Snapshot | None:
        """The newest."""
        return self.snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Remembers."""
        self.log.append(f"saved {snapshot.version.number}")
        self.snapshot = snapshot


def newer(snapshot: Snapshot) -> Snapshot:
    """The next version of a snapshot, with one flush more."""
    version = snapshot.version.next()
    changed = snapshot.merge_version(snapshot.version)
    changed.flushes = [*snapshot.flushes, Flush(b"\x00", True, version)]
    changed.version = version
    changed.section_versions = {**snapshot.section_versions, "flushes": version}
    return changed


async def test_a_state_is_saved_before_anybody_is_told() -> None:
    """Proves the order disk first, readers second, and that a delta changes only its sections."""
    log: list[str] = []
    first = first_snapshot(Config().model_dump(mode="json"), 1)
    installer = Installer(Memory(log, first))
    installer.remember()

    async def reader() -> None:
        log.append("told")

    second = newer(first)
    delta = second.newer_than(installer.known_versions())
    assert list(delta.sections) == ["flushes"]
    await installer.install(delta, {"ingress": reader})
    assert log == ["saved 2", "told"]
    assert installer.installed == Version(0, 2)
    assert installer.snapshot == second


async def test_a_machine_without_memory_takes_a_whole_snapshot() -> None:
    """Proves that the first delta holds every section."""
    log: list[str] = []
    installer = Installer(Memory(log))
    installer.remember()
    assert installer.known_versions() == {}
    first = first_snapshot({}, 1)
    await installer.install(first.newer_than({}), {})
    assert installer.snapshot == first


async def test_a_reader_that_fails_or_hangs_holds_up_nobody() -> None:
    """Proves that the others get the state in time and that status can say who did not."""
    installer = Installer(Memory([], first_snapshot({}, 1)), refresh_timeout_s=0.05)
    installer.remember()
    told: list[str] = []

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise ConnectionResetError("gone")

    async def works() -> None:
        told.append("yes")

    await installer.refresh({"query:0.g1": hangs, "cache:0.g1": fails, "ingress": works})
    assert told == ["yes"]
    assert installer.problems == {"query:0.g1": "no answer in time", "cache:0.g1": "ConnectionResetError: gone"}
    assert installer.installed == Version(0, 1)

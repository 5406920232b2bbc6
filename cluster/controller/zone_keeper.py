"""Keeps the zone shards holding what the configuration names and operators loaded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from ray.exceptions import RayError

from raydns.actors.agent.install import describe
from raydns.schemas import names
from raydns.schemas.cluster import Snapshot, ZoneEntry
from raydns.schemas.config import Config
from raydns.schemas.errors import RaydnsError, UnreachableError

from . import events as ev
from .hands import Hands

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S: Final = 600.0
CALL_TIMEOUT_S: Final = 30.0


class ZoneKeeper:
    """Loads and unloads zones at their shards, and tells the core what the shards then hold.

    Args:
        hands: to reach the shards.
        tell: takes the core's events.
        snapshot: the present snapshot.
        actor_of: zone shard → name of its actor; ``None`` where there is none yet.
        ring_seed: places new zones.
    """

    def __init__(
        self,
        hands: Hands,
        tell: Callable[[ev.Event], None],
        snapshot: Callable[[], Snapshot],
        actor_of: Callable[[int], str | None],
        ring_seed: int,
    ) -> None:
        self._hands = hands
        self._tell = tell
        self._snapshot = snapshot
        self._actor_of = actor_of
        self._ring_seed = ring_seed
        self.problems: dict[str, str] = {}
        """Zone of the configuration → why it is not as its file says."""

    async def learn(self, shard: int) -> None:
        """Asks a shard what it holds."""
        data = await self._hands.call(self._actor(shard), "zones", timeout_s=CALL_TIMEOUT_S)
        self._tell(ev.ZonesReported(shard, msgspec.msgpack.decode(data, type=list[ZoneEntry])))

    async def load(self, apex: bytes, text: str, file: str) -> ZoneEntry:
        """Loads one zone; raises ``ZoneFileError`` with everything that is wrong with it."""
        shard = self.shard_of(apex)
        data = await self._hands.call(self._actor(shard), "load", apex, text, file, timeout_s=LOAD_TIMEOUT_S)
        await self.learn(shard)
        return msgspec.msgpack.decode(data, type=ZoneEntry)

    async def unload(self, apex: bytes) -> None:
        """Takes a zone away."""
        shard = self.shard_of(apex)
        await self._hands.call(self._actor(shard), "unload", apex, timeout_s=CALL_TIMEOUT_S)
        await self.learn(shard)

    async def load_configured(self, config: Config, shard: int | None = None) -> None:
        """Loads every zone of the configuration, or those of one shard; a faulty one keeps its old state."""
        for zone in config.zones.files:
            apex = names.key(names.from_text(zone.name))
            owner = self.shard_of(apex)
            if (shard is not None and owner != shard) or self._actor_of(owner) is None:
                continue  # a shard that is not there yet gets its zones when it starts
            try:
                text = await asyncio.to_thread(Path(zone.file).read_text, "utf-8", "surrogateescape")
                await self.load(apex, text, zone.file)
                self.problems.pop(zone.name, None)
            except OSError as error:
                self.problems[zone.name] = f"{zone.file}: {error.strerror}"
                log.error("a zone's file cannot be read", extra={"zone": zone.name, "problem": str(error)})
            except (RaydnsError, RayError, TimeoutError) as error:
                self.problems[zone.name] = describe(error)
                log.error("a zone cannot be loaded", extra={"zone": zone.name, "problem": describe(error)})

    async def follow(self, before: Config, after: Config) -> None:
        """What a changed configuration means: zones it no longer names go, all others are loaded anew."""
        wanted = {zone.name for zone in after.zones.files}
        for zone in before.zones.files:
            if zone.name not in wanted:
                self.problems.pop(zone.name, None)
                await self.unload(names.key(names.from_text(zone.name)))
        await self.load_configured(after)

    def shard_of(self, apex: bytes) -> int:
        """Where a zone lives, or would be placed."""
        for zone in self._snapshot().zones:
            if zone.apex == apex:
                return zone.shard
        return names.ring_hash(apex, self._ring_seed) % max(self._snapshot().scale.zone, 1)

    def _actor(self, shard: int) -> str:
        actor = self._actor_of(shard)
        if actor is None:
            hint = "try again in a moment"
            raise UnreachableError("the zone shard is not there yet", where=f"zone:{shard}", hint=hint)
        return actor


def as_dict(zone: ZoneEntry) -> dict[str, Any]:
    """A zone as commands show it."""
    return {
        "name": names.to_text(zone.apex),
        "serial": zone.serial,
        "epoch": zone.epoch,
        "shard": zone.shard,
        "records": zone.records,
        "state": zone.state,
        "problem": zone.problem,
        "image": zone.image.sha256 if zone.image is not None else "",
    }

"""The controller's Ray shell.

Hard state: none of its own; the agents keep the snapshots, and each start adopts the newest of a majority of
the machines. Soft state: what Ray and the agents reported since. Shares the fate of the head node; Ray restarts
it there. A method that returns has been carried out; those that say so have also waited until every living
machine installed the result. All of them may be called again: the result is the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
from pydantic import ValidationError
from ray.exceptions import RayError

from raydns.actors.agent.install import describe
from raydns.actors.query.forward import own, rules
from raydns.actors.ring import compare
from raydns.nodes import logs
from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.schemas import names
from raydns.schemas.cluster import LoadReport, Snapshot, Version
from raydns.schemas.config import Config
from raydns.schemas.errors import CommandError, ConfigError, RaydnsError, UnreachableError, ZoneFileError

from . import events as ev
from . import zone_keeper
from .core import POOL_KINDS, ControllerCore
from .hands import Hands

log = logging.getLogger(__name__)

STEP_S: Final = 0.5
INSTALL_WAIT_S: Final = 3.0


class Controller:
    """See the head of this file.

    Args:
        state_dir: the head machine's state directory.
        namespace: Ray namespace of our actors.
    """

    def __init__(self, state_dir: str, namespace: str) -> None:
        self._place = place = StateDir(state_dir)
        known = Known(place).load()
        config = Config.model_validate(known.config) if known is not None else Config()
        logs.setup(config.telemetry.log, "controller")
        seed = secret.ring_seed(secret.load(place.secret))
        self._core = ControllerCore(place.stream_socket, seed)
        self._hands = Hands(place, namespace)
        self._zones = zone_keeper.ZoneKeeper(self._hands, self._tell, self._snapshot, self._zone_actor, seed)
        self._published = asyncio.Event()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._spawn(self._run())

    # -- loop --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while self._core.snapshot is None:
            try:
                await self._recover()
            except (RayError, RaydnsError, TimeoutError, ValidationError) as error:
                log.warning("cannot recover yet", extra={"problem": describe(error)})
                await asyncio.sleep(0.5)
        while True:
            self._wake.clear()
            try:
                self._tell(ev.NodesSeen(await self._hands.nodes()))
            except TimeoutError:
                log.warning("Ray does not tell its nodes")
            before = self._core.version
            for command in self._core.step(time.monotonic()):
                self._spawn(self._carry_out(command))
            self._announce(before)
            try:
                await asyncio.wait_for(self._wake.wait(), STEP_S)
            except TimeoutError:
                continue

    async def _recover(self) -> None:
        """Makes the agents, asks what they keep, and adopts the newest of a majority."""
        alive = await self._hands.nodes()
        for node in sorted(alive):
            self._hands.create_agent(node)
        remembered = await self._hands.kept_snapshots(alive)
        newest = max(remembered, key=lambda s: s.version, default=None)
        members = len({m.name for m in newest.machines}) if newest is not None else 0
        if members > 2 and len(remembered) * 2 <= members:
            hint = "boot the others: what they remember may be newer"
            raise CommandError(f"only {len(remembered)} of {members} machines remember the state", hint=hint)
        existing = await self._hands.existing()
        self._core.adopt(remembered, existing, time.monotonic())
        for stray in self._core.strays(existing):
            await self._hands.forget(stray)
        for member in self._core.members.values():
            if member.endpoint.kind == "zone":
                self._spawn(self._take_up_zones(member.endpoint.index))
        log.info("controller recovered", extra={"version": list(self._core.version), "machines": len(remembered)})
        self._announce(None)

    async def _carry_out(self, command: ev.Command) -> None:
        match command:
            case ev.EnsureAgent(node):
                self._hands.create_agent(node)
            case ev.CreateActor(endpoint):
                try:
                    await self._hands.create(endpoint)
                    if endpoint.kind == "zone":
                        await self._zones.learn(endpoint.index)
                except (RayError, RaydnsError, TimeoutError, ValueError) as error:
                    log.error("an actor does not start", extra={"actor": endpoint.actor, "problem": describe(error)})
                    self._tell(ev.ActorLost(endpoint.actor, describe(error)))
                    return
                self._tell(ev.ActorReady(endpoint.actor))
                if endpoint.kind == "zone":
                    await self._zones.load_configured(self._core.config, endpoint.index)
            case ev.StopActor(endpoint):
                await self._hands.stop(endpoint)
                self._tell(ev.ActorStopped(endpoint.actor))
            case ev.KillProcess(endpoint, reason):
                await self._hands.kill(endpoint, reason)
            case ev.RemoveActor(endpoint):
                await self._hands.kill(endpoint, "removed")
                await self._hands.forget(endpoint.actor)

    async def _take_up_zones(self, shard: int) -> None:
        """After a new start: a shard that lives knows its zones; the configuration may have changed meanwhile."""
        await self._zones.learn(shard)
        await self._zones.load_configured(self._core.config, shard)

    def _tell(self, event: ev.Event) -> None:
        before = self._core.version
        for command in self._core.handle(event, time.monotonic()):
            self._spawn(self._carry_out(command))
        self._announce(before)

    def _announce(self, before: Version | None) -> None:
        if before != self._core.version:
            self._published.set()
            self._published = asyncio.Event()
            self._wake.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the controller failed", exc_info=error)

    def _zone_actor(self, shard: int) -> str | None:
        members = self._core.members.values()
        found = (m.endpoint.actor for m in members if m.endpoint.kind == "zone" and m.endpoint.index == shard)
        return next(found, None)

    def _snapshot(self) -> Snapshot:
        if self._core.snapshot is None:
            hint = "try again in a moment"
            raise UnreachableError("the controller is still recovering", where="controller", hint=hint)
        return self._core.snapshot

    # -- called by agents and the health monitor ---------------------------------------------------------

    async def ready(self) -> bool:
        """Whether it has recovered its state."""
        return self._core.snapshot is not None

    async def poll(
        self, report: bytes, identity: dict[str, Any], known: dict[str, tuple[int, int]], wait_s: float
    ) -> bytes:
        """The long poll of an agent.

        Args:
            report: msgpack of ``LoadReport``.
            identity: ``address``, ``head``, ``labels`` of the machine.
            known: section → version that it has.
            wait_s: how long to wait for something newer.

        Returns:
            msgpack of ``Delta``, without sections if nothing is newer; empty before recovery.
        """
        deadline = time.monotonic() + wait_s
        versions = {section: Version(*version) for section, version in known.items()}
        labels = tuple(sorted(identity["labels"].items()))
        told = msgspec.msgpack.decode(report, type=LoadReport)
        reported = False
        while True:
            published = self._published
            data = b""
            if self._core.snapshot is not None:
                if not reported:
                    self._tell(ev.MachineReported(told, identity["address"], bool(identity["head"]), labels))
                    reported = True
                delta = self._core.snapshot.newer_than(versions)
                data = msgspec.msgpack.encode(delta)
                if delta.sections:
                    return data
            left = deadline - time.monotonic()
            if left <= 0:
                return data
            try:
                await asyncio.wait_for(published.wait(), left)
            except TimeoutError:
                continue

    async def observed(self, observations: list[tuple[str, bool, int, str]]) -> None:
        """What the health monitor saw: (actor, healthy, failures in a row, reason)."""
        if self._core.snapshot is not None:
            self._tell(ev.HealthReported([ev.Observation(*o) for o in observations]))

    # -- an operator's commands, relayed by an agent -----------------------------------------------------

    async def scale(self, params: dict[str, Any]) -> dict[str, Any]:
        """``kind``, ``count``: changes how many actors there are; returns once it is decided and published."""
        self._snapshot()
        kind, count = params["kind"], int(params["count"])
        self._tell(ev.ScaleAsked(kind, count))
        self._wake.set()
        return {"kind": kind, "count": count, "installed": await self._installed()}

    async def cache_flush(self, params: dict[str, Any]) -> dict[str, Any]:
        """``name`` (text), ``subtree``: waits until every living machine has dropped the entries."""
        self._snapshot()
        name = names.key(names.from_text(params["name"]))
        self._tell(ev.FlushAsked(name, bool(params.get("subtree"))))
        return {"name": names.to_text(name), "installed": await self._installed()}

    async def zone_load(self, params: dict[str, Any]) -> dict[str, Any]:
        """``apex`` (text), ``text``, ``file``: loads a zone and waits until machines serve it."""
        self._snapshot()
        if not params.get("apex"):
            raise ZoneFileError("the zone's name is missing", where=params["file"], hint="--origin NAME")
        apex = names.key(names.from_text(params["apex"]))
        entry = await self._zones.load(apex, params["text"], params["file"])
        return {"zone": zone_keeper.as_dict(entry), "installed": await self._installed()}

    async def zone_list(self, _params: dict[str, Any]) -> dict[str, Any]:
        """All zones."""
        return {"zones": [zone_keeper.as_dict(z) for z in self._snapshot().zones], "problems": self._zones.problems}

    async def zone_show(self, params: dict[str, Any]) -> dict[str, Any]:
        """``name``: one zone."""
        apex = names.key(names.from_text(params["name"]))
        for zone in self._snapshot().zones:
            if zone.apex == apex:
                return {"zone": zone_keeper.as_dict(zone)}
        raise CommandError("no such zone is served here", where=names.to_text(apex), hint="`raydns zone list`")

    async def config_reload(self, params: dict[str, Any]) -> dict[str, Any]:
        """``config``: a whole configuration; waits until every living machine has it."""
        self._snapshot()
        try:
            config = Config.model_validate(params["config"])
        except ValidationError as error:
            raise ConfigError(str(error), where="config") from None
        listening = own.listening(config.server, self._place.run / "addresses.json")
        if found := rules.problems(config.forward, listening):
            raise ConfigError("; ".join(str(problem) for problem in found), where="forward")
        before = self._core.config
        if config != before:
            self._tell(ev.ConfigChanged(config))
        await self._zones.follow(before, config)
        return {"installed": await self._installed(), "zone_problems": self._zones.problems}

    async def config_show(self, _params: dict[str, Any]) -> dict[str, Any]:
        """The configuration in force."""
        version = self._snapshot().version
        return {"config": self._core.config.model_dump(mode="json"), "version": list(version)}

    async def actors(self, _params: dict[str, Any]) -> dict[str, Any]:
        """All actors with their state."""
        return {"actors": (await self.status())["actors"]}

    async def status(self) -> dict[str, Any]:
        """Everything that ``raydns status`` shows of the cluster."""
        snapshot, core, now = self._snapshot(), self._core, time.monotonic()
        living = {m.name for m in core.machines(now)}
        return {
            "pid": os.getpid(),
            "version": list(snapshot.version),
            "machines": [
                {
                    "name": name,
                    "node": report.node,
                    "version": list(report.version),
                    "ingress_ready": report.ingress_ready,
                    "queries_per_second": report.queries_per_second,
                    "alive": name in living,
                }
                for name, report in sorted(core.reports().items())
            ],
            "actors": [
                {
                    "name": m.endpoint.actor,
                    "kind": m.endpoint.kind,
                    "machine": m.endpoint.machine,
                    "state": m.state.value,
                    "since_s": round(now - m.since, 1),
                    "problem": m.problem,
                    "statistics": core.statistics(m.endpoint.actor),
                }
                for m in sorted(core.members.values(), key=lambda m: (m.endpoint.kind, m.endpoint.index))
            ],
            "scale": {kind: core.wanted(kind) for kind in POOL_KINDS},
            "ring": {str(index): share for index, share in compare.shares(snapshot.ring).items()},
            "zones": len(snapshot.zones),
            "zone_problems": self._zones.problems,
            "events": [
                {"ago_s": round(now - h.time, 1), "what": h.what, "actor": h.actor, "why": h.why}
                for h in core.happenings
            ],
        }

    async def _installed(self) -> bool:
        """Waits until every living machine has the present version; False after ``INSTALL_WAIT_S``."""
        version = self._core.version
        deadline = time.monotonic() + INSTALL_WAIT_S
        while time.monotonic() < deadline:
            if self._core.installed_everywhere(version, time.monotonic()):
                return True
            await asyncio.sleep(0.02)
        return False

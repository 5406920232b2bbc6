"""The agent's Ray shell.

Hard state: none (the snapshot is on the machine's disk). Soft state: handles, the last statistics. Shares the
fate of its node; Ray restarts it in place, and while it is away the machine serves what it has. All methods are
idempotent; success of a relayed command means that the controller has carried it out and, where the command
says so, that every living machine has installed the result.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError, RayTaskError

from raydns.nodes import control, logs
from raydns.nodes.known import Known
from raydns.nodes.metrics import Family, Metrics, merge
from raydns.nodes.paths import StateDir
from raydns.schemas.cluster import Delta, Endpoint, LoadReport, Snapshot
from raydns.schemas.config import Config
from raydns.schemas.errors import RaydnsError, UnreachableError

from .images import ImageWatch
from .install import Installer, Reader, describe

log = logging.getLogger(__name__)

POLL_WAIT_S = 1.0  # also the period of load reports
CALL_TIMEOUT_S = 2.0
COMMAND_TIMEOUT_S = 60.0
COMMANDS = ("scale", "zone.load", "zone.list", "zone.show", "cache.flush", "config.reload", "config.show", "actors")


class AgentActor:
    """See the head of this file.

    Args:
        state_dir: the machine's state directory.
        namespace: Ray namespace of our actors.
    """

    def __init__(self, state_dir: str, namespace: str) -> None:
        self._state_dir = StateDir(state_dir)
        self._namespace = namespace
        self._installer = Installer(Known(self._state_dir))
        self._installer.remember()
        self._images = ImageWatch(Known(self._state_dir).images)  # a memory of its own: it is read in a thread
        config = self._config()
        logs.setup(config.telemetry.log, "agent")
        self._node = str(ray.get_runtime_context().get_node_id())
        self._machine = config.server.name or socket.gethostname()
        self._identity = {
            "address": config.cluster.node_address,
            "head": config.cluster.head,
            "labels": config.cluster.labels,
        }
        self._handles: dict[str, Any] = {}
        self._statistics: dict[str, dict[str, float]] = {}
        self._families: tuple[float, list[Family]] = (0.0, [])
        self._ingress: dict[str, Any] = {}
        self._polled_at = 0.0
        self._metrics = Metrics()
        self._polls = self._metrics.counter(
            "raydns_agent_polls_total", "Polls of the controller, by outcome.", "outcome"
        )
        self._metrics.gauge(
            "raydns_agent_staleness_seconds",
            "Time since the controller was last heard, in seconds.",
            lambda: time.monotonic() - self._polled_at if self._polled_at else -1.0,
        )
        methods: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "status": self._status,
            "metrics": self._collect_metrics,
        }
        methods.update({name: self._relay(name) for name in COMMANDS})
        self._control = control.ControlServer(self._state_dir.agent_socket, methods)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._serve()),
            loop.create_task(self._poll_forever()),
            loop.create_task(self._watch()),
        ]

    # -- called by the controller ------------------------------------------------------------------------

    async def ready(self) -> bool:
        """Whether it runs."""
        return True

    async def kept(self) -> bytes:
        """The snapshot that this machine keeps, msgpack; empty where it has none."""
        snapshot = await asyncio.to_thread(Known(self._state_dir).load)
        return msgspec.msgpack.encode(snapshot) if snapshot is not None else b""

    async def kill_process(self, actor: str) -> bool:
        """Ends an actor's process with SIGKILL, which also ends one that is stopped; False: its pid is unknown."""
        pid = int(self._statistics.get(actor, {}).get("pid", 0))
        if pid <= 1:
            return False
        log.warning("killing an actor's process", extra={"actor": actor, "pid": pid})
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    # -- loops -------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        await self._control.start()

    async def _poll_forever(self) -> None:
        """Asks the controller for what is new, for ever; its absence only means that nothing changes."""
        pause = 0.1
        await self._installer.refresh(self._readers())
        while True:
            try:
                controller = await self._handle("controller")
                known = {section: tuple(v) for section, v in self._installer.known_versions().items()}
                reference = controller.poll.remote(self._report(), self._identity, known, POLL_WAIT_S)
                data = await asyncio.wait_for(reference, POLL_WAIT_S + 10)
            except (RayError, TimeoutError, UnreachableError, OSError) as error:
                self._polls.inc("failed")
                self._handles.pop("controller", None)
                log.info("the controller does not answer", extra={"problem": describe(error)})
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            pause = 0.1
            self._polls.inc("answered")
            self._polled_at = time.monotonic()
            if data:
                delta = msgspec.msgpack.decode(data, type=Delta)
                if delta.sections:
                    await self._installer.install(delta, self._readers())

    async def _watch(self) -> None:
        """Gathers the statistics of this machine's actors and of its ingress, once a second."""
        while True:
            names = [e.actor for e in self._local()]
            values = await asyncio.gather(*(self._ask(name, "statistics") for name in names))
            # What does not answer keeps its last known statistics: its pid is needed to end it.
            known = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            self._statistics = {name: known.get(name, self._statistics.get(name, {})) for name in names}
            try:
                self._ingress = await control.call(self._state_dir.ingress_socket, "status", timeout_s=CALL_TIMEOUT_S)
            except RaydnsError as error:
                self._ingress = {"problem": str(error)}
            await self._mend_images()
            await asyncio.sleep(1.0)

    async def _mend_images(self) -> None:
        """Has the zone shards make images again that this machine has lost, then lets the ingress read them."""
        snapshot = self._installer.snapshot
        urgent = bool(self._ingress.get("images_missing"))
        if snapshot is None or not self._images.due(time.monotonic(), urgent=urgent):
            return
        missing, news = await asyncio.to_thread(self._images.look, snapshot.zones)
        if missing and news:
            log.error("images are missing; their zone shards are told", extra={"sha256": missing[:8]})
        if missing:
            await asyncio.gather(*(self._ask(e.actor, "refresh") for e in self._local() if e.kind == "zone"))
            await asyncio.to_thread(self._images.look, snapshot.zones)
        if missing or urgent:
            try:
                await control.call(self._state_dir.ingress_socket, "refresh", timeout_s=CALL_TIMEOUT_S)
            except RaydnsError as error:
                log.warning("the ingress did not re-read its images", extra={"problem": str(error)})

    # -- inside ------------------------------------------------------------------------------------------

    def _config(self) -> Config:
        snapshot = self._installer.snapshot
        return Config.model_validate(snapshot.config) if snapshot is not None else Config()

    def _local(self) -> list[Endpoint]:
        snapshot: Snapshot | None = self._installer.snapshot
        return [e for e in snapshot.endpoints if e.machine == self._machine] if snapshot is not None else []

    def _readers(self) -> dict[str, Reader]:
        async def ingress() -> None:
            answer = await control.call(self._state_dir.ingress_socket, "refresh", timeout_s=CALL_TIMEOUT_S)
            for refusal in answer.get("refusals", []):
                log.error("the ingress refused an image", extra={"refusal": refusal})

        def actor(name: str) -> Reader:
            async def refresh() -> None:
                await (await self._handle(name)).refresh.remote()

            return refresh

        readers: dict[str, Reader] = {"ingress": ingress}
        readers.update({e.actor: actor(e.actor) for e in self._local()})
        return readers

    async def _handle(self, name: str) -> Any:
        handle = self._handles.get(name)
        if handle is None:
            try:
                handle = await asyncio.to_thread(ray.get_actor, name, self._namespace)
            except ValueError:
                raise UnreachableError("there is no such actor", where=name) from None
            self._handles[name] = handle
        return handle

    async def _ask(self, name: str, method: str) -> Any:
        try:
            handle = await self._handle(name)
            return await asyncio.wait_for(getattr(handle, method).remote(), CALL_TIMEOUT_S)
        except (RayError, RaydnsError, TimeoutError):
            self._handles.pop(name, None)
            return None

    def _report(self) -> bytes:
        report = LoadReport(
            machine=self._machine,
            node=self._node,
            version=self._installer.installed,
            ingress_ready=bool(self._ingress.get("ready")),
            queries_per_second=float(self._ingress.get("queries_per_second", 0.0)),
            misses_per_second=float(self._ingress.get("misses_per_second", 0.0)),
            in_flight=int(self._ingress.get("in_flight", 0)),
            actors=self._statistics,
        )
        return msgspec.msgpack.encode(report)

    async def _status(self, _params: dict[str, Any]) -> dict[str, Any]:
        try:
            controller = await self._handle("controller")
            cluster = await asyncio.wait_for(controller.status.remote(), CALL_TIMEOUT_S)
        except (RayError, TimeoutError, UnreachableError) as error:
            self._handles.pop("controller", None)
            cluster = {"problem": describe(error)}
        return {
            "machine": self._machine,
            "node": self._node,
            "pid": os.getpid(),
            "version": list(self._installer.installed),
            "staleness_s": round(time.monotonic() - self._polled_at, 3) if self._polled_at else None,
            "problems": self._installer.problems,
            "actors": self._statistics,
            "cluster": cluster,
        }

    async def _collect_metrics(self, _params: dict[str, Any]) -> dict[str, Any]:
        at, families = self._families
        if time.monotonic() - at > 1.0:
            names = [e.actor for e in self._local()]
            groups = [self._metrics.families()]
            for name, data in zip(names, await asyncio.gather(*(self._ask(n, "metrics") for n in names)), strict=True):
                if data is not None:
                    groups.append([_labelled(f, name) for f in msgspec.msgpack.decode(data, type=list[Family])])
            families = merge(groups)
            self._families = (time.monotonic(), families)
        return {"families": msgspec.msgpack.encode(families)}

    def _relay(self, name: str) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
        method = name.replace(".", "_")

        async def relay(params: dict[str, Any]) -> dict[str, Any]:
            controller = await self._handle("controller")
            try:
                reference = getattr(controller, method).remote(params)
                answer: dict[str, Any] = await asyncio.wait_for(reference, COMMAND_TIMEOUT_S)
            except RayTaskError as error:
                if isinstance(error.cause, RaydnsError):
                    raise error.cause from None
                raise
            except (RayError, TimeoutError) as error:
                self._handles.pop("controller", None)
                hint = "it comes back by itself; see `raydns status`"
                raise UnreachableError("the controller does not answer", where="controller", hint=hint) from error
            return answer

        return relay


def _labelled(family: Family, actor: str) -> Family:
    for sample in family.samples:
        sample.labels.setdefault("actor", actor)
    return family

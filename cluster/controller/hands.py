"""What the controller does to Ray: find, create, stop, kill and forget actors. Knows no policy.

Every method may block on Ray, which blocks for long when the GCS is away; so each runs in a thread or has a
deadline, and none is called from a query's path.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import msgspec
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydns.actors.agent.actor import AgentActor
from raydns.actors.agent.install import describe
from raydns.actors.cache.actor import CacheActor
from raydns.actors.health.actor import HealthActor
from raydns.actors.llm.actor import LLMActor
from raydns.actors.query.actor import QueryActor
from raydns.actors.zone.actor import ZoneActor
from raydns.nodes.paths import StateDir
from raydns.schemas.cluster import Endpoint, Snapshot
from raydns.schemas.errors import RaydnsError, UnreachableError

log = logging.getLogger(__name__)

NODES_TIMEOUT_S: Final = 2.0
READY_TIMEOUT_S: Final = 30.0
DRAIN_S: Final = 20.0
KEPT_TIMEOUT_S: Final = 10.0

CLASSES: Final[dict[str, Any]] = {
    "cache": CacheActor,
    "query": QueryActor,
    "zone": ZoneActor,
    "llm": LLMActor,
    "health": HealthActor,
}


class Hands:
    """Ray, as far as the controller needs it.

    Args:
        state_dir: of the head; every machine has its own under the same path.
        namespace: of our actors.
    """

    def __init__(self, state_dir: StateDir, namespace: str) -> None:
        self._state_dir = state_dir
        self._namespace = namespace
        self._handles: dict[str, Any] = {}

    async def nodes(self) -> frozenset[str]:
        """Ids of the nodes that Ray believes to be alive; raises ``TimeoutError`` where the GCS is away."""
        nodes = await asyncio.wait_for(asyncio.to_thread(ray.nodes), NODES_TIMEOUT_S)
        return frozenset(str(n["NodeID"]) for n in nodes if n["Alive"])

    async def existing(self) -> list[str]:
        """Names of all actors in our namespace."""
        found = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        return [str(a["name"]) for a in found if a["namespace"] == self._namespace]

    async def handle(self, name: str) -> Any:
        """A handle of an actor by name; raises ``UnreachableError`` where Ray knows none."""
        handle = self._handles.get(name)
        if handle is None:
            try:
                handle = await asyncio.to_thread(ray.get_actor, name, self._namespace)
            except ValueError:
                raise UnreachableError("there is no such actor", where=name) from None
            self._handles[name] = handle
        return handle

    async def call(self, name: str, method: str, *arguments: Any, timeout_s: float) -> Any:
        """Calls a method; an error of ours that it raised is raised here as itself."""
        handle = await self.handle(name)
        try:
            return await asyncio.wait_for(getattr(handle, method).remote(*arguments), timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, RaydnsError):
                raise error.cause from None
            raise

    def create_agent(self, node: str) -> None:
        """Makes sure that a node has its agent."""
        options = self._options(f"agent:{node}", node)
        ray.remote(AgentActor).options(**options, max_concurrency=64).remote(str(self._state_dir.path), self._namespace)

    async def kept_snapshots(self, nodes: frozenset[str]) -> list[Snapshot]:
        """What the agents of these nodes keep on their disks; those that do not answer in time are left out."""
        calls = [self.call(f"agent:{node}", "kept", timeout_s=KEPT_TIMEOUT_S) for node in sorted(nodes)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [msgspec.msgpack.decode(a, type=Snapshot) for a in answers if isinstance(a, bytes) and a]

    async def create(self, endpoint: Endpoint) -> None:
        """Creates an actor and waits until it is ready.

        Raises:
            RayError, TimeoutError, ValueError: it does not start; Ray has been told to forget it.
        """
        options = self._options(endpoint.actor, endpoint.node)
        try:
            cls = ray.remote(CLASSES[endpoint.kind]).options(**options)
            handle = cls.remote(str(self._state_dir.path), msgspec.msgpack.encode(endpoint))
            self._handles[endpoint.actor] = handle
            await asyncio.wait_for(handle.ready.remote(), READY_TIMEOUT_S)
        except (RayError, TimeoutError, ValueError):
            await self.forget(endpoint.actor)
            raise

    async def stop(self, endpoint: Endpoint) -> None:
        """Drains an actor and ends it; one that does not drain in time is ended all the same."""
        try:
            await self.call(endpoint.actor, "drain", DRAIN_S, timeout_s=DRAIN_S + 5)
        except (RayError, RaydnsError, TimeoutError) as error:
            log.warning("an actor was not drained", extra={"actor": endpoint.actor, "problem": describe(error)})
        await self.forget(endpoint.actor)

    async def kill(self, endpoint: Endpoint, reason: str) -> None:
        """Ends an actor's process by force; Ray starts it anew. Its machine's agent does it, else Ray."""
        log.warning("ending an actor", extra={"actor": endpoint.actor, "reason": reason})
        try:
            if await self.call(f"agent:{endpoint.node}", "kill_process", endpoint.actor, timeout_s=5.0):
                return
            await asyncio.to_thread(ray.kill, await self.handle(endpoint.actor), no_restart=False)
        except (RayError, RaydnsError, TimeoutError) as error:
            log.warning("an actor was not ended", extra={"actor": endpoint.actor, "problem": describe(error)})

    async def forget(self, actor: str) -> None:
        """Ends an actor for good, if there is one."""
        try:
            await asyncio.to_thread(ray.kill, await self.handle(actor), no_restart=True)
        except (RayError, RaydnsError) as error:
            log.info("nothing to forget", extra={"actor": actor, "problem": describe(error)})
        self._handles.pop(actor, None)

    def _options(self, name: str, node: str) -> dict[str, Any]:
        return {
            "name": name,
            "namespace": self._namespace,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "max_restarts": -1,
            "max_task_retries": 0,
            # Hard: elsewhere a shard would start on an empty disk.
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }

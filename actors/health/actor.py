"""The health monitor's Ray shell.

Hard state: none. Soft state: failure counts, which start at zero after a restart, so that a monitor that was
away itself accuses nobody. Shares the fate of its node. A probe that cannot be sent counts as a failure of its
target: from here, both look alike to a client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError

from raydns.nodes import logs
from raydns.nodes.known import Known
from raydns.nodes.metrics import Metrics
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.nodes.streams.probe import PROBE_MESSAGE, probe_query
from raydns.nodes.streams.requests import Requests
from raydns.schemas import dns
from raydns.schemas.batch import AnswerItem
from raydns.schemas.cluster import Endpoint
from raydns.schemas.config import Config

from .core import Watch

log = logging.getLogger(__name__)

INGRESS = "ingress"
STREAMS = ("cache", "query", "zone")


class HealthActor:
    """See the head of this file.

    Args:
        state_dir: the machine's state directory.
        endpoint: msgpack of this actor's own ``Endpoint``.
    """

    def __init__(self, state_dir: str, endpoint: bytes) -> None:
        self._state_dir = StateDir(state_dir)
        self._me = msgspec.msgpack.decode(endpoint, type=Endpoint)
        self._known = Known(self._state_dir)
        self._secret = secret.load(self._state_dir.secret)
        self._watch = Watch()
        self._streams: dict[str, Requests] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._metrics = Metrics()
        self._probes = self._metrics.counter("raydns_health_probes_total", "Probes, by outcome.", "outcome")
        self._metrics.gauge(
            "raydns_health_target_failures",
            "Probes of a target that failed in a row.",
            lambda: {name: float(t.failures) for name, t in self._watch.targets.items()},
            "target",
        )
        self._config = Config()
        self._version = 0
        self._controller: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._load()
        logs.setup(self._config.telemetry.log, self._me.actor)
        self._loop_task = asyncio.get_running_loop().create_task(self._run())

    async def ready(self) -> bool:
        """Whether it runs."""
        return True

    async def refresh(self) -> int:
        """Re-reads what is known; returns its packed version."""
        self._load()
        return self._version

    async def statistics(self) -> dict[str, float]:
        """Targets, how many of them fail, and this process's id."""
        failing = sum(1 for t in self._watch.targets.values() if t.failures)
        return {
            "in_flight": 0.0,
            "targets": float(len(self._watch.targets)),
            "failing": float(failing),
            "pid": os.getpid(),
        }

    async def metrics(self) -> bytes:
        """Msgpack of ``list[Family]``."""
        return msgspec.msgpack.encode(self._metrics.families())

    async def drain(self, timeout_s: float) -> bool:
        """Nothing to finish within ``timeout_s``."""
        return timeout_s >= 0

    # -- inside ------------------------------------------------------------------------------------------

    def _load(self) -> None:
        snapshot = self._known.load()
        if snapshot is None:
            return
        self._version = snapshot.version.packed
        self._config = Config.model_validate(snapshot.config)
        mine = self._me.actor
        self._endpoints = {e.actor: e for e in snapshot.endpoints if e.actor != mine and not e.draining}
        self._watch.keep([INGRESS, *self._endpoints])

    async def _run(self) -> None:
        while True:
            started = time.monotonic()
            await self._connect()
            for name in self._watch.due():
                task = asyncio.get_running_loop().create_task(self._probe(name))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await self._tell()
            await asyncio.sleep(max(0.05, self._config.health.interval_s - (time.monotonic() - started)))

    async def _connect(self) -> None:
        """One stream an actor that listens on one; those of actors that went are closed."""
        wanted = {name: e for name, e in self._endpoints.items() if e.kind in STREAMS}
        for name in [n for n in self._streams if n not in wanted]:
            await self._streams.pop(name).close()
        for name, endpoint in wanted.items():
            if name not in self._streams:
                context = secret.client_context(self._secret) if endpoint.machine != self._me.machine else None
                self._streams[name] = Requests(endpoint, self._me.machine, ssl_context=context)
                self._streams[name].start()

    async def _probe(self, name: str) -> None:
        timeout = self._config.health.timeout_s
        try:
            async with asyncio.timeout(timeout):
                if name == INGRESS:
                    problem = await self._ask_ingress()
                elif name in self._streams:
                    problem = await self._ask_stream(self._streams[name], timeout)
                else:
                    problem = await self._ask_actor(name)
        except TimeoutError:
            problem = f"no answer within {timeout:g} s"
        except (OSError, RayError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
        if problem:
            self._probes.inc("failed")
            self._watch.failed(name, problem)
        else:
            self._probes.inc("answered")
            self._watch.succeeded(name, time.monotonic())

    async def _ask_stream(self, stream: Requests, timeout_s: float) -> str:
        done: asyncio.Future[AnswerItem | None] = asyncio.get_running_loop().create_future()

        def answered(answer: AnswerItem | None) -> None:
            if not done.done():
                done.set_result(answer)

        slot = stream.send(probe_query(int(timeout_s * 1000)), answered)
        try:
            answer = await done
        finally:
            stream.drop(slot)
        if answer is None:
            return stream.last_problem or "the stream broke"
        return "" if not answer.message[3] & dns.RCODE_MASK else "the probe was answered with an error"

    async def _ask_ingress(self) -> str:
        """A CHAOS question over UDP to the machine's own service, as a client would ask it."""
        host, port = self._ingress_address()
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, (host, port))
            ident = os.urandom(2)
            await loop.sock_sendall(sock, ident + PROBE_MESSAGE[2:])
            while True:
                reply = await loop.sock_recv(sock, 4096)
                if reply[:2] == ident:
                    return ""

    def _ingress_address(self) -> tuple[str, int]:
        data = json.loads((self._state_dir.run / "addresses.json").read_text())
        host, port = data["udp"][0]
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104 - read, not bound

    async def _ask_actor(self, name: str) -> str:
        handle = await asyncio.to_thread(ray.get_actor, name, self._config.cluster.name)
        return "" if await handle.ready.remote() else "it is not ready"

    async def _tell(self) -> None:
        observations = [(o.name, o.healthy, o.failures, o.reason) for o in self._watch.report()]
        try:
            if self._controller is None:
                self._controller = await asyncio.to_thread(ray.get_actor, "controller", self._config.cluster.name)
            await asyncio.wait_for(self._controller.observed.remote(observations), 2.0)
        except (RayError, TimeoutError, ValueError) as error:
            self._controller = None
            log.info("the controller does not listen", extra={"problem": str(error).splitlines()[0]})

"""The ingress as a process lives it: sockets, what is known, uplink, control methods, and an orderly end."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from raydns.nodes import logs
from raydns.nodes.control import ControlServer
from raydns.nodes.handover import SocketGiver
from raydns.nodes.known import Known
from raydns.nodes.metrics import Family, Sample
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.nodes.tracing import Tracer
from raydns.schemas.cluster import Version
from raydns.schemas.config import Config
from raydns.schemas.errors import CommandError, StateError

from . import tables
from .engine import MachineState, Refusal
from .reference import ReferenceEngine
from .uplink import Uplink

log = logging.getLogger(__name__)

DRAIN_S: Final = 10.0
RATE_WINDOW_S: Final = 5
RECENT_MAX: Final = 10_000


class Service:
    """One ingress process."""

    def __init__(self, state_dir: StateDir, sockets: Sequence[tuple[str, socket.socket]]) -> None:
        self._state_dir = state_dir
        self._known = Known(state_dir)
        self._tracer = Tracer("ingress", "", Config().telemetry.trace)
        loop = asyncio.get_running_loop()
        self.engine = ReferenceEngine(loop, recorder=self._tracer)
        self._uplink = Uplink(self.engine, lambda: secret.client_context(secret.load(state_dir.secret)))
        self._sockets = [held for _, held in sockets]
        self._state: MachineState | None = None
        self._refusals: list[Refusal] = []
        self._lock = asyncio.Lock()
        self._rates: deque[tuple[float, float, float]] = deque(maxlen=RATE_WINDOW_S + 1)
        self._rate_timer: asyncio.TimerHandle | None = None
        self._control = ControlServer(state_dir.ingress_socket, self._methods())
        self._giver = SocketGiver(state_dir.ingress_fds_socket, lambda: self.engine.sockets)
        self.installed = asyncio.Event()
        """Set with the first state: from then on queries are answered."""

    async def start(self) -> None:
        """Serves what is known, then takes over the control names; returns when it answers, or waits for a refresh."""
        self.engine.adopt(self._sockets)
        try:
            await self.refresh()
        except StateError as error:
            log.critical("nothing to serve yet: waiting for a refresh", extra={"problem": str(error)})
        self._measure()
        await self._control.start()
        await self._giver.start()

    async def refresh(self) -> dict[str, Any]:
        """Reads what is known and installs it; raises ``StateError`` and keeps what it has where that is no use."""
        async with self._lock:  # two at once could install the older one last
            found = await asyncio.to_thread(tables.read, self._known, keep_old=self._state is not None)
            if found is None:
                raise StateError(
                    "nothing is known on this machine",
                    where=str(self._state_dir.known),
                    hint="`raydns node` writes a first snapshot; the controller sends the next",
                )
            snapshot, state = found
            logs.set_level(state.config.telemetry.log)
            self._tracer.configure(state.config.telemetry.trace)
            refusals = [*self.engine.install(state), *lost_images(state, self._known.damaged)]
            self._tell_refusals([refusal for refusal in refusals if refusal not in self._refusals])
            self._refusals, self._state = refusals, state
            self._uplink.update(snapshot.endpoints, own_name(state.config))
            self.installed.set()
            return {"version": state.version, "refusals": [_as_map(refusal) for refusal in self._refusals]}

    async def stop(self, timeout_s: float = DRAIN_S) -> bool:
        """Drains and closes; ``True`` if nothing was left."""
        drained = await self.engine.drain(timeout_s)
        await self._giver.close()
        await self._control.close()
        await self._uplink.close()
        if self._rate_timer is not None:
            self._rate_timer.cancel()
        self.engine.close()
        await asyncio.to_thread(self._tracer.close)
        return drained

    def _methods(self) -> dict[str, Any]:
        return {
            "status": self._status,
            "refresh": self._refresh,
            "metrics": self._metrics,
            "recent": self._recent,
            "stop_reading": self._stop_reading,
            "drain": self._drain,
            "query_rate": self._query_rate,
        }

    async def _refresh(self, params: dict[str, Any]) -> dict[str, Any]:
        return await self.refresh()

    async def _status(self, params: dict[str, Any]) -> dict[str, Any]:
        state = self._state
        return {
            "pid": os.getpid(),
            "engine": self.engine.name,
            "ready": self.engine.ready,
            "machine": own_name(state.config) if state is not None else "",
            "version": list(Version.unpack(state.version)) if state is not None else [],
            "sockets": [describe(kind, held) for kind, held in self.engine.sockets],
            "zones": len(state.zones) if state is not None else 0,
            "refusals": [_as_map(refusal) for refusal in self._refusals],
            "images_missing": images_missing(state) if state is not None else 0,
            "streams": self._uplink.statistics(),
            "statistics": self.engine.statistics(),
            **self._rate(),
        }

    async def _metrics(self, params: dict[str, Any]) -> dict[str, Any]:
        families = [*self.engine.metrics(), *self._tracer.metrics.families(), memory()]
        return {"families": msgspec.msgpack.encode(families)}

    async def _recent(self, params: dict[str, Any]) -> dict[str, Any]:
        limit, trace_id = params.get("limit", 100), params.get("trace_id", "")
        if not isinstance(limit, int) or not isinstance(trace_id, str):
            raise CommandError("recent takes a number `limit` and a text `trace_id`", where="recent")
        queries = self.engine.recent(min(max(limit, 0), RECENT_MAX), trace_id)
        return {"queries": [dataclasses.asdict(query) for query in queries]}

    async def _stop_reading(self, params: dict[str, Any]) -> dict[str, Any]:
        self.engine.stop_reading()
        return {}

    async def _drain(self, params: dict[str, Any]) -> dict[str, Any]:
        timeout_s = params.get("timeout_s", DRAIN_S)
        if not isinstance(timeout_s, int | float) or timeout_s < 0:
            raise CommandError(f"timeout_s is {timeout_s!r}; seconds are a number", where="drain")
        return {"drained": await self.engine.drain(float(timeout_s))}

    async def _query_rate(self, params: dict[str, Any]) -> dict[str, Any]:
        return dict(self._rate())

    def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        statistics = self.engine.statistics()
        self._rates.append((loop.time(), statistics["queries"], statistics["misses"]))
        self._rate_timer = loop.call_later(1.0, self._measure)

    def _rate(self) -> dict[str, float]:
        """Queries and misses a second over the last seconds, and who waits."""
        statistics = self.engine.statistics()
        rate = misses = 0.0
        if len(self._rates) > 1:
            (since, queries0, misses0), (until, queries1, misses1) = self._rates[0], self._rates[-1]
            span = max(until - since, 0.001)
            rate, misses = (queries1 - queries0) / span, (misses1 - misses0) / span
        return {
            "queries_per_second": rate,
            "misses_per_second": misses,
            "in_flight": statistics["in_flight"],
        }

    @staticmethod
    def _tell_refusals(refusals: Sequence[Refusal]) -> None:
        for refusal in refusals:
            log.error(
                "zone image refused",
                extra={"apex": refusal.apex.hex(), "sha256": refusal.sha256, "problem": refusal.problem},
            )


def lost_images(state: MachineState, damaged: Mapping[str, str]) -> list[Refusal]:
    """Zones whose image was damaged on this machine's disk and therefore removed: they are asked above."""
    return [
        Refusal(zone.apex, zone.image.sha256, f"damaged, so removed: {damaged[zone.image.sha256]}")
        for zone in state.zones
        if zone.image is not None and zone.image.sha256 in damaged and zone.image.sha256 not in state.images
    ]


def images_missing(state: MachineState) -> int:
    """Images that zones have and this machine has not; its agent sees to them."""
    return len({zone.image.sha256 for zone in state.zones if zone.image is not None} - set(state.images))


def own_name(config: Config) -> str:
    """This machine's name: as configured, else the host's."""
    return config.server.name or socket.gethostname()


def describe(kind: str, held: socket.socket) -> str:
    """A socket as status shows it: ``udp 127.0.0.1:1053``."""
    try:
        host, port = held.getsockname()[:2]
    except OSError:
        return f"{kind} closed"
    return f"{kind} [{host}]:{port}" if ":" in host else f"{kind} {host}:{port}"


def memory(statm: Path = Path("/proc/self/statm")) -> Family:
    """Resident memory of this process."""
    try:
        pages = int(statm.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        pages = 0
    octets = float(pages * os.sysconf("SC_PAGE_SIZE"))
    return Family("raydns_ingress_memory_bytes", "gauge", "Resident memory of the ingress.", [Sample({}, octets)])


def _as_map(refusal: Refusal) -> dict[str, Any]:
    return {"apex": refusal.apex, "sha256": refusal.sha256, "problem": refusal.problem}

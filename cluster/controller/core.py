"""The controller's decisions: desired state against actual state, without Ray, clocks or files.

Rules of this file:

* One mutator: ``handle(event, now)`` changes the state and returns commands; ``step(now)`` compares and returns
  commands. Both may be called any number of times; a command is not given again while it is being carried out.
* Whatever is published was built on the newest snapshot that the machines remember (``adopt``). Before that
  nothing is published and nothing is created, so that a controller which lost its memory cannot empty anything.
* A version never goes back: each start raises the term, each change the number.

An actor's life::

    starting ──ready──▶ ready ──scaled down──▶ draining ──acknowledged by every machine──▶ stopping ──▶ (gone)
       │  ▲               │
       │  └── next gen. ──┴── lost: node dead, or killed and still silent
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from raydns.actors.ring import table as ring_table
from raydns.schemas import names
from raydns.schemas.cluster import (
    FLUSHES_MAX,
    ActorKind,
    Endpoint,
    Flush,
    LoadReport,
    Machine,
    Scale,
    SectionName,
    Snapshot,
    Version,
    ZoneEntry,
)
from raydns.schemas.config import Config
from raydns.schemas.errors import CommandError

from . import events as ev
from . import placement
from .autoscale import Autoscaler

EVENTS_KEPT: Final = 256
REPORT_TTL_S: Final = 15.0  # a machine that has not polled for so long is no longer waited for
START_GRACE_S: Final = 30.0  # an actor that is not ready by then is given up and made anew
KILL_GRACE_S: Final = 15.0  # how long a killed actor has to come back before the next generation is made
POOL_KINDS: Final[tuple[ActorKind, ...]] = ("cache", "query", "zone", "llm")
PLACED_KINDS: Final[tuple[ActorKind, ...]] = (*POOL_KINDS, "health")
BACKOFF_S: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # before the n-th try to make an actor that keeps failing


class State(StrEnum):
    """Where an actor is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"


@dataclass(slots=True)
class Member:
    """One actor that is wanted or being let go."""

    endpoint: Endpoint
    state: State
    since: float
    drained_at: Version | None = None
    """The version that took it out of routing; machines must have it before it may end."""
    killed_at: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the controller's memory: what it did, and why."""

    time: float
    what: str
    actor: str
    why: str


@dataclass(slots=True)
class _Seen:
    report: LoadReport
    machine: Machine
    at: float


@dataclass(slots=True)
class ControllerCore:
    """Holds desired and actual state; see the rules at the head of this file."""

    stream_path: Any
    """(kind, index) → path of the Unix socket that an actor listens on."""
    ring_seed: int
    snapshot: Snapshot | None = None
    members: dict[str, Member] = field(default_factory=dict)
    config: Config = field(default_factory=Config)
    happenings: deque[Happening] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    _agents: set[str] = field(default_factory=set)
    _machines: dict[str, _Seen] = field(default_factory=dict)
    _alive: frozenset[str] = frozenset()
    _generations: dict[tuple[str, int], int] = field(default_factory=dict)
    _autoscaler: Autoscaler = field(default_factory=Autoscaler)
    _zones: dict[int, list[ZoneEntry]] = field(default_factory=dict)
    _failures: dict[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    """(kind, index) → how often it was lost in a row, and when last."""

    # -- start -------------------------------------------------------------------------------------------

    def adopt(self, remembered: Iterable[Snapshot], existing: Iterable[str], now: float) -> None:
        """Starts from the newest remembered snapshot, in a new term.

        Args:
            remembered: what a majority of the known machines keep on their disks; at least one.
            existing: names of our actors that Ray knows now; those of the snapshot are kept, others are strays.
            now: seconds, monotonic.

        Raises:
            CommandError: nobody remembers anything (the supervisor writes a first snapshot before Ray starts).
        """
        newest = max(remembered, key=lambda s: s.version, default=None)
        if newest is None:
            raise CommandError("no machine remembers a snapshot", hint="start the machine with `raydns node start`")
        version = Version(newest.version.term + 1, 0)
        self.config = Config.model_validate(newest.config)
        self.snapshot = newest.merge_version(version)
        known = set(existing)
        for endpoint in newest.endpoints:
            self._generations[endpoint.kind, endpoint.index] = endpoint.generation
            if endpoint.actor in known:
                state = State.DRAINING if endpoint.draining else State.READY
                self.members[endpoint.actor] = Member(endpoint, state, now, version if endpoint.draining else None)
        for name in known:
            kind, index, generation = parse_actor(name)
            if kind in PLACED_KINDS:
                key = (kind, index)
                self._generations[key] = max(self._generations.get(key, 0), generation)
        for zone in newest.zones:
            self._zones.setdefault(zone.shard, []).append(zone)
        if newest.scale == Scale(0, 0, 0, 0):
            self.snapshot.scale = _first_scale(self.config)
        self._note(now, "controller started", "controller", f"term {version.term}")
        self._publish("endpoints", self._endpoints())

    def strays(self, existing: Iterable[str]) -> list[str]:
        """Actors of ours that Ray knows and no snapshot: made just before a crash, to be removed."""
        return [n for n in existing if parse_actor(n)[0] in PLACED_KINDS and n not in self.members]

    # -- events ------------------------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Takes in one event and returns what to do about it."""
        match event:
            case ev.NodesSeen(alive):
                self._alive = alive
                self._agents &= alive
            case ev.MachineReported():
                self._machine_reported(event, now)
            case ev.ActorReady(actor):
                self._ready(actor, now)
            case ev.ActorLost(actor, reason):
                self._lost(actor, reason, now)
            case ev.ActorStopped(actor):
                member = self.members.pop(actor, None)
                if member is not None:
                    self._note(now, "stopped", actor, "drained")
                    self._publish("endpoints", self._endpoints())
            case ev.HealthReported(observations):
                return self._health(observations, now)
            case ev.ConfigChanged(config):
                self._configure(config, now)
            case ev.ScaleAsked(kind, count):
                self._scale(kind, count, now, "asked by an operator")
            case ev.ZonesReported(shard, zones):
                self._zones_reported(shard, list(zones))
            case ev.FlushAsked(name, subtree):
                self._flush(name, subtree)
        return []

    def step(self, now: float) -> list[ev.Command]:
        """Compares desired with actual state; returns what is to be done next."""
        if self.snapshot is None:
            return []
        commands: list[ev.Command] = []
        for node in sorted(self._alive - self._agents):
            self._agents.add(node)
            commands.append(ev.EnsureAgent(node))
        machines = self.machines(now)
        if not machines:
            return commands
        self._publish("machines", machines)
        self._autoscale(now)
        commands += self._give_up(now)
        commands += self._fill(machines, now)
        commands += self._drain(now)
        self._rebuild_ring()
        return commands

    # -- what others ask ---------------------------------------------------------------------------------

    @property
    def version(self) -> Version:
        """The newest published version."""
        assert self.snapshot is not None
        return self.snapshot.version

    def machines(self, now: float) -> list[Machine]:
        """Members whose agent polled lately and whose node Ray still knows."""
        return [
            seen.machine
            for _, seen in sorted(self._machines.items())
            if now - seen.at < REPORT_TTL_S and seen.machine.node in self._alive
        ]

    def installed_everywhere(self, version: Version, now: float) -> bool:
        """Whether every living machine has installed at least this version."""
        living = {machine.name for machine in self.machines(now)}
        return all(seen.report.version >= version for name, seen in self._machines.items() if name in living)

    def statistics(self, actor: str) -> dict[str, float]:
        """The newest statistics of an actor, as its machine's agent told them."""
        for seen in self._machines.values():
            if actor in seen.report.actors:
                return seen.report.actors[actor]
        return {}

    def reports(self) -> dict[str, LoadReport]:
        """The newest report of each machine."""
        return {name: seen.report for name, seen in self._machines.items()}

    # -- inside ------------------------------------------------------------------------------------------

    def _machine_reported(self, event: ev.MachineReported, now: float) -> None:
        report = event.report
        machine = Machine(report.machine, report.node, event.address, event.head, dict(event.labels))
        self._machines[report.machine] = _Seen(report, machine, now)

    def _ready(self, actor: str, now: float) -> None:
        member = self.members.get(actor)
        if member is None or member.state is not State.STARTING:
            return
        member.state, member.since, member.problem = State.READY, now, ""
        self._note(now, "ready", actor, "started")
        self._publish("endpoints", self._endpoints())

    def _lost(self, actor: str, reason: str, now: float) -> None:
        member = self.members.pop(actor, None)
        if member is not None:
            slot = (member.endpoint.kind, member.endpoint.index)
            lived_long = member.state is not State.STARTING and now - member.since > START_GRACE_S
            count = 0 if lived_long else self._failures.get(slot, (0, 0.0))[0]
            self._failures[slot] = (count + 1, now)
            self._note(now, "lost", actor, reason)
            self._publish("endpoints", self._endpoints())

    def _health(self, observations: Iterable[ev.Observation], now: float) -> list[ev.Command]:
        commands: list[ev.Command] = []
        for seen in observations:
            member = self.members.get(seen.actor)
            if member is None or member.state not in (State.READY, State.DRAINING):
                continue
            if seen.healthy:
                member.killed_at, member.problem = None, ""
                continue
            member.problem = seen.reason
            if seen.failures < self.config.health.failures or member.killed_at is not None:
                continue
            member.killed_at = now
            self._note(now, "killed", seen.actor, f"{seen.failures} probes failed: {seen.reason}")
            commands.append(ev.KillProcess(member.endpoint, seen.reason))
        return commands

    def _configure(self, config: Config, now: float) -> None:
        assert self.snapshot is not None
        before, self.config = self.config, config
        scale = self.snapshot.scale
        wanted, was = _first_scale(config), _first_scale(before)
        # A size that the configuration names anew wins over what an operator or the autoscaler chose.
        for kind in POOL_KINDS:
            if getattr(wanted, kind) != getattr(was, kind):
                scale = _with(scale, kind, getattr(wanted, kind))
        query = min(max(scale.query, config.query.pool_min), config.query.pool_max)
        self._publish("scale", _with(scale, "query", query))
        self._publish("config", config.model_dump(mode="json"))
        for name in changed_names(before, config):
            self._flush(name, True)
        self._note(now, "configured", "controller", "configuration changed")

    def _zones_reported(self, shard: int, zones: list[ZoneEntry]) -> None:
        before = {zone.apex for zone in self._zones.get(shard, [])}
        self._zones[shard] = zones
        self._publish("zones", [zone for number in sorted(self._zones) for zone in self._zones[number]])
        for apex in sorted(before ^ {zone.apex for zone in zones}):
            self._flush(apex, True)  # what was cached below it came from elsewhere, or belongs to us no more

    def _scale(self, kind: ActorKind, count: int, now: float, why: str) -> None:
        assert self.snapshot is not None
        if kind not in POOL_KINDS:
            raise CommandError(f"{kind!r} cannot be scaled", hint=f"one of {', '.join(POOL_KINDS)}")
        if kind == "zone" and count < self.snapshot.scale.zone:
            raise CommandError("zone shards cannot be taken away: they own zones", where="zone")
        low, high = (self.config.query.pool_min, self.config.query.pool_max) if kind == "query" else (1, 64)
        if not low <= count <= high:
            hint = "change query.pool_min or query.pool_max" if kind == "query" else ""
            raise CommandError(f"{count} is not between {low} and {high}", where=kind, hint=hint)
        if count != getattr(self.snapshot.scale, kind):
            self._note(now, "scaled", kind, f"{getattr(self.snapshot.scale, kind)} → {count}: {why}")
            self._publish("scale", _with(self.snapshot.scale, kind, count))

    def _flush(self, name: bytes, subtree: bool) -> None:
        assert self.snapshot is not None
        version = self.snapshot.version.next()
        flushes = [f for f in self.snapshot.flushes if not (f.name == name and f.subtree == subtree)]
        flushes.append(Flush(name, subtree, version))
        if len(flushes) > FLUSHES_MAX:
            # Forgetting the oldest would bring flushed answers back; flushing everything before it does not.
            oldest, merged = flushes[: len(flushes) // 2], flushes[len(flushes) // 2 :]
            flushes = [Flush(b"\x00", True, max(f.version for f in oldest)), *merged]
        self._publish("flushes", flushes)

    def _autoscale(self, now: float) -> None:
        assert self.snapshot is not None
        ready = [m for m in self._of("query") if m.state is State.READY]
        if len(ready) != self.snapshot.scale.query:
            return  # the last decision is still being carried out
        in_flight = sum(self.statistics(m.endpoint.actor).get("in_flight", 0.0) for m in ready)
        size = self._autoscaler.decide(len(ready), in_flight, self.config.query, now)
        if size != len(ready):
            self._scale("query", size, now, f"{in_flight:.0f} queries in flight")

    def _give_up(self, now: float) -> list[ev.Command]:
        """Ends members that cannot come back where they are; ``_fill`` then makes the next generation."""
        commands: list[ev.Command] = []
        for actor, member in list(self.members.items()):
            reason = ""
            if member.endpoint.node not in self._alive:
                reason = "its node is gone"
            elif member.state is State.STARTING and now - member.since > START_GRACE_S:
                reason = f"not ready after {START_GRACE_S:.0f} s"
            elif member.killed_at is not None and now - member.killed_at > KILL_GRACE_S:
                reason = f"still not well {KILL_GRACE_S:.0f} s after it was killed: {member.problem}"
            if reason:
                self._lost(actor, reason, now)
                commands.append(ev.RemoveActor(member.endpoint))
        return commands

    def _fill(self, machines: list[Machine], now: float) -> list[ev.Command]:
        assert self.snapshot is not None
        commands: list[ev.Command] = []
        for kind in PLACED_KINDS:
            want = self.wanted(kind)
            # An index is free again only when its former holder has gone: it may still hold the socket.
            taken = {m.endpoint.index: m.endpoint.machine for m in self._of(kind)}
            leaving = sum(1 for m in self._of(kind) if m.state in (State.DRAINING, State.STOPPING))
            for index, machine in placement.missing(want + leaving, taken, machines):
                failures, last = self._failures.get((kind, index), (0, 0.0))
                if failures and now - last < BACKOFF_S[min(failures - 1, len(BACKOFF_S) - 1)]:
                    continue
                endpoint = self._new_endpoint(kind, index, machine)
                self.members[endpoint.actor] = Member(endpoint, State.STARTING, now)
                commands.append(ev.CreateActor(endpoint))
            staying = {m.endpoint.index: m for m in self._of(kind) if m.state in (State.STARTING, State.READY)}
            for index in placement.surplus(want, {i: m.endpoint.machine for i, m in staying.items()}):
                self._start_draining(staying[index], now)
        return commands

    def wanted(self, kind: ActorKind) -> int:
        """How many actors of a kind there shall be now."""
        assert self.snapshot is not None
        if kind == "health":
            return 1
        if kind == "llm" and not self.config.llm.enabled:
            return 0
        count: int = getattr(self.snapshot.scale, kind)
        return count

    def _start_draining(self, member: Member, now: float) -> None:
        member.state, member.since = State.DRAINING, now
        self._rebuild_ring()
        self._publish("endpoints", self._endpoints())
        member.drained_at = self.version
        self._note(now, "draining", member.endpoint.actor, "scaled down")

    def _drain(self, now: float) -> list[ev.Command]:
        commands: list[ev.Command] = []
        for member in self.members.values():
            if member.state is not State.DRAINING or member.drained_at is None:
                continue
            if self.installed_everywhere(member.drained_at, now):
                member.state, member.since = State.STOPPING, now
                commands.append(ev.StopActor(member.endpoint))
        return commands

    def _rebuild_ring(self) -> None:
        assert self.snapshot is not None
        shards = [
            ring_table.Shard(m.endpoint.index, m.endpoint.machine)
            for m in self._of("cache")
            if m.state is State.READY or (m.state is State.STARTING and m.endpoint.index in self.snapshot.ring.first)
        ]
        if not shards:
            return  # an empty ring helps nobody: what waits, waits for the old owner
        old = self.snapshot.ring
        if {s.index for s in shards} == set(old.first) and old.seed == self.ring_seed:
            return
        table = ring_table.build(
            shards,
            seed=self.ring_seed,
            virtual_nodes=self.config.cluster.virtual_nodes,
            version=self.version.next().packed,
            previous=old if old.bounds else None,
        )
        self._publish("ring", table)

    def _new_endpoint(self, kind: ActorKind, index: int, machine: Machine) -> Endpoint:
        generation = self._generations.get((kind, index), 0) + 1
        self._generations[kind, index] = generation
        path = "" if kind in ("llm", "health") else str(self.stream_path(kind, index))
        return Endpoint(kind, index, generation, machine.node, machine.name, path, machine.address)

    def _of(self, kind: ActorKind) -> list[Member]:
        return [m for m in self.members.values() if m.endpoint.kind == kind]

    def _endpoints(self) -> list[Endpoint]:
        found = []
        for member in self.members.values():
            if member.state is State.READY:
                found.append(member.endpoint)
            elif member.state is not State.STARTING:
                e = member.endpoint
                found.append(
                    Endpoint(e.kind, e.index, e.generation, e.node, e.machine, e.path, e.host, e.port, draining=True)
                )
        return sorted(found, key=lambda e: (e.kind, e.index))

    def _publish(self, section: SectionName, value: Any) -> None:
        assert self.snapshot is not None
        if getattr(self.snapshot, section) == value:
            return
        version = self.snapshot.version.next()
        setattr(self.snapshot, section, value)
        self.snapshot.version = version
        self.snapshot.section_versions[section] = version

    def _note(self, now: float, what: str, actor: str, why: str) -> None:
        self.happenings.append(Happening(now, what, actor, why))


def parse_actor(name: str) -> tuple[str, int, int]:
    """(kind, index, generation) of ``cache:3.g2``; (kind, -1, 0) for names that are no pool actor's."""
    kind, _, rest = name.partition(":")
    index, _, generation = rest.partition(".g")
    if index.isdecimal() and generation.isdecimal():
        return kind, int(index), int(generation)
    return kind, -1, 0


def changed_names(before: Config, after: Config) -> list[bytes]:
    """Names below which cached answers are wrong now: forward rules and LLM names that came, went or changed."""
    old, new = ({rule.suffix: rule for rule in config.forward.rules} for config in (before, after))
    changed = {suffix for suffix in old.keys() | new.keys() if old.get(suffix) != new.get(suffix)}
    old_llm, new_llm = (set(config.llm.zones) if config.llm.enabled else set() for config in (before, after))
    changed |= old_llm ^ new_llm
    if (before.llm.enabled, before.llm.catch_all) != (after.llm.enabled, after.llm.catch_all):
        changed.add(".")
    return [names.key(names.from_text(name)) for name in sorted(changed)]


def _first_scale(config: Config) -> Scale:
    return Scale(config.query.pool_size, config.cache.shards, config.zones.shards, config.llm.actors)


def _with(scale: Scale, kind: str, count: int) -> Scale:
    fields: dict[str, int] = {name: getattr(scale, name) for name in POOL_KINDS}
    fields[kind] = count
    return Scale(**fields)

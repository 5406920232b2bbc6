"""What the controller hears (events, past tense) and what it wants done (commands)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raydns.schemas.cluster import ActorKind, Endpoint, LoadReport, ZoneEntry
from raydns.schemas.config import Config


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """Ray's present view: node ids that are alive."""

    alive: frozenset[str]


@dataclass(frozen=True, slots=True)
class MachineReported:
    """An agent polled: it says who it is, what it has installed, and how busy its machine is."""

    report: LoadReport
    address: str
    head: bool
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ActorReady:
    """An actor answered ``ready``."""

    actor: str


@dataclass(frozen=True, slots=True)
class ActorLost:
    """An actor cannot be started, or is gone for good (Ray will not bring it back)."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class ActorStopped:
    """An actor that was drained has ended."""

    actor: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What the health monitor saw of one actor: k failures in a row, or well again."""

    actor: str
    healthy: bool
    failures: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HealthReported:
    """The health monitor's present view of every actor that it probes."""

    observations: Sequence[Observation]


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """A validated configuration to be used from now on."""

    config: Config


@dataclass(frozen=True, slots=True)
class ScaleAsked:
    """An operator wants so many actors of a kind."""

    kind: ActorKind
    count: int


@dataclass(frozen=True, slots=True)
class ZonesReported:
    """All zones that a zone shard holds now."""

    shard: int
    zones: Sequence[ZoneEntry]


@dataclass(frozen=True, slots=True)
class FlushAsked:
    """An operator wants cached answers gone."""

    name: bytes
    subtree: bool


Event = (
    NodesSeen
    | MachineReported
    | ActorReady
    | ActorLost
    | ActorStopped
    | HealthReported
    | ConfigChanged
    | ScaleAsked
    | ZonesReported
    | FlushAsked
)


@dataclass(frozen=True, slots=True)
class EnsureAgent:
    """A living node has no agent: create one, pinned to it."""

    node: str


@dataclass(frozen=True, slots=True)
class CreateActor:
    """Create an actor pinned to its endpoint's node, and report when it is ready."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class StopActor:
    """End an actor that nothing is routed to any more; wait for what it has in flight first."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class KillProcess:
    """End an actor's process by force on its machine; Ray then starts it anew in its place."""

    endpoint: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class RemoveActor:
    """Tell Ray to forget an actor that will never run again (its node is gone)."""

    endpoint: Endpoint


Command = EnsureAgent | CreateActor | StopActor | KillProcess | RemoveActor

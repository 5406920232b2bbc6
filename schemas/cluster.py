"""Cluster state: versions, machines, endpoints, ring, zones, flushes, and the snapshot that holds them.

The controller is its only author. Every agent keeps the newest snapshot on its machine's disk; whatever runs
there reads it from there (``raydns.nodes.known``). A snapshot consists of *sections*, each with the version at
which it last changed, so that a delta is just the sections that are newer than the asker's.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final, Literal, NamedTuple

import msgspec

from raydns.schemas import names
from raydns.schemas.errors import StateError

SNAPSHOT_FORMAT: Final = 1
FLUSHES_MAX: Final = 1024  # beyond it the oldest are merged into one flush of everything

ActorKind = Literal["controller", "health", "agent", "cache", "query", "zone", "llm"]
SectionName = Literal["config", "machines", "endpoints", "ring", "zones", "flushes", "scale"]
SECTIONS: Final[tuple[SectionName, ...]] = ("config", "machines", "endpoints", "ring", "zones", "flushes", "scale")

_NUMBER_BITS: Final = 40


class Version(NamedTuple):
    """(term, number): each start of a controller raises the term, each change the number; ordered as a pair."""

    term: int
    number: int

    @property
    def packed(self) -> int:
        """As one u64 that orders alike, for the batch."""
        return (self.term << _NUMBER_BITS) | self.number

    @classmethod
    def unpack(cls, packed: int) -> Version:
        """The version that ``packed`` came from."""
        return cls(packed >> _NUMBER_BITS, packed & ((1 << _NUMBER_BITS) - 1))

    def next(self) -> Version:
        """The next number in this term."""
        return Version(self.term, self.number + 1)


class Endpoint(msgspec.Struct, frozen=True):
    """Where an actor listens for streams; assigned by the controller, survives the actor's restarts."""

    kind: ActorKind
    index: int  # number within its kind: ``cache:3`` has index 3
    generation: int
    node: str  # Ray's node id, hexadecimal
    machine: str  # our own name of the machine, survives a new node id
    path: str  # Unix socket, for those on the same machine
    host: str = ""  # address and TLS port, for those on other machines
    port: int = 0
    draining: bool = False  # takes no new work; still answers what it has

    @property
    def actor(self) -> str:
        """The Ray name: ``cache:3.g2``."""
        return f"{self.kind}:{self.index}.g{self.generation}"


class Machine(msgspec.Struct, frozen=True):
    """A machine that is or was a member."""

    name: str
    node: str
    address: str
    head: bool = False
    labels: dict[str, str] = {}
    alive: bool = True


class RingTable(msgspec.Struct, frozen=True):
    """The consistent-hash ring as engines use it: sorted bounds, for each its first and second shard.

    ``bounds[i]`` is the last hash (u64) that belongs to entry ``i``; hashes above the last bound belong to
    entry 0. First and second stand on distinct machines wherever there are two.
    """

    version: int
    seed: int
    bounds: list[int] = []
    first: list[int] = []
    second: list[int] = []  # -1 where there is no second shard

    def owners(self, name_hash: int) -> tuple[int, int]:
        """The first and second shard for a hash; (-1, -1) on an empty ring."""
        if not self.bounds:
            return -1, -1
        at = bisect_left(self.bounds, name_hash)
        if at == len(self.bounds):
            at = 0
        return self.first[at], self.second[at]


class ImageRef(msgspec.Struct, frozen=True):
    """An image file, named by what is in it."""

    sha256: str
    size: int  # octets
    format: int = 1


class ZoneEntry(msgspec.Struct, frozen=True):
    """One zone as every machine knows it: the apex table is the list of these."""

    apex: bytes  # key form
    view: int
    shard: int  # zone shard that owns it
    serial: int
    epoch: int
    image: ImageRef | None  # None: not loaded yet, or not to be served (then SERVFAIL with EDE)
    records: int = 0
    state: str = "ready"  # ready, loading, failed, expired
    problem: str = ""


class Flush(msgspec.Struct, frozen=True):
    """Entries of the cache at this name (and below it) from before this version are misses, in every tier."""

    name: bytes  # key form
    subtree: bool
    version: Version


class Scale(msgspec.Struct, frozen=True):
    """How many actors of a kind are wanted now; the autoscaler and ``raydns scale`` write it."""

    query: int
    cache: int
    zone: int
    llm: int


class Snapshot(msgspec.Struct):
    """All that the controller decided, as of ``version``."""

    version: Version
    config: dict[str, Any]
    machines: list[Machine]
    endpoints: list[Endpoint]
    ring: RingTable
    zones: list[ZoneEntry]
    flushes: list[Flush]
    scale: Scale
    section_versions: dict[str, Version] = {}
    format: int = SNAPSHOT_FORMAT

    def newer_than(self, known: dict[str, Version]) -> Delta:
        """The sections that changed since the asker's versions."""
        changed = {
            section: getattr(self, section)
            for section in SECTIONS
            if self.section_versions.get(section, self.version) > known.get(section, Version(-1, 0))
        }
        return Delta(
            self.version, {k: msgspec.msgpack.encode(v) for k, v in changed.items()}, dict(self.section_versions)
        )

    def merge_version(self, version: Version) -> Snapshot:
        """The same content under a later version, every section counted as changed: a new term's first state."""
        fields: dict[str, Any] = {section: getattr(self, section) for section in SECTIONS}
        return Snapshot(version=version, section_versions=dict.fromkeys(SECTIONS, version), **fields)

    def merge(self, delta: Delta) -> Snapshot:
        """This snapshot with a delta's sections in place of its own; raises ``StateError`` for a damaged one."""
        fields: dict[str, Any] = {section: getattr(self, section) for section in SECTIONS}
        fields.update(_decode_sections(delta.sections))
        return Snapshot(version=delta.version, section_versions=delta.section_versions, **fields)


def first_snapshot(config: dict[str, Any], ring_seed: int) -> Snapshot:
    """What a machine knows before any controller has spoken: its own configuration, and nobody to ask.

    Args:
        config: ``Config.model_dump(mode="json")``.
        ring_seed: derived from the cluster secret.
    """
    version = Version(0, 1)
    return Snapshot(
        version=version,
        config=config,
        machines=[],
        endpoints=[],
        ring=RingTable(0, ring_seed),
        zones=[],
        flushes=[],
        scale=Scale(0, 0, 0, 0),
        section_versions=dict.fromkeys(SECTIONS, version),
    )


class Delta(msgspec.Struct, frozen=True):
    """What a long poll brings: changed sections, encoded, and all section versions."""

    version: Version
    sections: dict[str, bytes]
    section_versions: dict[str, Version]

    def snapshot(self) -> Snapshot:
        """The snapshot that a complete delta stands for; raises ``StateError`` if some are missing or damaged."""
        missing = [section for section in SECTIONS if section not in self.sections]
        if missing:
            raise StateError(f"a first delta must hold every section; missing: {', '.join(missing)}")
        return Snapshot(version=self.version, section_versions=self.section_versions, **_decode_sections(self.sections))


def _decode_sections(sections: dict[str, bytes]) -> dict[str, Any]:
    """Sections by name; those that a newer controller added and this side does not know are left out."""
    fields: dict[str, Any] = {}
    for section, data in sections.items():
        kind = _SECTION_TYPES.get(section)
        if kind is None:
            continue
        try:
            fields[section] = msgspec.msgpack.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # ValidationError is a DecodeError
            raise StateError(f"section {section} of a delta is damaged: {error}") from error
    return fields


_SECTION_TYPES: Final[dict[str, Any]] = {
    "config": dict[str, Any],
    "machines": list[Machine],
    "endpoints": list[Endpoint],
    "ring": RingTable,
    "zones": list[ZoneEntry],
    "flushes": list[Flush],
    "scale": Scale,
}


class FlushTable:
    """Answers in O(labels) whether an entry is older than a flush that covers its name."""

    def __init__(self, flushes: list[Flush]) -> None:
        self.newest = max((flush.version.packed for flush in flushes), default=0)
        """Entries with at least this version are covered by no flush: the usual case costs one comparison."""
        self._exact: dict[bytes, int] = {}
        self._subtree: dict[bytes, int] = {}
        for flush in flushes:
            table = self._subtree if flush.subtree else self._exact
            table[flush.name] = max(table.get(flush.name, 0), flush.version.packed)

    def covers(self, name: bytes, began: int) -> bool:
        """Whether an entry for ``name`` (key form) whose flight began at packed version ``began`` is gone."""
        if began >= self.newest:
            return False
        if self._exact.get(name, 0) > began:
            return True
        if not self._subtree:
            return False
        return any(self._subtree.get(ancestor, 0) > began for ancestor in names.ancestors(name))


class LoadReport(msgspec.Struct, frozen=True):
    """What an agent tells the controller with each poll: constant in size and rate."""

    machine: str
    node: str
    version: Version  # of the snapshot that is installed on the machine
    ingress_ready: bool
    queries_per_second: float = 0.0
    misses_per_second: float = 0.0
    in_flight: int = 0
    actors: dict[str, dict[str, float]] = {}  # statistics of the machine's actors by name

"""Making a ring table: points, bounded load, first and second shard.

Theory of operation. Every shard puts ``virtual_nodes × weight`` points on a circle of 2⁶⁴ hashes; a hash belongs
*ideally* to the shard of the first point at or after it. Points alone leave shares that differ by an eighth with
64 points a shard, so each share is bounded to ``load_factor`` times what the shard's weight entitles it to
(Mirrokni, Thorup, Zadimoghaddam: consistent hashing with bounded loads). The bound is applied here, once, by
cutting arcs, and never at a look-up: a table is a pure function that every machine evaluates alike.

Stability. Where a ``previous`` table is given, an arc stays with its owner unless that owner is gone, is over its
bound, or a newcomer's point claims the arc. Hence a shard that leaves moves nothing but its own arcs (bounds only
grow), and one that comes takes its own share and what the lower bounds force out of the others, itself first.

Rules of this file: integers only where shares are compared, no iteration over sets or unsorted dictionaries:
the same input must give the same table on every machine.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from raydns.schemas import names
from raydns.schemas.cluster import RingTable
from raydns.schemas.errors import StateError

SPACE: Final = 1 << 64
POINTS_MAX: Final = 65536  # of one shard: weights are ratios, not sizes in octets


@dataclass(frozen=True, slots=True)
class Shard:
    """A cache shard that is to be on the ring."""

    index: int
    machine: str
    weight: float = 1.0
    """Share relative to the others; 0: on no arc (it is leaving)."""


@dataclass(slots=True)
class _Arc:
    """Hashes ``low`` to ``high``, both included, between two neighbouring cuts."""

    low: int
    high: int
    ideal: int
    previous: int  # -1: nobody had it, or its owner is gone

    @property
    def size(self) -> int:
        return self.high - self.low + 1


def build(
    shards: Sequence[Shard],
    *,
    seed: int,
    virtual_nodes: int,
    version: int,
    load_factor: float = 1.15,
    previous: RingTable | None = None,
) -> RingTable:
    """The table for these shards; the order in which they are given does not matter.

    Args:
        shards: members, each index once.
        seed: of the hash; derived from the cluster secret.
        virtual_nodes: points of a shard of weight 1.
        version: packed version that the table carries.
        load_factor: how far above its fair share a shard may go; at least 1.
        previous: the table in use, so that as little as possible moves.

    Raises:
        StateError: an index twice, a weight or a factor that makes no sense.
    """
    members = _checked(shards, virtual_nodes, load_factor)
    if not members:
        return RingTable(version=version, seed=seed)
    circle = _Circle(members, seed, virtual_nodes)
    bounds = _bounds(members, load_factor)
    owned = _Assignment(circle, bounds, previous).run()
    machines = {shard.index: shard.machine for shard in members}
    table = RingTable(version=version, seed=seed)
    for _, high, first in owned:
        second = circle.second(high, first, machines)
        if table.first and (table.first[-1], table.second[-1]) == (first, second):
            table.bounds[-1] = high
            continue
        table.bounds.append(high)
        table.first.append(first)
        table.second.append(second)
    return table


def _checked(shards: Sequence[Shard], virtual_nodes: int, load_factor: float) -> list[Shard]:
    if virtual_nodes < 1 or not 1.0 <= load_factor <= SPACE:
        raise StateError(
            f"a ring with {virtual_nodes} virtual nodes and a load factor of {load_factor} cannot be made",
            hint="at least one virtual node, and a factor of 1 or more",
        )
    members = sorted(shards, key=lambda shard: shard.index)
    for before, after in pairwise(members):
        if before.index == after.index:
            raise StateError(f"cache shard {after.index} is on the ring twice")
    for shard in members:
        if not 0 <= shard.weight * virtual_nodes <= POINTS_MAX or shard.index < 0:
            raise StateError(
                f"cache shard {shard.index} with weight {shard.weight} cannot be placed",
                hint=f"a weight is a ratio; it makes at most {POINTS_MAX} points",
            )
    return [shard for shard in members if shard.weight > 0]


def _bounds(members: Sequence[Shard], load_factor: float) -> dict[int, tuple[int, int]]:
    """Fair share and upper bound of each shard, in hashes; the bounds add up to the whole space or more."""
    total = sum(Fraction(shard.weight) for shard in members)
    found: dict[int, tuple[int, int]] = {}
    for shard in members:
        fair = Fraction(shard.weight) / total * SPACE
        found[shard.index] = (int(fair), -int(-fair * Fraction(load_factor) // 1))
    return found


class _Circle:
    """The points of all shards, sorted."""

    def __init__(self, members: Sequence[Shard], seed: int, virtual_nodes: int) -> None:
        points: dict[int, int] = {}
        for shard in members:
            for vnode in range(max(1, round(virtual_nodes * shard.weight))):
                at = names.ring_hash(b"cache:%d#%d" % (shard.index, vnode), seed)
                # Two points on one hash: the lower index has it, on every machine.
                points.setdefault(at, shard.index)
        self.hashes = sorted(points)
        self.owners = [points[at] for at in self.hashes]

    def ideal(self, name_hash: int) -> int:
        """The shard of the first point at or after the hash."""
        at = bisect_left(self.hashes, name_hash)
        return self.owners[at % len(self.owners)]

    def onward(self, name_hash: int) -> Iterator[int]:
        """The distinct shards met from the hash onward, once round the circle."""
        start = bisect_left(self.hashes, name_hash)
        seen: set[int] = set()
        for step in range(len(self.owners)):
            owner = self.owners[(start + step) % len(self.owners)]
            if owner not in seen:
                seen.add(owner)
                yield owner

    def second(self, name_hash: int, first: int, machines: dict[int, str]) -> int:
        """Who answers when ``first`` cannot: on another machine where there is one, else another shard, else -1."""
        beside = -1
        for owner in self.onward(name_hash):
            if machines[owner] != machines[first]:
                return owner
            if beside < 0 and owner != first:
                beside = owner
        return beside


class _Assignment:
    """Hands out arcs under the bounds; cuts an arc where a shard becomes full."""

    def __init__(self, circle: _Circle, bounds: dict[int, tuple[int, int]], previous: RingTable | None) -> None:
        self._circle = circle
        self._room = {index: bound for index, (_, bound) in bounds.items()}
        self._arcs = _arcs(circle, previous, self._room)
        held = dict.fromkeys(bounds, 0)
        for arc in self._arcs:
            if arc.previous >= 0:
                held[arc.previous] += arc.size
        # Whoever holds less than half of its fair share claims its own points' arcs, as a new shard does.
        self._newcomers = [index for index, (fair, _) in bounds.items() if held[index] * 2 < fair]
        self._owned: list[tuple[int, int, int]] = []

    def run(self) -> list[tuple[int, int, int]]:
        """(low, high, owner) in order; they cover the space without a gap."""
        claimed = [arc for arc in self._arcs if arc.ideal in self._newcomers or arc.previous < 0]
        kept = [arc for arc in self._arcs if arc.ideal not in self._newcomers and arc.previous >= 0]
        # What stands where it ideally stands has the first right to stay.
        kept.sort(key=lambda arc: arc.ideal != arc.previous)
        homeless: list[_Arc] = []
        for arc in kept:
            self._give(arc, (arc.previous,), homeless)
        for arc in claimed:
            self._give(arc, (arc.ideal, arc.previous), homeless)
        for arc in homeless:
            self._give(arc, (*self._newcomers, *self._circle.onward(arc.low)), [])
        self._owned.sort()
        return self._owned

    def _give(self, arc: _Arc, candidates: Sequence[int], homeless: list[_Arc]) -> None:
        low = arc.low
        for owner in candidates:
            taken = min(self._room.get(owner, 0), arc.high - low + 1)
            if taken <= 0:
                continue
            self._room[owner] -= taken
            self._owned.append((low, low + taken - 1, owner))
            low += taken
            if low > arc.high:
                return
        homeless.append(_Arc(low, arc.high, arc.ideal, arc.previous))


def _arcs(circle: _Circle, previous: RingTable | None, present: dict[int, int]) -> list[_Arc]:
    """The space cut at every point and at every bound of the previous table."""
    before = previous if previous is not None else RingTable(version=0, seed=0)
    cuts = sorted({*circle.hashes, *(bound for bound in before.bounds if 0 <= bound < SPACE), SPACE - 1})
    arcs: list[_Arc] = []
    low = 0
    for high in cuts:
        owner = before.owners(high)[0]
        arcs.append(_Arc(low, high, circle.ideal(high), owner if owner in present else -1))
        low = high + 1
    return arcs

"""What a ring table gives to whom, and how much of the space two tables disagree on."""

from __future__ import annotations

from raydns.schemas.cluster import RingTable

from .table import SPACE


def shares(table: RingTable) -> dict[int, float]:
    """The part of the hash space that each shard is first for, by shard; empty for an empty ring."""
    sizes: dict[int, int] = {}
    low = 0
    for bound, owner in zip(table.bounds, table.first, strict=True):
        sizes[owner] = sizes.get(owner, 0) + bound - low + 1
        low = bound + 1
    if table.bounds and low < SPACE:  # hashes above the last bound belong to entry 0
        sizes[table.first[0]] += SPACE - low
    return {owner: size / SPACE for owner, size in sorted(sizes.items())}


def moved_share(old: RingTable, new: RingTable) -> float:
    """The part of the hash space whose first shard differs between two tables; 1.0 where one of them is empty."""
    if not old.bounds or not new.bounds:
        return 0.0 if old.bounds == new.bounds else 1.0
    moved = low = 0
    for high in sorted({*old.bounds, *new.bounds, SPACE - 1}):
        if old.owners(high)[0] != new.owners(high)[0]:
            moved += high - low + 1
        low = high + 1
    return moved / SPACE

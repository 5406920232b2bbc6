"""Where actors go: a pure function from machines and what stands already to what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from raydns.schemas.cluster import Machine


def missing(want: int, taken: dict[int, str], machines: Sequence[Machine]) -> list[tuple[int, Machine]]:
    """Which indices to create, and on which machine: the emptiest first, the head last among equals.

    Args:
        want: how many actors of the kind there shall be.
        taken: index → machine name of those that stand or are starting.
        machines: living members.

    Returns:
        (index, machine) for each that is missing; empty where there is no machine.
    """
    if not machines or len(taken) >= want:
        return []
    load = Counter(taken.values())
    free = (index for index in range(want + len(taken)) if index not in taken)
    found = []
    for _ in range(want - len(taken)):
        machine = min(machines, key=lambda m: (load[m.name], m.head, m.name))
        load[machine.name] += 1
        found.append((next(free), machine))
    return found


def surplus(want: int, taken: dict[int, str]) -> list[int]:
    """Which indices to end when there are too many: the newest on the fullest machine first."""
    left = dict(taken)
    ended = []
    while len(left) > want:
        load = Counter(left.values())
        index = max(left, key=lambda i: (load[left[i]], i))
        del left[index]
        ended.append(index)
    return ended


def spread(machines: Iterable[str]) -> int:
    """By how much the fullest machine exceeds the emptiest: 0 or 1 is even."""
    load = Counter(machines)
    return max(load.values(), default=0) - min(load.values(), default=0)

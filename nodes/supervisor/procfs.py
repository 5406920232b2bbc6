"""Processes as /proc shows them: who is who (a process id alone may have been recycled), and who belongs to whom.

Ray's daemons, workers and what those start are found in three ways that complete each other: a mark in their
environment (everything that Ray starts inherits it), descent, and the sessions of those found so far. What
double-forks into a session of its own and clears its environment is nobody's child any more, and left alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class Identity(NamedTuple):
    """A process for good: its id, and when it started in clock ticks since boot."""

    pid: int
    start: int


class Stat(NamedTuple):
    """The fields of /proc/<pid>/stat that matter here (proc(5))."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    start: int

    @property
    def identity(self) -> Identity:
        """Who it is, for good."""
        return Identity(self.pid, self.start)


def stat(pid: int, proc: Path = _PROC) -> Stat | None:
    """What the kernel says of a process; ``None`` if there is none."""
    try:
        text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name stands in parentheses and may hold any character, parentheses and spaces included.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    if len(fields) < 20:
        return None
    return Stat(pid, name, fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def identity(pid: int) -> Identity | None:
    """The identity of a living process; a zombie is dead."""
    found = stat(pid)
    return found.identity if found is not None and found.state not in "ZX" else None


def is_alive(who: Identity) -> bool:
    """Whether exactly that process still lives."""
    return identity(who.pid) == who


def command_line(pid: int) -> str:
    """The command of a process, at most 200 characters; its bare name where it hides the rest."""
    try:
        data = (_PROC / str(pid) / "cmdline").read_bytes()[:400]
    except OSError:
        data = b""
    text = data.replace(b"\0", b" ").decode("utf-8", "replace").strip()[:200]
    # It is shown on a terminal, and its owner may have written anything into it.
    text = "".join(character if character.isprintable() else "?" for character in text)
    found = None if text else stat(pid)
    return found.name if found is not None else text


def all_processes() -> dict[int, Stat]:
    """Every process that lives now and is visible."""
    found: dict[int, Stat] = {}
    for name in os.listdir(_PROC):
        if name.isdecimal():
            one = stat(int(name))
            if one is not None and one.state not in "ZX":
                found[one.pid] = one
    return found


def zombies_of(parent: int) -> list[Stat]:
    """Children that have ended and wait to be reaped."""
    found = [stat(int(name)) for name in os.listdir(_PROC) if name.isdecimal()]
    return [one for one in found if one is not None and one.state == "Z" and one.parent == parent]


def has_mark(pid: int, mark: str) -> bool:
    """Whether the environment with which a process started holds ``NAME=value``."""
    try:
        data = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return mark.encode() in data.split(b"\0")


def family(mark: str, also: Iterable[Identity] = ()) -> set[Identity]:
    """Every living process with the mark, of the sessions of those, and all their descendants; never ourselves.

    Args:
        mark: ``NAME=value`` in their environment.
        also: processes known to belong to it, found earlier.
    """
    processes = all_processes()
    known = {who.pid for who in also if who.pid in processes and processes[who.pid].start == who.start}
    members = {pid for pid in processes if pid in known or has_mark(pid, mark)}
    own = os.getpid()
    forbidden_sessions = {0, processes[own].session} if own in processes else {0}
    sessions = {processes[pid].session for pid in members} - forbidden_sessions
    members |= {pid for pid, one in processes.items() if one.session in sessions}
    members = _with_descendants(members, processes)
    members -= {own, *_ancestors(own, processes)}
    return {processes[pid].identity for pid in members}


def _with_descendants(members: set[int], processes: dict[int, Stat]) -> set[int]:
    children: dict[int, list[int]] = {}
    for one in processes.values():
        children.setdefault(one.parent, []).append(one.pid)
    todo = list(members)
    found = set(members)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


def _ancestors(pid: int, processes: dict[int, Stat]) -> list[int]:
    found: list[int] = []
    while pid in processes and len(found) < 1000:
        pid = processes[pid].parent
        found.append(pid)
    return found

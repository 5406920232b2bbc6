"""Counting failures in a row, and when to probe what: no sockets, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Target:
    """One thing that is probed."""

    name: str
    failures: int = 0
    reason: str = ""
    last_ok: float | None = None
    """Monotonic seconds of the last good answer."""
    pending: bool = False
    """A probe is under way: the next waits for it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is told about one target."""

    name: str
    healthy: bool
    failures: int
    reason: str


@dataclass(slots=True)
class Watch:
    """Remembers, for every target, how many probes in a row have failed."""

    targets: dict[str, Target] = field(default_factory=dict)

    def keep(self, names: Iterable[str]) -> None:
        """Watches just these; what is new starts without failures, what is gone is forgotten."""
        self.targets = {name: self.targets.get(name) or Target(name) for name in names}

    def due(self) -> list[str]:
        """Targets without a probe under way; they count as probed from now on."""
        found = [t for t in self.targets.values() if not t.pending]
        for target in found:
            target.pending = True
        return [t.name for t in found]

    def succeeded(self, name: str, now: float) -> None:
        """A probe was answered."""
        if target := self.targets.get(name):
            target.failures, target.reason, target.last_ok, target.pending = 0, "", now, False

    def failed(self, name: str, reason: str) -> None:
        """A probe was not answered, or wrongly."""
        if target := self.targets.get(name):
            target.failures, target.reason, target.pending = target.failures + 1, reason, False

    def report(self) -> list[Observed]:
        """Everything that was probed at least once."""
        return [
            Observed(t.name, t.failures == 0, t.failures, t.reason)
            for t in self.targets.values()
            if t.failures or t.last_ok is not None
        ]

"""What the cluster floor wants the supervisor to run: commands as data, since nothing here may know Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RayPlan:
    """How Ray is run on this machine."""

    start: Sequence[str]
    """``ray start --block …``: stays in the foreground and takes its daemons with it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the supervisor's environment for all three commands; no secret (processes show their environment)."""
    ready: Sequence[str] | None = None
    """Exits 0 once Ray answers; said again until it does. ``None``: the bootstrap command finds out by itself."""
    bootstrap: Sequence[str] | None = None
    """Run once after each start of Ray, again with back-off until it exits 0; must be safe to say twice."""
    bootstrap_timeout_s: float = 120.0
    """After which one attempt is ended."""

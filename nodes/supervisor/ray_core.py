"""The state machine of Ray on this machine.

    WAITING ──time──▶ STARTING ──ready──▶ JOINING ──bootstrap──▶ RUNNING
       ▲                  │ exit             │ exit                 │ exit
       └──────cleared──── CLEARING ◀─────────┴──────────────────────┘
                             └──── when the node stops: OFF

``ray start --block`` ends as soon as one of its daemons ends, and leaves agents and workers behind when it is
killed itself: after each end everything of it is cleared before it is started again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from .backoff import Backoff
from .events import ClearRay, Command, Job, JobEnded, RunJob, StartRay

_RETRY_FIRST_S: Final = 0.25
_RETRY_LAST_S: Final = 5.0
STABLE_S: Final = 60.0
"""Ray needs some 6 s (20 on a busy machine) to be ready; less than a minute of life was no success."""


class RayPhase(Enum):
    """Of Ray on this machine."""

    OFF = "off"
    WAITING = "waiting"
    STARTING = "starting"
    JOINING = "joining"
    RUNNING = "running"
    CLEARING = "clearing"


@dataclass(slots=True)
class RayCore:
    """Rules and picture at the head of this file."""

    wanted: bool
    has_ready: bool
    has_bootstrap: bool
    backoff: Backoff = field(default_factory=lambda: Backoff(stable_s=STABLE_S))
    retry: Backoff = field(default_factory=lambda: Backoff(_RETRY_FIRST_S, _RETRY_LAST_S))
    phase: RayPhase = RayPhase.OFF
    number: int = 0
    restarts: int = 0
    stopping: bool = False
    _since: float = 0.0
    _wake_at: float | None = None
    _job: Job | None = None  # the one that runs, or is due at ``_wake_at``
    _job_runs: bool = False

    @property
    def wake_at(self) -> float | None:
        """When ``time_passed`` has something to do."""
        return self._wake_at

    @property
    def done(self) -> bool:
        """Whether nothing of Ray is left to wait for."""
        return self.phase is RayPhase.OFF

    def started(self, *, adopted: bool, now: float) -> list[Command]:
        """The supervisor begins: an adopted Ray is asked whether it is well, else it is started."""
        if not self.wanted:
            return []
        if adopted:
            self._since = now
            return self._begin(now)
        return self._start(now)

    def exited(self, number: int, now: float) -> list[Command]:
        """``ray start`` is gone: what it left behind goes too, before anything else."""
        if number != self.number or self.phase in (RayPhase.OFF, RayPhase.WAITING, RayPhase.CLEARING):
            return []
        self.restarts += 1
        return self._clear(now, immediate=False)

    def cleared(self, number: int, now: float) -> list[Command]:
        """Nothing of it is left."""
        if number != self.number or self.phase is not RayPhase.CLEARING:
            return []
        if self.stopping:
            self.phase = RayPhase.OFF
            return []
        self.phase = RayPhase.WAITING
        self._wake_at = now + self.backoff.after(now - self._since)
        return []

    def job_ended(self, event: JobEnded, now: float) -> list[Command]:
        """A one-shot command ended: the next one, or the same again after a while."""
        if event.number != self.number or event.job != self._job or not self._job_runs:
            return []
        self._job_runs = False
        if not event.ok:
            self._wake_at = now + self.retry.after(0.0)
            return []
        self.retry.failures = 0
        if event.job == "ready" and self.has_bootstrap:
            self.phase = RayPhase.JOINING
            return self._run("bootstrap")
        self._job = None
        self.phase = RayPhase.RUNNING
        return []

    def stop(self, now: float, *, immediate: bool) -> list[Command]:
        """The node ends."""
        self.stopping = True
        self.wanted = False
        if self.phase is RayPhase.OFF:
            return []
        if self.phase is RayPhase.WAITING:
            self.phase, self._wake_at = RayPhase.OFF, None
            return []
        if self.phase is RayPhase.CLEARING and not immediate:
            return []
        return self._clear(now, immediate=immediate)

    def time_passed(self, now: float) -> list[Command]:
        """Starts what is due."""
        if self._wake_at is None or self._wake_at > now:
            return []
        self._wake_at = None
        if self.phase is RayPhase.WAITING:
            return self._start(now)
        return self._run(self._job) if self._job is not None and not self._job_runs else []

    def _start(self, now: float) -> list[Command]:
        self.number += 1
        self._since = now
        return [StartRay(self.number), *self._begin(now)]

    def _begin(self, now: float) -> list[Command]:
        self.retry.failures = 0
        if self.has_ready:
            self.phase = RayPhase.STARTING
            return self._run("ready")
        if self.has_bootstrap:
            self.phase = RayPhase.JOINING
            return self._run("bootstrap")
        self.phase = RayPhase.RUNNING
        return []

    def _run(self, job: Job) -> list[Command]:
        self._job, self._job_runs = job, True
        return [RunJob(self.number, job)]

    def _clear(self, now: float, *, immediate: bool) -> list[Command]:
        self.phase = RayPhase.CLEARING
        self._wake_at, self._job, self._job_runs = None, None, False
        return [ClearRay(self.number, immediate)]

"""The state machine of the ingress: which process serves, which one comes, which ones leave.

    STARTING ──ready──▶ SERVING ──take-over, stop──▶ LEAVING ──exit──▶ gone
        │ exit                │ exit
        ▼                     ▼
    with another one serving: the take-over failed, nothing changes; otherwise a new one after the back-off

At most one is STARTING and at most one SERVING; the sockets are read by two only between ``ready`` of the new one
and ``stop_reading`` of the old one, which follow each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from .backoff import Backoff
from .events import (
    Command,
    KillIngress,
    ReleaseIngress,
    ReportReady,
    ReportTakeover,
    ReportTrouble,
    StartIngress,
)

START_TIMEOUT_S: Final = 30.0
"""A start on a machine that also starts Ray took up to 5 s."""
TROUBLE_AFTER: Final = 3
"""Failed starts in a row, about a second, after which whoever waits for the first answer is told."""
LEAVE_TIMEOUT_S: Final = 15.0
"""TCP connections are idle for 10 s at most (RFC 7766 section 6.2.3), then their clients connect anew."""


class Phase(Enum):
    """Of one ingress process."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass(slots=True)
class _Ingress:
    phase: Phase
    since: float
    deadline: float | None
    killed: bool = False


@dataclass(slots=True)
class IngressCore:
    """Rules and picture at the head of this file."""

    backoff: Backoff = field(default_factory=Backoff)
    stopping: bool = False
    restart_at: float | None = None
    """When the next one is started; ``None`` unless none is there."""
    restarts: int = 0
    _all: dict[int, _Ingress] = field(default_factory=dict)
    _next: int = 1
    _told_ready: bool = False
    _takeover: bool = False

    def phases(self) -> dict[int, Phase]:
        """Each living process by number."""
        return {number: one.phase for number, one in self._all.items()}

    @property
    def serving(self) -> int | None:
        """The number of the process that serves."""
        return self._only(Phase.SERVING)

    @property
    def wake_at(self) -> float | None:
        """When ``time_passed`` has something to do."""
        times = [one.deadline for one in self._all.values() if one.deadline is not None]
        if self.restart_at is not None:
            times.append(self.restart_at)
        return min(times, default=None)

    def started(self, *, adopted: bool, now: float) -> list[Command]:
        """The supervisor begins: the adopted one serves already, or the first is started."""
        if adopted:
            self._all[0] = _Ingress(Phase.SERVING, now, None)
            self._told_ready = True
            return [ReportReady()]
        return self._start(now)

    def takeover(self, now: float) -> list[Command]:
        """A new one is wanted. Without one that serves, the one that comes anyway is the answer."""
        if self.stopping:
            return [ReportTakeover(-1, "the node is stopping")]
        self._takeover = True
        if self._only(Phase.STARTING) is not None:
            return []
        self.restart_at = None
        return self._start(now)

    def ready(self, number: int, now: float) -> list[Command]:
        """One says that it answers: it serves from now on, and who served before leaves."""
        one = self._all.get(number)
        if one is None or one.phase is not Phase.STARTING or self.stopping:
            return []
        old = self.serving
        one.phase, one.since, one.deadline = Phase.SERVING, now, None
        commands: list[Command] = [] if old is None else self._release(old, now)
        commands += self._report(number)
        if not self._told_ready:
            self._told_ready = True
            commands.append(ReportReady())
        return commands

    def exited(self, number: int, reason: str, now: float) -> list[Command]:
        """One is gone."""
        one = self._all.pop(number, None)
        if one is None or self.stopping or one.phase is Phase.LEAVING:
            return []
        if self._only(Phase.STARTING) is not None:
            return []  # the one that served died while its successor is on the way
        served = self.serving
        if served is not None:
            return self._report(served, f"the new ingress did not start: {reason}")
        self.restarts += 1
        ran_s = now - one.since if one.phase is Phase.SERVING else 0.0
        self.restart_at = now + self.backoff.after(ran_s)
        commands = self._report(-1, f"the new ingress did not start: {reason}")
        if not self._told_ready and self.backoff.failures == TROUBLE_AFTER:
            commands.append(ReportTrouble(reason))
        return commands

    def stop(self, now: float, *, immediate: bool) -> list[Command]:
        """The node ends: those that serve finish what they have read, those that start are ended."""
        self.stopping = True
        self.restart_at = None
        commands = self._report(-1, "the node is stopping")
        for number, one in self._all.items():
            if immediate or one.phase is Phase.STARTING:
                commands += self._kill(number)
            elif one.phase is Phase.SERVING:
                commands += self._release(number, now)
        return commands

    def time_passed(self, now: float) -> list[Command]:
        """Starts what is due and ends what took too long."""
        commands: list[Command] = []
        for number, one in self._all.items():
            if one.deadline is not None and one.deadline <= now:
                commands += self._kill(number)
        if self.restart_at is not None and self.restart_at <= now:
            self.restart_at = None
            commands += self._start(now, fresh=False)
        return commands

    def _start(self, now: float, *, fresh: bool = True) -> list[Command]:
        number = self._next
        self._next += 1
        self._all[number] = _Ingress(Phase.STARTING, now, now + START_TIMEOUT_S)
        return [StartIngress(number, fresh)]

    def _release(self, number: int, now: float) -> list[Command]:
        one = self._all[number]
        one.phase, one.deadline = Phase.LEAVING, now + LEAVE_TIMEOUT_S
        return [ReleaseIngress(number)]

    def _kill(self, number: int) -> list[Command]:
        one = self._all[number]
        one.deadline = None
        if one.killed:
            return []
        one.killed = True
        return [KillIngress(number)]

    def _report(self, number: int, problem: str = "") -> list[Command]:
        if not self._takeover:
            return []
        self._takeover = False
        return [ReportTakeover(number, problem)]

    def _only(self, phase: Phase) -> int | None:
        return next((number for number, one in self._all.items() if one.phase is phase), None)

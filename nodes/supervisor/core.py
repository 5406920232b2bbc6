"""The supervisor's core: one mutator that takes an event and the time, and returns what to do. No IO, no clock."""

from __future__ import annotations

from typing import Any

from . import events as ev
from .ingress_core import IngressCore
from .plan import RayPlan
from .ray_core import RayCore


class SupervisorCore:
    """Ingress and Ray side by side; they meet only at the end: the ingress drains while Ray still answers it."""

    def __init__(self, ray: RayPlan | None) -> None:
        self.ingress = IngressCore()
        self.ray = RayCore(
            wanted=ray is not None,
            has_ready=ray is not None and ray.ready is not None,
            has_bootstrap=ray is not None and ray.bootstrap is not None,
        )
        self.stopping = False
        self._immediate = False
        self._ray_told = False  # to stop
        self._finished = False

    @property
    def wake_at(self) -> float | None:
        """When ``TimePassed`` is due; ``None`` while there is nothing to wait for."""
        return min((at for at in (self.ingress.wake_at, self.ray.wake_at) if at is not None), default=None)

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Takes in one event and returns what to do about it."""
        commands: list[ev.Command] = []
        match event:
            case ev.Started(ingress, ray):
                commands += self.ingress.started(adopted=ingress, now=now)
                commands += self.ray.started(adopted=ray, now=now)
            case ev.IngressReady(number):
                commands += self.ingress.ready(number, now)
            case ev.IngressExited(number, reason):
                commands += self.ingress.exited(number, reason, now)
            case ev.RayExited(number):
                commands += self.ray.exited(number, now)
            case ev.RayCleared(number):
                commands += self.ray.cleared(number, now)
            case ev.JobEnded():
                commands += self.ray.job_ended(event, now)
            case ev.TakeoverAsked():
                commands += self.ingress.takeover(now)
            case ev.StopAsked(immediate):
                commands += self._stop(now, immediate=immediate)
            case ev.TimePassed():
                commands += self.ingress.time_passed(now)
                commands += self.ray.time_passed(now)
        return commands + self._end(now)

    def statistics(self) -> dict[str, Any]:
        """What ``raydns node status`` shows of it."""
        return {
            "ingress": {
                "serving": self.ingress.serving,
                "phases": {str(n): phase.value for n, phase in self.ingress.phases().items()},
                "restarts": self.ingress.restarts,
            },
            "ray": {"phase": self.ray.phase.value, "restarts": self.ray.restarts},
            "stopping": self.stopping,
        }

    def _stop(self, now: float, *, immediate: bool) -> list[ev.Command]:
        if self._finished or (self.stopping and not immediate):
            return []
        self.stopping = True
        self._immediate = self._immediate or immediate
        commands = self.ingress.stop(now, immediate=immediate)
        if immediate:
            self._ray_told = True
            commands += self.ray.stop(now, immediate=True)
        return commands

    def _end(self, now: float) -> list[ev.Command]:
        """Once the ingress has drained Ray is stopped; once both are gone the supervisor leaves."""
        if not self.stopping or self._finished or self.ingress.phases():
            return []
        commands: list[ev.Command] = []
        if not self._ray_told:
            self._ray_told = True
            commands += self.ray.stop(now, immediate=self._immediate)
        if self.ray.done:
            self._finished = True
            commands.append(ev.Finish())
        return commands
